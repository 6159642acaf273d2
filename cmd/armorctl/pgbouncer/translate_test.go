package pgbouncer

import (
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

var options = Options{Environment: "production", TrustDomain: "production.acme.internal", Owner: "dba", Processes: 1}

// files is a source of texts.
type files struct {
	ini, userlist, hba string
	included           map[string]string
}

func (f files) source() Source {
	s := Source{Config: File{"p.ini", []byte(f.ini)}, Include: func(name string) ([]byte, error) {
		text, ok := f.included[name]
		if !ok {
			return nil, errors.New("there is no file " + name)
		}
		return []byte(text), nil
	}}
	if f.userlist != "" {
		s.Userlist = &File{"u.txt", []byte(f.userlist)}
	}
	if f.hba != "" {
		s.HBA = &File{"h.conf", []byte(f.hba)}
	}
	return s
}

func translate(t *testing.T, f files, o Options) *Result {
	t.Helper()
	r, err := Translate(f.source(), o)
	if err != nil {
		t.Fatal(err)
	}
	yaml(t, r)
	return r
}

// yaml are the manifests, which must be readable.
func yaml(t *testing.T, r *Result) string {
	t.Helper()
	text, err := manifest.Marshal(r.State)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Parse("manifests", text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return string(text)
}

func (r *Result) pool(t *testing.T, name string) armor.Pool {
	t.Helper()
	p, ok := r.State.Pools.Get("production/" + name)
	if !ok {
		t.Fatalf("no pool %s", name)
	}
	return p
}

func (r *Result) database(t *testing.T, name string) armor.Database {
	t.Helper()
	d, ok := r.State.Databases.Get("production/" + name)
	if !ok {
		t.Fatalf("no database %s", name)
	}
	return d
}

func (r *Result) grants(t *testing.T, identity string) []armor.Grant {
	t.Helper()
	i, ok := r.State.Identities.Get("production/" + identity)
	if !ok {
		t.Fatalf("no identity %s", identity)
	}
	return i.Grants
}

// lost are the places and keys of what cannot be translated.
func (r *Result) lost() (all []string) {
	for _, l := range r.Report.NotTranslatable {
		all = append(all, l.Place+" "+l.Key)
	}
	return all
}

// small is a configuration that can be translated as a whole.
const small = "[databases]\norders = host=pg1 port=5433 dbname=orders_v2\n[pgbouncer]\nserver_tls_sslmode=disable\n"

const users = `"checkout" "correct horse"` + "\n"

func TestRulesAreForPgBouncersKeys(t *testing.T) {
	text, err := os.ReadFile("testdata/keys-1.25.txt")
	if err != nil {
		t.Fatal(err)
	}
	documented, section := map[string][]string{}, ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "[") {
			section = strings.TrimSpace(line)
			continue
		}
		documented[section] = append(documented[section], strings.Fields(line)...)
	}
	for section, rules := range map[string]map[string]rule{"[pgbouncer]": mainRules, "[databases]": databaseRules, "[users]": userRules} {
		want := documented[section]
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(rules)); !slices.Equal(got, want) {
			t.Errorf("%s: rules for %v\ndocumented are %v", section, got, want)
		}
		for key, translate := range rules {
			for _, value := range []string{"1", "0", ""} {
				if o := translate(value); (o.to == "") == (o.why == "") || (o.why == "") != (o.instead == "") {
					t.Errorf("%s %s = %q: %+v", section, key, value, o)
				}
			}
		}
	}
}

