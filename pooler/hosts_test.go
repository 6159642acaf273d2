package pooler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// withHosts puts a house in front of several servers.
func withHosts(attrs armor.SessionAttrs, order armor.LoadBalance, servers ...*pgtest.Postgres) option {
	return func(h *house, _ *pooler.Config) {
		h.server, h.database.Hosts = servers[0], nil
		for _, pg := range servers {
			h.database.Hosts = append(h.database.Hosts, pg.Socket())
		}
		h.secrets.hosts = h.database.Hosts
		h.database.TargetSessionAttrs, h.database.LoadBalanceHosts = attrs, order
	}
}

// pair starts a primary and a standby of it.
func pair(t *testing.T) (primary, standby *pgtest.Postgres) {
	t.Helper()
	primary, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, primary)
	if standby, err = primary.Replica(); err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, standby)
	return primary, standby
}

func stopAtEnd(t *testing.T, pg *pgtest.Postgres) {
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
}

const isStandby = "SELECT pg_is_in_recovery()"

func TestTargetSessionAttrsChooseTheHost(t *testing.T) {
	primary, standby := pair(t)
	for _, c := range []struct {
		attrs                      armor.SessionAttrs
		standbyFirst, primaryFirst string // where the session is: "t" on the standby
	}{
		{armor.AnySession, "t", "f"},
		{armor.ReadWrite, "f", "f"},
		{armor.Primary, "f", "f"},
		{armor.ReadOnly, "t", "t"},
		{armor.Standby, "t", "t"},
		{armor.PreferStandby, "t", "t"},
	} {
		t.Run("attrs "+string(c.attrs), func(t *testing.T) {
			for want, servers := range map[string][]*pgtest.Postgres{
				"standby first: " + c.standbyFirst: {standby, primary},
				"primary first: " + c.primaryFirst: {primary, standby},
			} {
				h := newHouse(t, withHosts(c.attrs, armor.InOrder, servers...))
				for range 2 { // the second login may begin with what the first has found
					a := h.client()
					h.query(a, "BEGIN")
					if got := h.query(a, isStandby)[0]; got != want[len(want)-1:] {
						t.Errorf("%s, got %s", want, got)
					}
				}
			}
		})
	}
	t.Run("a default of read only", func(t *testing.T) {
		_, err := primary.SQL("postgres", "ALTER ROLE "+pgtest.Role+" SET default_transaction_read_only = on")
		h := newHouse(t, withHosts(armor.ReadOnly, armor.InOrder, primary))
		h.must(err)
		if got := h.query(h.client(), isStandby)[0]; got != "f" {
			t.Errorf("got %s", got)
		}
		_, err = primary.SQL("postgres", "ALTER ROLE "+pgtest.Role+" RESET default_transaction_read_only")
		h.must(err)
	})
	t.Run("prefer standby without one", func(t *testing.T) {
		h := newHouse(t, withHosts(armor.PreferStandby, armor.InOrder, primary))
		if got := h.query(h.client(), isStandby)[0]; got != "f" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("in any order", func(t *testing.T) {
		const n = 24 // all on one server: once in eight million runs
		h := newHouse(t, withBudget(n), withHosts(armor.AnySession, armor.RandomHost, primary, standby))
		where := map[string]int{}
		for range n {
			c := h.client()
			h.query(c, "BEGIN")
			where[h.query(c, isStandby)[0]]++
		}
		if len(where) != 2 {
			t.Errorf("sessions on standby or not: %v", where)
		}
	})
	t.Run("none", func(t *testing.T) {
		h := newHouse(t, withHosts(armor.Standby, armor.InOrder, primary), withQueryWait(500*time.Millisecond))
		fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "53300")
		if want := "No host of the database is standby now."; fields['D'] != want {
			t.Errorf("detail %q, want %q", fields['D'], want)
		}
	})
	t.Run("a refusal is no reason to wait", func(t *testing.T) {
		h := newHouse(t, withHosts(armor.ReadWrite, armor.InOrder, standby, primary))
		h.secrets.set("wrong")
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	})
}

// TestFailoverHoldsClients: while no host takes writes, clients wait, the hosts are asked
// about once a second, and the promoted standby serves.
func TestFailoverHoldsClients(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		primary, standby := pair(t)
		h := newHouse(t, inMode(mode), withHosts(armor.ReadWrite, armor.InOrder, primary, standby))
		c := h.client()
		if got := h.query(c, isStandby)[0]; got != "f" {
			t.Fatalf("got %s", got)
		}
		if mode == armor.SessionMode {
			h.must(c.Send(pgtest.Encode('X')))
		}
		began, before := time.Now(), strings.Count(standby.Log(), "connection authorized: user="+pgtest.Role)
		primary.Kill()
		h.await("the pool has noticed", func() bool { return len(h.Held()) == 0 })
		waits := make(chan error, 3)
		for range cap(waits) {
			client := h.dial()
			go func() {
				err := client.Login("user", pgtest.Role, "database", "orders")
				if err == nil {
					_, err = client.Query("CREATE TEMP TABLE t (n int)")
				}
				waits <- err
			}()
		}
		asked := func() int {
			return strings.Count(standby.Log(), "connection authorized: user="+pgtest.Role) - before
		}
		h.await("the standby is asked and refused twice", func() bool { return asked() >= 2 })
		select {
		case err := <-waits:
			t.Fatalf("a client did not wait: %v", err)
		default:
		}
		if most := cap(waits) + int(time.Since(began)/(700*time.Millisecond)); asked() > most {
			t.Errorf("the standby was asked %d times, want %d at most", asked(), most)
		}
		h.must(standby.Promote())
		for range cap(waits) {
			h.must(<-waits)
		}
	})
}

// TestPromotedStandbyIsLeft: a server connection that was chosen for leading to a standby
// ends when it comes back from a server that is none any more.
func TestPromotedStandbyIsLeft(t *testing.T) {
	_, standby := pair(t)
	h := newHouse(t, withHosts(armor.Standby, armor.InOrder, standby), withQueryWait(500*time.Millisecond))
	c := h.client()
	h.query(c, "SELECT 1")
	h.must(standby.Promote())
	h.query(c, "SELECT 1")
	observer := h.observer()
	h.await("it has ended", func() bool { return h.backends(observer) == 0 })
	_, err := c.Query("SELECT 1")
	h.wantRefusal(err, "FATAL", "53300")
}
