package pgbouncer

import (
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// asking is a configuration whose passwords are looked up in PostgreSQL.
const asking = "[databases]\norders = host=pg1\n[pgbouncer]\nserver_tls_sslmode=disable\nauth_type=scram-sha-256\nauth_user=asker\n"

const askers = users + `"asker" "secret"` + "\n"

// references checks what was made as a cluster would that has the environment.
func references(r *Result) error {
	s := *r.State
	s.Environments = s.Environments.With(armor.Environment{Name: options.Environment})
	return s.CheckReferences(nil)
}

func TestPasswordsAreLookedUpAsPgBouncerDoes(t *testing.T) {
	const own = "SELECT uname, phash FROM lookup($1)"
	for name, c := range map[string]struct{ main, statement string }{
		"a query":        {"auth_query=" + own + "\n", own},
		"PgBouncer's":    {"", defaults["auth_query"]},
		"its own dbname": {"auth_query=" + own + "\nauth_dbname=orders\n", own},
		"any dbname":     {"auth_dbname=postgres\n", defaults["auth_query"]}, // roles are the same everywhere
	} {
		r := translate(t, files{ini: asking + c.main, userlist: askers}, options)
		d := r.database(t, "orders")
		if want := (armor.AuthQuery{Role: "asker", Statement: c.statement}); d.Query != want || d.Verifiers != "" {
			t.Errorf("%s: %+v, verifiers %q, want %+v", name, d.Query, d.Verifiers, want)
		}
		want := []armor.RoleAuth{{Role: "asker", Secret: "pgbouncer-asker"}, {Role: "checkout", Secret: "pgbouncer-checkout"}}
		if !slices.Equal(d.Roles, want) || len(r.Secrets) != 2 || len(r.Verifiers) != 0 {
			t.Errorf("%s: roles %+v, secrets %v, verifiers %v", name, d.Roles, r.Secrets, r.Verifiers)
		}
		if g := r.grants(t, "checkout"); len(g) != 1 || g[0].SecondFactor != armor.SCRAM || !slices.Equal(g[0].Roles, []string{"checkout"}) {
			t.Errorf("%s: grants %+v", name, g)
		}
		if _, made := r.State.Identities.Get("production/asker"); made {
			t.Errorf("%s: clients may come as the role that reads passwords", name)
		}
		if err := references(r); err != nil || len(r.lost()) != 0 {
			t.Errorf("%s: %v, lost %v", name, err, r.lost())
		}
	}
}

// TestDatabaseAsksInItsOwnWay, also when another database has its asker for a client.
func TestDatabaseAsksInItsOwnWay(t *testing.T) {
	ini := strings.Replace(asking, "orders = host=pg1\n",
		"orders = host=pg1\nother = host=pg1 auth_user=checkout auth_query='SELECT a, b FROM f($1)'\nforced = host=pg1 user=app\n", 1)
	r := translate(t, files{ini: ini, userlist: askers}, options)
	if q := r.database(t, "other").Query; q != (armor.AuthQuery{Role: "checkout", Statement: "SELECT a, b FROM f($1)"}) {
		t.Errorf("query %+v", q)
	}
	if d := r.database(t, "forced"); d.Query != (armor.AuthQuery{}) || len(d.Roles) != 1 {
		t.Errorf("a forced user is looked up: %+v", d)
	}
	var granted []string
	for _, name := range []string{"asker", "checkout"} {
		for _, g := range r.grants(t, name) {
			granted = append(granted, name+" "+g.Database+" "+g.Roles[0])
		}
	}
	want := []string{"asker forced app", "asker other asker", "checkout forced app", "checkout orders checkout"}
	if slices.Sort(granted); !slices.Equal(granted, want) {
		t.Errorf("grants %q, want %q", granted, want)
	}
	if err := references(r); err != nil {
		t.Error(err)
	}
}

// TestWhatOnlyTheQueryKnowsIsReported: who there is, passwords that nodes need, and a database
// that the query may not work in.
func TestWhatOnlyTheQueryKnowsIsReported(t *testing.T) {
	for name, c := range map[string]struct{ ini, userlist, want string }{
		"nobody is named":      {asking, `"asker" "secret"` + "\n", "p.ini:2 databases.orders"},
		"a user of [users]":    {asking + "[users]\nbatch = pool_mode=session\n", `"asker" "secret"` + "\n", "p.ini:8 userlist.batch"},
		"a user without words": {asking, askers + `"batch" ""` + "\n", "u.txt:3 userlist.batch"},
		"another database":     {asking + "auth_query = SELECT * FROM f($1)\nauth_dbname = auth\n", askers, "p.ini:8 auth_dbname"},
	} {
		r := translate(t, files{ini: c.ini, userlist: c.userlist}, options)
		if got := r.lost(); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: lost %q, want %s", name, got, c.want)
		}
		for _, role := range r.database(t, "orders").Roles {
			if role.Secret == "" {
				t.Errorf("%s: nodes would log in as %s without a password", name, role.Role)
			}
		}
	}
}