// TestWhatIsMappedToAFieldChangesIt: no key is called mapped and then forgotten.
func TestWhatIsMappedToAFieldChangesIt(t *testing.T) {
	whole := func(main, database, user string) files {
		return files{
			ini: "[databases]\n* = host=pg1\norders = host=pg1,pg2 " + database + "\n[users]\nbatch = " + user +
				"\n[pgbouncer]\ndefault_pool_size=7\nmin_pool_size=1\nreserve_pool_size=2\nauth_user=asker\nauth_type=trust\n" + main,
			userlist: users + `"batch" "secret"` + "\n",
		}
	}
	values := map[string]string{ // that change something; all others are tried with 3
		"pool_mode": "statement", "auth_type": "md5", "admin_users": "checkout", "stats_users": "checkout", "server_tls_sslmode": "disable",
		"load_balance_hosts": "disable", "target_session_attrs": "read-write", "user": "forced", "password": "x", "host": "elsewhere",
		"dbname": "d", "auth_query": "'SELECT n, p FROM f($1)'",
		"max_db_connections": "5", "reserve_pool_size": "4", "reserve_pool": "4",
	}
	without := yaml(t, translate(t, whole("", "", ""), options))
	tried := 0
	try := func(section, key string, translated outcome, f files) {
		if !strings.Contains(translated.to, "spec.") ||
			slices.Contains([]string{"auth_file", "auth_hba_file", "unix_socket_dir", "server_tls_ca_file"}, key) {
			return // these have tests of their own
		}
		tried++
		if with := yaml(t, translate(t, f, options)); with == without {
			t.Errorf("[%s] %s is mapped to %s and changes nothing", section, key, translated.to)
		}
	}
	for key, translated := range mainRules {
		value := valueOr(values, key)
		f := whole(key+"="+value+"\n", "", "")
		if key == "auth_type" {
			f.ini = strings.Replace(f.ini, "auth_type=trust\n", "", 1)
		}
		try("pgbouncer", key, translated(value), f)
	}
	for key, translated := range databaseRules {
		value := valueOr(values, key)
		f := whole("", key+"="+value, "")
		if key == "host" {
			f.ini = strings.Replace(f.ini, "host=pg1,pg2 ", "", 1)
		}
		try("databases", key, translated(value), f)
	}
	for key, translated := range userRules {
		value := valueOr(values, key)
		try("users", key, translated(value), whole("", "", key+"="+value))
	}
	if tried < 35 {
		t.Errorf("only %d keys were tried", tried)
	}
}

func valueOr(values map[string]string, key string) string {
	if v, ok := values[key]; ok {
		return v
	}
	return "3"
}

func TestDefaultsOfPgBouncerAreWrittenOut(t *testing.T) {
	r := translate(t, files{ini: small, userlist: users}, options)
	want := armor.Pool{
		Name: "orders", Environment: "production", Database: "orders", Mode: armor.SessionMode, Budget: 20, QueryWait: 2 * time.Minute,
		QueryWaitNotify: 5 * time.Second, ServerLifetime: time.Hour, ServerIdle: 10 * time.Minute,
	}
	if got := r.pool(t, "orders"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	d := r.database(t, "orders")
	if !slices.Equal(d.Hosts, []string{"pg1:5433"}) || d.DBName != "orders_v2" || d.Verifiers != VerifiersName ||
		!slices.Equal(d.Roles, []armor.RoleAuth{{Role: "checkout", Secret: "pgbouncer-checkout"}}) {
		t.Errorf("database %+v", d)
	}
	if g := r.grants(t, "checkout"); len(g) != 1 || g[0].SecondFactor != armor.SCRAM || g[0].Pool != "orders" {
		t.Errorf("grants %+v", g)
	}
	if len(r.Secrets) != 1 || r.Secrets[0].Password != "correct horse" || !slices.Equal(r.Secrets[0].Hosts, d.Hosts) {
		t.Errorf("secrets %v", r.Secrets)
	}
	if len(r.Report.NotTranslatable) != 0 {
		t.Errorf("lost: %v", r.lost())
	}
	var keys []string
	for _, d := range r.Report.Defaulted {
		keys = append(keys, d.Key)
	}
	for _, key := range []string{"auth_type", "client_tls_sslmode", "pool_mode", "default_pool_size"} {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is not said to be a default that differs: %v", key, keys)
		}
	}
	if slices.Contains(keys, "server_tls_sslmode") {
		t.Error("what is written is called a default")
	}
}

func TestConnectQueryIsThePools(t *testing.T) {
	r := translate(t, files{ini: "[databases]\norders = host=pg1 connect_query='SET a.b = ''c''; SELECT 1'\n" +
		"[pgbouncer]\nserver_tls_sslmode=disable\n", userlist: users}, options)
	if got := r.pool(t, "orders").ConnectQuery; got != "SET a.b = 'c'; SELECT 1" || len(r.Report.NotTranslatable) > 0 {
		t.Errorf("connectQuery %q, lost %v", got, r.lost())
	}
}

