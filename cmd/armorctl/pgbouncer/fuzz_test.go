package pgbouncer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

// FuzzTranslate: whatever the files are, there is an error or a configuration that can
// be applied, and no password in the report.
func FuzzTranslate(f *testing.F) {
	f.Add(small, users, "")
	f.Add("[databases]\n* = host=/run,a password='x y' user=u\n[users]\nu = pool_size=3\n[pgbouncer]\nauth_type=hba\n", users,
		"host all all 10.0.0.0/8 md5\nlocal all all peer\n")
	f.Add("[databases]\n* = host=a auth_user=u\nb = auth_query='select $1'\n[pgbouncer]\nauth_user=v\nauth_dbname=c\nautodb_idle_timeout=1e9\n"+
		"max_prepared_statements=20000\nlogin_notify_message=x\n", `"u" "x"`+"\n"+`"w" ""`, "")
	f.Add("[pgbouncer]\n%include x\nreserve_pool_size=3\n[peers]\n1 = host=x\n", `"a" "SCRAM-SHA-256$4096:x$y:z"`, "")
	f.Fuzz(func(t *testing.T, ini, userlist, hba string) {
		r, err := Translate(files{ini: ini, userlist: userlist, hba: hba}.source(), options)
		if err != nil {
			if !errors.Is(err, armor.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		text, err := manifest.Marshal(r.State)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.Parse("manifests", text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		said := fmt.Sprintf("%+v %v %v", r.Report, r.Secrets, r.Verifiers)
		for _, s := range r.Secrets {
			if len(s.Password) > 8 && !strings.Contains(ini, "="+s.Password) && strings.Contains(said, s.Password) &&
				strings.Count(ini+userlist, s.Password) == 1 {
				t.Fatalf("the report repeats password %q: %s", s.Password, said)
			}
		}
	})
}

func FuzzReadINI(f *testing.F) {
	f.Add("[databases]\n\"a\"\"b\" = x\n;\n%include y\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := readINI("f", []byte(text), func(string) ([]byte, error) { return []byte("a=b\n[users]\n%include z"), nil })
		if err != nil && !errors.Is(err, armor.ErrInvalid) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.section == "" || e.key == "" || e.file == "" || e.line == 0 {
				t.Fatalf("entry %+v", e)
			}
			_, _ = parsePairs(e.value) // must not panic
		}
	})
}

func FuzzReadUserlist(f *testing.F) {
	f.Add("\"a\" \"b\" x\n; c\n\"d\"\"\" \"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := readUserlist("f", []byte(text))
		if err != nil && !errors.Is(err, armor.ErrInvalid) {
			t.Fatal(err)
		}
		for _, u := range found {
			if u.name == "" || u.isMD5() && u.password() != "" || u.isVerifier() && u.password() != "" {
				t.Fatalf("user %s", u)
			}
		}
	})
}

func FuzzReadHBA(f *testing.F) {
	f.Add("host all,\"x y\" @f 10.0.0.0 255.0.0.0 md5 map=x # c\nlocal all all peer\n")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := readHBA("f", []byte(text))
		if err != nil && !errors.Is(err, armor.ErrInvalid) {
			t.Fatal(err)
		}
		for _, h := range records {
			o := h.outcome()
			if len(h.databases) == 0 || len(h.users) == 0 || (o.to == "") == (o.why == "") {
				t.Fatalf("record %+v: %+v", h, o)
			}
		}
	})
}
