package pooler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/pgtest"
)

// asTemplate makes the house's database the template.
func asTemplate(h *house, _ *pooler.Config) {
	h.database.Name, h.database.DBName, h.pool.Database = armor.TemplateDatabase, "", armor.TemplateDatabase
}

// withDatabases makes databases on the server until the test ends.
func withDatabases(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := postgres.SQL("postgres", `CREATE DATABASE "`+name+`"`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := postgres.SQL("postgres", `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`); err != nil {
				t.Error(err)
			}
		})
	}
}

// open logs in to a database.
func (h *house) open(database string) *pgtest.Client {
	h.t.Helper()
	c := h.dial()
	h.must(c.Login("user", pgtest.Role, "database", database))
	return c
}

func TestTemplateLeadsToTheDatabaseThatIsAskedFor(t *testing.T) {
	withDatabases(t, "auto_a", "auto B")
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, asTemplate, inMode(mode))
		clients := map[string]*pgtest.Client{}
		for _, name := range []string{"auto_a", "auto B", pgtest.Database} {
			clients[name] = h.open(name)
		}
		for range 3 {
			for name, c := range clients {
				if got := h.query(c, "SELECT current_database()"); got[0] != name {
					t.Errorf("%s is %q", name, got[0])
				}
			}
		}
		a, err := h.console("stats"), error(nil)
		h.must(err)
		r := h.show(a, "SHOW POOLS")
		for _, name := range []string{"auto_a", "auto B", pgtest.Database} {
			if r.cell(t, "user", name, pgtest.Role) != pgtest.Role {
				t.Errorf("no row for %s", name)
			}
		}
		if got := h.show(a, "SHOW DATABASES").cell(t, "pool_size", "*"); got != "5" {
			t.Errorf("the template's pool has %s places", got)
		}
		var servers []string
		for _, row := range h.show(a, "SHOW SERVERS").rows {
			servers = append(servers, row[2])
		}
		if slices.Sort(servers); !slices.Equal(servers, []string{"auto B", "auto_a", pgtest.Database}) {
			t.Errorf("servers of %q", servers)
		}
	})
}

// TestTemplatesDatabasesShareOneBudget: the ledger of shares knows one pool.
func TestTemplatesDatabasesShareOneBudget(t *testing.T) {
	withDatabases(t, "auto_a", "auto_b", "auto_c")
	h := newHouse(t, asTemplate, withBudget(2))
	observer := h.observer()
	a, b, c := h.open("auto_a"), h.open("auto_b"), h.open("auto_c") // the third makes room for itself
	h.query(a, "BEGIN")
	h.query(b, "BEGIN")
	h.must(c.Send(pgtest.Encode('Q', "SELECT current_database()")))
	h.await("the third waits", func() bool { return h.status().Waiting == 1 })
	if n := h.backends(observer); n != 2 || h.Held()[h.pool.Key()] != 2 {
		t.Errorf("%d backends, %v held", n, h.Held())
	}
	h.query(a, "COMMIT")
	got, err := c.Answer()
	h.must(err)
	if got[0] != "auto_c" {
		t.Errorf("answered by %s", got[0])
	}
	h.query(b, "COMMIT")
}

// TestUnknownDatabaseIsToldAsPostgreSQLTells, and is asked for once in a while only.
func TestUnknownDatabaseIsToldAsPostgreSQLTells(t *testing.T) {
	h := newHouse(t, asTemplate, lookingOften, withPool(func(p *armor.Pool) { p.MinSize = 1 }))
	asked := func() int { return strings.Count(postgres.Log(), `database "no_such_thing" does not exist`) }
	before := asked()
	for range 5 {
		fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "no_such_thing"), "FATAL", "3D000")
		if want := `database "no_such_thing" does not exist`; fields['M'] != want {
			t.Errorf("got %q, want %q", fields['M'], want)
		}
	}
	if now := asked(); now != before+1 {
		t.Errorf("PostgreSQL was asked %d times", now-before)
	}
	if s := h.status(); s.NotReady != "" {
		t.Errorf("a client's mistake makes the pool not ready: %s", s.NotReady)
	}
	h.await("it is forgotten", func() bool { return len(h.Tally()[0].Roles) == 0 })
	if now := asked(); now != before+1 {
		t.Errorf("PostgreSQL was asked %d times, though nobody wants it", now-before)
	}
	withDatabases(t, "no_such_thing")
	if got := h.query(h.open("no_such_thing"), "SELECT current_database()"); got[0] != "no_such_thing" {
		t.Errorf("got %q", got)
	}
}