func TestBudgetsAreWhatAllProcessesCouldOpen(t *testing.T) {
	three := options
	three.Processes = 3
	list := users + `"batch" "x"` + "\n"
	for name, c := range map[string]struct {
		main, database, user string
		budget, reserve      int
		lost                 int
	}{
		"two roles":                {"", "", "", 3 * 2 * 20, 0, 0},
		"a reserve":                {"reserve_pool_size=5\n", "", "", 3 * 2 * 25, 3 * 2 * 5, 0},
		"a reserve that is off":    {"reserve_pool_size=5\nreserve_pool_timeout=0\n", "", "", 3 * 2 * 20, 0, 0},
		"a bound":                  {"max_db_connections=30\n", "", "", 3 * 30, 0, 0},
		"a bound over the reserve": {"reserve_pool_size=5\nmax_db_connections=45\n", "", "", 3 * 45, 3 * 5, 0},
		"a bound under it":         {"reserve_pool_size=5\n", "max_db_connections=10", "", 3 * 10, 0, 0},
		"one forced role":          {"", "user=checkout pool_size=8", "", 3 * 8, 0, 1},
		"a pool of its own":        {"", "", "pool_size=2", 3 * 20, 0, 0},
		"a bound for both":         {"max_db_connections=21\n", "", "pool_size=2", 3 * 20, 0, 1},
	} {
		f := files{ini: "[databases]\norders = host=pg1 " + c.database + "\n[users]\nbatch = " + c.user +
			"\n[pgbouncer]\nserver_tls_sslmode=disable\n" + c.main, userlist: list}
		r := translate(t, f, three)
		if p := r.pool(t, "orders"); p.Budget != c.budget || p.Reserve != c.reserve || (p.Reserve > 0) != (p.ReserveAfter > 0) {
			t.Errorf("%s: budget %d, reserve %d after %s, want %d and %d", name, p.Budget, p.Reserve, p.ReserveAfter, c.budget, c.reserve)
		}
		if len(r.Report.NotTranslatable) != c.lost {
			t.Errorf("%s: lost %v", name, r.lost())
		}
		if c.user != "" && r.pool(t, "orders.batch").Budget != 3*2 {
			t.Errorf("%s: own pool %+v", name, r.pool(t, "orders.batch"))
		}
	}
}

func TestForcedUserIsARoleThatClientsHaveToName(t *testing.T) {
	r := translate(t,
		files{ini: "[databases]\norders = host=pg1 user=app password='it''s' min_pool_size=2\n[pgbouncer]\nserver_tls_sslmode=disable\n",
			userlist: users}, options)
	if !slices.Equal(r.lost(), []string{"p.ini:2 databases.orders.user"}) {
		t.Errorf("lost: %v", r.lost())
	}
	if g := r.grants(t, "checkout"); len(g) != 1 || !slices.Equal(g[0].Roles, []string{"app"}) || g[0].SecondFactor != "" {
		t.Errorf("grants %+v", g)
	}
	if len(r.Secrets) != 1 || r.Secrets[0].Password != "it's" || r.Secrets[0].Name != "pgbouncer-orders.app" {
		t.Errorf("secrets %v", r.Secrets)
	}
	if p := r.pool(t, "orders"); p.MinSize != 2 || !p.WarmUp {
		t.Errorf("pool %+v", p)
	}
}

