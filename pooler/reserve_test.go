package pooler_test

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

func withReserve(n int, after time.Duration) option {
	return withPool(func(p *armor.Pool) { p.Reserve, p.ReserveAfter = n, after })
}

// beginAll begins a transaction at each of n clients, which must not have to wait.
func (h *house) beginAll(n int) (clients []*pgtest.Client) {
	h.t.Helper()
	for range n {
		c := h.client()
		h.query(c, "BEGIN")
		clients = append(clients, c)
	}
	return clients
}

func TestReserveIsOpenedForThoseWhoHaveWaited(t *testing.T) {
	h := newHouse(t, withBudget(5), lookingOften, withReserve(2, 400*time.Millisecond))
	observer := h.observer()
	holders := h.beginAll(3)
	late := h.client()
	began := time.Now()
	h.query(late, "BEGIN")
	if waited := time.Since(began); waited < 400*time.Millisecond {
		t.Errorf("the reserve was opened after %s", waited)
	}
	if n := h.backends(observer); n != 4 {
		t.Errorf("%d backends, want 4", n)
	}
	h.query(holders[0], "COMMIT")
	h.query(holders[0], "SELECT 1") // what was opened is lent like any other
	h.query(late, "COMMIT")
	for _, c := range holders[1:] {
		h.query(c, "COMMIT")
	}
}

func TestReserveEndsAtTheBudget(t *testing.T) {
	h := newHouse(t, withBudget(4), lookingOften, withReserve(2, armor.ShortestTimeOut))
	observer := h.observer()
	holders := h.beginAll(4)
	c := h.client()
	h.must(c.Send(pgtest.Encode('Q', "SELECT 1")))
	h.query(observer, "SELECT pg_sleep(0.5)")
	if s := h.status(); s.Waiting != 1 || s.Open != 4 || h.backends(observer) != 4 {
		t.Errorf("%+v, %d backends", s, h.backends(observer))
	}
	h.query(holders[0], "COMMIT")
	_, err := c.Answer()
	h.must(err)
	for _, c := range holders[1:] {
		h.query(c, "COMMIT")
	}
}

// TestNobodyOpensTheReserveWhoDoesNotWait: also not for another role, nor to be warm.
func TestNobodyOpensTheReserveWhoDoesNotWait(t *testing.T) {
	h := newHouse(t, withBudget(3), lookingOften, withReserve(2, patience), withPool(func(p *armor.Pool) { p.MinSize = 3 }))
	observer := h.observer()
	a := h.client()
	for range 3 {
		h.query(a, "SELECT 1")
		b := h.dial()
		h.must(b.Login("user", pgtest.OtherRole, "database", "orders"))
		h.query(b, "SELECT 1")
		if n := h.backends(observer); n > 1 {
			t.Errorf("%d backends", n)
		}
	}
	h.query(observer, "SELECT pg_sleep(0.2)")
	if n := h.backends(observer); n != 1 {
		t.Errorf("%d backends when nobody waits", n)
	}
}

// TestReserveIsPartOfTheShare: it moves with the limit.
func TestReserveIsPartOfTheShare(t *testing.T) {
	h := newHouse(t, withBudget(6), lookingOften, withReserve(2, patience))
	h.SetLimits(map[string]int{h.pool.Key(): 3}) // of which one is kept back
	observer := h.observer()
	holders := h.beginAll(2)
	c := h.client()
	h.must(c.Send(pgtest.Encode('Q', "SELECT 1")))
	h.query(observer, "SELECT pg_sleep(0.2)")
	if s := h.status(); s.Waiting != 1 || s.Open != 2 {
		t.Errorf("%+v", s)
	}
	console := h.console("stats")
	r := h.show(console, "SHOW DATABASES")
	if size, reserve, most := r.cell(t, "pool_size", "orders"), r.cell(t, "reserve_pool_size", "orders"),
		r.cell(t, "max_connections", "orders"); size != "2" || reserve != "1" || most != "3" {
		t.Errorf("pool_size %s, reserve_pool_size %s, max_connections %s", size, reserve, most)
	}
	if got := h.show(console, "SHOW ARMOR_POOLS").cell(t, "reserve", "production", "orders"); got != "1" {
		t.Errorf("reserve %s", got)
	}
	h.SetLimits(map[string]int{h.pool.Key(): 6}) // four of six
	_, err := c.Answer()
	h.must(err)
	for _, c := range holders {
		h.query(c, "COMMIT")
	}
}

func TestPoolIsWarmBeforeTheFirstClient(t *testing.T) {
	h := newHouse(t, withBudget(5), lookingOften, withPool(func(p *armor.Pool) { p.MinSize, p.WarmUp = 2, true }))
	observer := h.observer()
	h.await("both roles are logged in for", func() bool { return h.backends(observer) == 4 })
	h.query(h.client(), "SELECT 1")
	if n := h.backends(observer); n != 4 {
		t.Errorf("%d backends", n)
	}
	h.pool.WarmUp, h.pool.MinSize = false, 0
	h.configure()
	if n := h.backends(observer); n != 4 {
		t.Errorf("%d backends", n)
	}
}
