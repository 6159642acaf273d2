package pgbouncer

import (
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// TestFilesThatAreWrongAreRefused, with their place and without their secrets.
func TestFilesThatAreWrongAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		f    files
		want string
	}{
		"an unknown key":         {files{ini: "[pgbouncer]\npol_mode = session\n"}, "p.ini:2: PgBouncer 1.25 has no key pol_mode"},
		"an unknown key of a db": {files{ini: "[databases]\nx = hots=pg1\n"}, "p.ini:2: x: PgBouncer 1.25 has no key hots"},
		"an unknown section":     {files{ini: "[pools]\n"}, "p.ini:1: PgBouncer has no section [pools]"},
		"no section":             {files{ini: "x = 1\n"}, `p.ini:1: key "x" stands before any section`},
		"an open section":        {files{ini: "[databases\n"}, "a ']' is missing"},
		"no assignment":          {files{ini: "[pgbouncer]\nsession\n"}, `p.ini:2: "session" is not key = value`},
		"a password's line":      {files{ini: "[databases]\nx y = host=h password=hunter2\n"}, `p.ini:2: "x y " is not key = value`},
		"an open quote":          {files{ini: "[databases]\nx = password='hunter2\n"}, "the value of password has no closing quote"},
		"twice":                  {files{ini: "[databases]\nx = host=a\nx = host=b\n"}, "p.ini:3: x is there already, at p.ini:2"},
		"given twice":            {files{ini: "[databases]\nx = host=a host=b\n"}, "host is given twice"},
		"no such include":        {files{ini: "%include no.ini\n"}, "p.ini:1: %include: there is no file no.ini"},
		"a circle": {files{ini: "%include p.ini\n", included: map[string]string{"p.ini": "%include p.ini\n"}},
			"more than 10 deep"},
		"another directive": {files{ini: "%exclude p.ini\n"}, "there is %include FILE"},
		"no number": {files{ini: small + "default_pool_size = many\n", userlist: users},
			"p.ini:5: pool_size: \"many\" is not a number"},
		"no time": {files{ini: small + "query_timeout = NaN\n", userlist: users},
			"p.ini:5: query_timeout: \"NaN\" is not a number of seconds"},
		"no mode":             {files{ini: small + "pool_mode = query\n", userlist: users}, "p.ini:5: pool_mode \"query\""},
		"no port":             {files{ini: "[databases]\nx = host=a port=0\n", userlist: users}, "port \"0\" of database x"},
		"an empty host":       {files{ini: "[databases]\nx = host=a,,b\n", userlist: users}, "database x has an empty host"},
		"a budget of nothing": {files{ini: "[databases]\nx = host=a pool_size=0\n", userlist: users}, "a budget of 0"},
		"a huge budget":       {files{ini: "[databases]\nx = host=a pool_size=2000000\n", userlist: users}, "a budget of 2000000"},
		"verify without a CA": {files{ini: "[databases]\nx = host=a\n[pgbouncer]\nserver_tls_sslmode=verify-ca\n", userlist: users},
			"needs a server_tls_ca_file"},
		"a user without quotes": {files{ini: small, userlist: "checkout hunter2\n"}, `u.txt:1: the line is not "name" "secret"`},
		"a user twice":          {files{ini: small, userlist: users + users}, "u.txt:2: user \"checkout\" is there already, in line 1"},
		"hba without its file":  {files{ini: small + "auth_type = hba\n", userlist: users}, "p.ini:5: auth_type is hba"},
		"a file without hba":    {files{ini: small, userlist: users, hba: "host all all all md5\n"}, "auth_type is not hba"},
		"a type that is none":   {files{ini: small + "auth_type=hba\n", userlist: users, hba: "tcp all all all md5\n"}, "h.conf:1: type tcp"},
		"an address that is none": {files{ini: small + "auth_type=hba\n", userlist: users, hba: "host all all db.example md5\n"},
			"h.conf:1: address db.example"},
		"a mask that is none": {files{ini: small + "auth_type=hba\n", userlist: users, hba: "host all all 10.0.0.0 255.0.255.0 md5\n"},
			"255.0.255.0 is no mask"},
		"a record cut short": {files{ini: small + "auth_type=hba\n", userlist: users, hba: "host all all\n"}, "h.conf:1: a record has"},
		"a NUL": {files{ini: "[pgbouncer]\npool_mode = a\x00b\n"},
			"p.ini:2: the line is not UTF-8, or holds control characters"},
		"a long name": {files{ini: small, userlist: `"` + strings.Repeat("n", 64) + `" "x"`},
			"u.txt:1: the name is empty, or has more than 63 bytes"},
		"a long user": {files{ini: "[databases]\nx = host=a user=" + strings.Repeat("n", 64) + "\n"},
			"p.ini:2: x: user has more than 63 bytes"},
		"a long line": {files{ini: "[pgbouncer]\npool_mode = " + strings.Repeat("x", maxLine) + "\n"}, "p.ini:2: the line has"},
		"a long file": {files{ini: strings.Repeat(";\n", MaxFile)}, "p.ini: the file has"},
	} {
		r, err := Translate(c.f.source(), options)
		if !errors.Is(err, armor.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %+v\nwant %s", name, err, r, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats a secret: %v", name, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"--environment":  {TrustDomain: "x", Processes: 1},
		"--trust-domain": {Environment: "e", TrustDomain: "X y", Processes: 1},
		"--processes":    {Environment: "e", TrustDomain: "x"},
	} {
		if _, err := Translate(files{ini: small, userlist: users}.source(), o); !errors.Is(err, armor.ErrInvalid) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