func TestPasswordsThatCannotBeUsedAreReported(t *testing.T) {
	verifier := "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2E=$AAAA:AAAA"
	r := translate(t, files{ini: small, userlist: `"a" "` + verifier + `"
"b" "md545f2603610af569b6155c45067268c6b"
"c" ""
"d" "SCRAM-SHA-256$1000:c2FsdA==$AAAA:AAAA"
"e" "md5 is no hash"
`}, options)
	want := []string{"u.txt:1 userlist.a", "u.txt:2 userlist.b", "u.txt:4 userlist.d", "u.txt:2 userlist.b", "u.txt:3 userlist.c",
		"u.txt:4 userlist.d"}
	if got := r.lost(); !slices.Equal(got, want) {
		t.Errorf("lost:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var roles []string
	for _, v := range r.Verifiers {
		roles = append(roles, v.Role)
	}
	if !slices.Equal(roles, []string{"a", "e"}) || r.Verifiers[0].Text != verifier ||
		weak(strings.TrimPrefix(r.Verifiers[1].Text, scramPrefix)) {
		t.Errorf("verifiers of %v", roles)
	}
	for _, g := range r.grants(t, "b") {
		if g.SecondFactor != armor.SCRAM { // it must not come in by less than before
			t.Errorf("grant %+v", g)
		}
	}
}

func TestTemplateIsTranslated(t *testing.T) {
	r := translate(t, files{ini: "[databases]\n* = host=pg1 dbname=all\n[pgbouncer]\nserver_tls_sslmode=disable\n", userlist: users}, options)
	if d := r.database(t, "*"); d.DBName != "" {
		t.Errorf("database %+v", d)
	}
	if p := r.pool(t, "others"); p.Database != "*" {
		t.Errorf("pool %+v", p)
	}
	if !slices.Equal(r.lost(), []string{"p.ini:2 databases.*.dbname"}) {
		t.Errorf("lost: %v", r.lost())
	}
}

func TestTLSTowardsPostgreSQL(t *testing.T) {
	for _, c := range []struct {
		main, host string
		mode       armor.TLSMode
		ca         armor.SecretName
		lost       int
	}{
		{"", "pg1", armor.TLSRequire, "", 0},
		{"server_tls_sslmode=prefer\n", "pg1", armor.TLSRequire, "", 1},
		{"server_tls_sslmode=disable\n", "pg1", armor.TLSDisable, "", 0},
		{"server_tls_sslmode=verify-full\nserver_tls_ca_file=/ca.crt\n", "pg1", armor.TLSVerifyFull, ServerCAName, 0},
		{"server_tls_sslmode=verify-full\nserver_tls_ca_file=/ca.crt\n", "/run/postgresql", armor.TLSDisable, "", 0},
		{"unix_socket_dir=/run/pg\n", "", armor.TLSDisable, "", 0},
	} {
		r := translate(t, files{ini: "[databases]\norders = host=" + c.host + "\n[pgbouncer]\n" + c.main, userlist: users}, options)
		d := r.database(t, "orders")
		if d.TLSMode != c.mode || d.CA != c.ca || len(r.Report.NotTranslatable) != c.lost || (r.ServerCA != "") != (c.ca != "") {
			t.Errorf("%q: %+v, lost %v, CA %q", c.main, d, r.lost(), r.ServerCA)
		}
	}
	r := translate(t, files{ini: "[databases]\norders = port=5433\n[pgbouncer]\nunix_socket_dir=/run/pg\n", userlist: users}, options)
	if d := r.database(t, "orders"); !slices.Equal(d.Hosts, []string{"/run/pg:5433"}) {
		t.Errorf("hosts %v", d.Hosts)
	}
}

func TestResetAlwaysIsAnIsolation(t *testing.T) {
	for value, want := range map[string]armor.Isolation{"1": armor.IsolatedClients, "on": armor.IsolatedClients, "0": armor.IsolatedIdentities} {
		r := translate(t, files{
			ini:      "[databases]\norders = host=pg1\n[pgbouncer]\nserver_tls_sslmode=disable\nserver_reset_query_always = " + value + "\n",
			userlist: users,
		}, options)
		if p := r.pool(t, "orders"); p.Isolation != want {
			t.Errorf("%s: pool %+v", value, p)
		}
	}
}

func TestIncludesAndLaterLines(t *testing.T) {
	r := translate(t, files{
		ini: "; a comment\n# another\n[pgbouncer]\npool_mode = session\n%include more.ini\npool_mode = statement\n", userlist: users,
		included: map[string]string{"more.ini": "pool_mode = transaction\nserver_tls_sslmode=disable\n[databases]\n\"orders.v2\" = host=pg1\n[pgbouncer]\n"},
	}, options)
	if p := r.pool(t, "orders.v2"); p.Mode != armor.StatementMode {
		t.Errorf("pool %+v", p)
	}
	replaced := 0
	for _, m := range r.Report.Mapped {
		if m.Key == "pool_mode" && m.Note == "a later line replaces it" {
			replaced++
		}
	}
	if replaced != 2 {
		t.Errorf("%d lines are said to be replaced: %+v", replaced, r.Report.Mapped)
	}
}

func TestNamesAreMadeFitAndStayApart(t *testing.T) {
	r := translate(t, files{ini: small, userlist: `"a b" "x"
"a-b" "y"
"é" "z"
"` + strings.Repeat("n", 63) + `" "w"
`}, options)
	var ids []string
	for i := range r.State.Identities.Values() {
		ids = append(ids, i.Name+" "+i.Grants[0].Roles[0])
	}
	want := []string{"a-b a b", "a-b-2 a-b", strings.Repeat("n", 56) + " " + strings.Repeat("n", 63), "x é"}
	if slices.Sort(ids); !slices.Equal(ids, want) {
		t.Errorf("got %q, want %q", ids, want)
	}
	if len(r.Secrets) != 4 {
		t.Errorf("secrets %v", r.Secrets)
	}
}

// TestPageTellsOfEveryKeyThatAsksForSomething: all others are "nothing to do" there.
func TestPageTellsOfEveryKeyThatAsksForSomething(t *testing.T) {
	page, err := os.ReadFile("../../../docs/migrate-from-pgbouncer.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rules := range []map[string]rule{mainRules, databaseRules, userRules} {
		for key, translated := range rules {
			if o := translated("x"); o.to != nothing && !strings.Contains(string(page), "`"+key+"`") {
				t.Errorf("docs/migrate-from-pgbouncer.md does not mention `%s`: %+v", key, o)
			}
		}
	}
}

func TestRecordOfADatabaseThatOnlyTheTemplateServesIsLost(t *testing.T) {
	hba := "host orders,pgbouncer all all md5\nhost reports all all md5\nhost sameuser all all md5\nhost all all all md5\n"
	ini := strings.Replace(small, "[pgbouncer]\n", "[pgbouncer]\nauth_type = hba\nauth_hba_file = h.conf\n", 1)
	if r := translate(t, files{ini: ini, userlist: users, hba: hba}, options); len(r.lost()) != 0 {
		t.Errorf("without a template: %v", r.lost())
	}
	r := translate(t, files{ini: strings.Replace(ini, "[pgbouncer]\n", "* = host=pg1\n[pgbouncer]\n", 1), userlist: users, hba: hba}, options)
	if got := r.lost(); !slices.Equal(got, []string{"h.conf:2 hba", "h.conf:3 hba"}) {
		t.Errorf("with one: %v", got)
	}
}

func TestWhatAPoolDoesForItsSessions(t *testing.T) {
	long := strings.Repeat("x", armor.MaxPoolText+1)
	for _, c := range []struct {
		main string
		want armor.Pool // of the template
		lost string
	}{
		{"", armor.Pool{}, ""},
		{"max_prepared_statements = 100", armor.Pool{MaxPreparedStatements: 100}, ""},
		{"max_prepared_statements = 0", armor.Pool{}, ""},
		{"max_prepared_statements = 10001", armor.Pool{MaxPreparedStatements: 10000}, "max_prepared_statements"},
		{"autodb_idle_timeout = 90.5", armor.Pool{PoolIdle: 90500 * time.Millisecond}, ""},
		{"autodb_idle_timeout = 0", armor.Pool{PoolIdle: armor.LongestTimeOut}, ""},
		{"autodb_idle_timeout = 1e9", armor.Pool{PoolIdle: armor.LongestTimeOut}, "autodb_idle_timeout"},
		{"autodb_idle_timeout = 0.01", armor.Pool{PoolIdle: armor.ShortestTimeOut}, "autodb_idle_timeout"},
		{"login_notify_message = Be brief; it's late", armor.Pool{LoginNotifyMessage: "Be brief; it's late"}, ""},
		{"login_notify_message = " + long, armor.Pool{}, "login_notify_message"},
	} {
		r := translate(t, files{ini: "[databases]\norders = host=pg1\n* = host=pg1\n[pgbouncer]\nserver_tls_sslmode=disable\n" + c.main + "\n",
			userlist: users}, options)
		said := func(p armor.Pool) armor.Pool {
			return armor.Pool{MaxPreparedStatements: p.MaxPreparedStatements, PoolIdle: p.PoolIdle, LoginNotifyMessage: p.LoginNotifyMessage}
		}
		if got := said(r.pool(t, "others")); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.60s: %+v, want %+v", c.main, got, c.want)
		}
		c.want.PoolIdle = 0 // of a database that is listed
		if got := said(r.pool(t, "orders")); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.60s: %+v, want %+v", c.main, got, c.want)
		}
		if lost := strings.Join(r.lost(), " "); !strings.HasSuffix(lost, c.lost) || (lost == "") != (c.lost == "") {
			t.Errorf("%.60s: lost %q", c.main, lost)
		}
	}
}

// TestStatementsThatPgBouncerDoesNotFollowAreFollowed, and it is said.
func TestStatementsThatPgBouncerDoesNotFollowAreFollowed(t *testing.T) {
	r := translate(t, files{ini: small + "max_prepared_statements = 0\n", userlist: users}, options)
	if !slices.ContainsFunc(r.Report.Mapped, func(m Mapped) bool {
		return m.Key == "max_prepared_statements" && strings.Contains(m.Note, "the default, 200, holds")
	}) {
		t.Errorf("it is not said: %+v", r.Report.Mapped)
	}
}