// TestDroppedDatabaseIsNotKeptWarm: only until PostgreSQL says that it is gone.
func TestDroppedDatabaseIsNotKeptWarm(t *testing.T) {
	withDatabases(t, "auto_a")
	h := newHouse(t, asTemplate, lookingOften, withPool(func(p *armor.Pool) { p.MinSize = 1 }))
	h.query(h.open("auto_a"), "SELECT 1")
	if _, err := postgres.SQL("postgres", `DROP DATABASE auto_a WITH (FORCE)`); err != nil {
		t.Fatal(err)
	}
	h.await("it is forgotten", func() bool {
		return !slices.ContainsFunc(h.Tally()[0].Roles,
			func(r console.RoleTally) bool { return r.Idle+r.Login+r.Tested > 0 || r.ClientsActive == 0 })
	})
	asked := strings.Count(postgres.Log(), `database "auto_a" does not exist`)
	h.query(h.observer(), "SELECT pg_sleep(1.5)") // longer than the first back-off
	if now := strings.Count(postgres.Log(), `database "auto_a" does not exist`); now != asked || asked == 0 {
		t.Errorf("PostgreSQL was asked %d times, then %d", asked, now)
	}
}

// TestUnusedDatabaseIsForgotten when the pool says so, also if it says so later.
func TestUnusedDatabaseIsForgotten(t *testing.T) {
	withDatabases(t, "auto_a", "auto_b")
	h := newHouse(t, asTemplate, lookingOften, withPool(func(p *armor.Pool) { p.MinSize = 1 }))
	observer := h.observer()
	a, b := h.open("auto_a"), h.open("auto_b")
	h.query(b, "BEGIN")
	h.pool.PoolIdle = time.Second
	h.configure()
	h.await("all of auto_a has ended", func() bool {
		return h.query(observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'auto_a'")[0] == "0"
	})
	if n := h.query(observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'auto_b'")[0]; n != "1" {
		t.Errorf("%s backends of the database in use", n)
	}
	h.query(b, "COMMIT")
	if got := h.query(a, "SELECT current_database()"); got[0] != "auto_a" { // whose client is still there
		t.Errorf("got %q", got)
	}
}

// TestNamesAreBounded: a client that makes up names cannot make the node grow.
func TestNamesAreBounded(t *testing.T) {
	h := newHouse(t, asTemplate, withBudget(1), withPool(func(p *armor.Pool) { p.PoolIdle = 2 * time.Hour }),
		func(_ *house, c *pooler.Config) { c.Watch = time.Hour })
	holder := h.open(pgtest.Database)
	h.query(holder, "BEGIN")
	h.pool.QueryWait = time.Millisecond
	h.configure()
	for i := range 999 {
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", fmt.Sprint("made_up_", i)), "FATAL", "53300")
	}
	fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "one_too_many"), "FATAL", "53300")
	if !strings.Contains(fields['M'], "too many databases") || !strings.Contains(fields['D'], "forgotten after 2h0m0s") {
		t.Errorf("got %q, %q", fields['M'], fields['D'])
	}
	if n := len(h.Tally()[0].Roles); n != 1000 {
		t.Errorf("%d parts", n)
	}
	h.query(holder, "COMMIT")
	h.query(h.open(pgtest.Database), "SELECT 1") // what is known is served
}

// TestNamesThatCameToNothingAreForgotten at once: they must not use up the bound.
func TestNamesThatCameToNothingAreForgotten(t *testing.T) {
	h := newHouse(t, asTemplate, withBudget(1), lookingOften)
	holder := h.open(pgtest.Database)
	h.query(holder, "BEGIN")
	h.pool.QueryWait = time.Millisecond
	h.configure()
	for i := range 20 {
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", fmt.Sprint("made_up_", i)), "FATAL", "53300")
	}
	h.await("only what is used is kept", func() bool { return len(h.Tally()[0].Roles) == 1 })
	h.query(holder, "COMMIT")
}

// TestDatabaseThatNobodyMayEnterIsTheClientsMistake, not the pool's.
func TestDatabaseThatNobodyMayEnterIsTheClientsMistake(t *testing.T) {
	withDatabases(t, "closed")
	if _, err := postgres.SQL("postgres", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC"); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, asTemplate)
	for name, want := range map[string]string{
		"closed":    `PostgreSQL says: permission denied for database "closed" (SQLSTATE 42501).`,
		"template0": `PostgreSQL says: database "template0" is not currently accepting connections (SQLSTATE 55000).`,
	} {
		fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", name), "FATAL", "08006")
		if fields['D'] != want {
			t.Errorf("%s: %q", name, fields['D'])
		}
	}
	if s := h.status(); s.NotReady != "" {
		t.Errorf("not ready: %s", s.NotReady)
	}
}
