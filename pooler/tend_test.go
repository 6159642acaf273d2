package pooler_test

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// withPool changes the pool that a house has.
func withPool(change func(p *armor.Pool)) option {
	return func(h *house, _ *pooler.Config) { change(&h.pool) }
}

// lookingOften makes the pooler look at what is idle every few milliseconds.
func lookingOften(_ *house, c *pooler.Config) { c.Watch = 5 * time.Millisecond }

func TestAgedServerConnectionEndsWhenNobodyUsesIt(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), lookingOften, withPool(func(p *armor.Pool) { p.ServerLifetime = 100 * time.Millisecond }))
		observer := h.observer()
		c := h.client()
		h.query(c, "BEGIN")
		before := h.query(c, "SELECT pg_backend_pid() FROM pg_sleep(0.4)")[0]
		if again := h.query(c, "SELECT pg_backend_pid()")[0]; again != before {
			t.Errorf("backend %s became %s inside of a transaction", before, again)
		}
		h.query(c, "COMMIT")
		if mode == armor.SessionMode {
			if again := h.query(c, "SELECT pg_backend_pid()")[0]; again != before {
				t.Errorf("backend %s became %s inside of a session", before, again)
			}
			h.must(c.Send(pgtest.Encode('X')))
		}
		h.await("it has ended", func() bool { return h.backends(observer) == 0 })
		h.await("its place is free", func() bool { return len(h.Held()) == 0 })
	})
}

// TestAgedServerConnectionIsReplacedBeforeItEnds: the next client has one that was there before
// the old one came back. One that nobody has used is not replaced, and neither is any beyond the
// limit.
func TestAgedServerConnectionIsReplacedBeforeItEnds(t *testing.T) {
	h := newHouse(t, lookingOften, withBudget(2), withPool(func(p *armor.Pool) { p.ServerLifetime = 300 * time.Millisecond }))
	observer := h.observer()
	const backends = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'orders%' ORDER BY backend_start"
	c := h.client()
	h.query(c, "BEGIN")
	var both []string
	h.await("the next one is there", func() bool { both = h.query(observer, backends); return len(both) == 2 })
	h.query(c, "COMMIT")
	if pid := h.query(c, "SELECT pg_backend_pid()")[0]; pid != both[1] {
		t.Errorf("the client has backend %s, of %v", pid, both)
	}
	h.await("nobody uses any", func() bool { return h.backends(observer) == 0 })
}

func TestUnusedServerConnectionsEndDownToTheMinimum(t *testing.T) {
	for _, least := range []int{0, 2} {
		h := newHouse(t, lookingOften, withPool(func(p *armor.Pool) { p.ServerIdle, p.MinSize = 100*time.Millisecond, least }))
		observer := h.observer()
		var clients []*pgtest.Client
		for range 4 {
			c := h.client()
			h.query(c, "BEGIN")
			clients = append(clients, c)
		}
		if n := h.backends(observer); n != 4 {
			t.Fatalf("%d backends", n)
		}
		for _, c := range clients {
			h.query(c, "COMMIT")
		}
		h.await("the rest has ended", func() bool { return h.backends(observer) == least && h.Held()[h.pool.Key()] == least })
		pids := h.query(observer, "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'orders%' ORDER BY pid")
		h.query(observer, "SELECT pg_sleep(0.3)")
		again := h.query(observer, "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'orders%' ORDER BY pid")
		if len(again) != least || least > 0 && (again[0] != pids[0] || again[1] != pids[1]) {
			t.Errorf("backends %v became %v", pids, again)
		}
	}
}

// TestMinimumIsKeptWarm: for a role that has been here, within the limit, and again
// after PostgreSQL has ended a connection.
func TestMinimumIsKeptWarm(t *testing.T) {
	h := newHouse(t, lookingOften, withPool(func(p *armor.Pool) { p.MinSize, p.ServerLifetime = 3, time.Hour }))
	observer := h.observer()
	h.query(observer, "SELECT pg_sleep(0.1)")
	if n := h.backends(observer); n != 0 {
		t.Errorf("%d backends before any client", n)
	}
	c := h.client()
	h.await("the minimum is there", func() bool { return h.backends(observer) == 3 })
	h.SetLimits(map[string]int{h.pool.Key(): 2})
	h.await("the limit holds", func() bool { return h.backends(observer) == 2 && h.Held()[h.pool.Key()] == 2 })
	other := h.dial()
	h.must(other.Login("user", pgtest.OtherRole, "database", "orders")) // makes room for itself
	h.query(other, "SELECT 1")
	h.query(c, "SELECT 1")
	h.SetLimits(map[string]int{h.pool.Key(): 5})
	h.await("the limit is used up and not exceeded", func() bool { return h.backends(observer) == 5 })
	h.query(observer, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename LIKE 'orders%'")
	h.await("they are replaced", func() bool { return h.backends(observer) == 5 && h.Held()[h.pool.Key()] == 5 })
}

// TestIdleConnectionThatWarnsAndEndsIsNoticed: PostgreSQL's last words and its end may
// arrive as one.
func TestIdleConnectionThatWarnsAndEndsIsNoticed(t *testing.T) {
	pg, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, pg)
	h := newHouse(t, on(pg, pg.Socket()))
	h.query(h.client(), "SELECT 1")
	pg.Kill()
	h.await("its place is free", func() bool { return len(h.Held()) == 0 })
}
