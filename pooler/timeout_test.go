package pooler_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// timeOut is how long a session of these tests may do something; longer is what takes
// much longer, in seconds.
const (
	timeOut = 150 * time.Millisecond
	longer  = "60"
)

// TestTimeOutsEndTheSession: each ends what it is about, the client reads why, the query
// is cancelled and its transaction rolled back, and the server connection is not lost.
func TestTimeOutsEndTheSession(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(p *armor.Pool)
		begin   func(h *house, c *pgtest.Client)
		code    string
		reason  armor.Reason
		message string
	}{
		{"client idle after login", func(p *armor.Pool) { p.ClientIdle = timeOut }, func(*house, *pgtest.Client) {},
			"57P05", armor.ReasonClientIdle, "terminating connection due to idle-session timeout"},
		{"client idle after a query", func(p *armor.Pool) { p.ClientIdle = timeOut },
			func(h *house, c *pgtest.Client) { h.query(c, "SELECT pg_sleep(0.5)") },
			"57P05", armor.ReasonClientIdle, "terminating connection due to idle-session timeout"},
		{"idle in transaction", func(p *armor.Pool) { p.IdleInTransaction = timeOut }, func(h *house, c *pgtest.Client) {
			h.query(c, "BEGIN")
			h.query(c, "SELECT pg_sleep(0.5)")
		}, "25P03", armor.ReasonIdleInTransaction, "terminating connection due to idle-in-transaction timeout"},
		{"idle in a failed transaction", func(p *armor.Pool) { p.IdleInTransaction = timeOut }, func(h *house, c *pgtest.Client) {
			h.query(c, "BEGIN")
			_, err := c.Query("SELECT 1/0")
			h.wantRefusal(err, "ERROR", "22012")
		}, "25P03", armor.ReasonIdleInTransaction, "terminating connection due to idle-in-transaction timeout"},
		{"idle between Parse and Sync", func(p *armor.Pool) { p.IdleInTransaction = timeOut }, func(h *house, c *pgtest.Client) {
			h.must(c.Send(pgtest.Encode('P', "", "SELECT 1", int16(0)), pgtest.Encode('H')))
			_, err := c.Until('1')
			h.must(err)
		}, "25P03", armor.ReasonIdleInTransaction, "terminating connection due to idle-in-transaction timeout"},
		{"query", func(p *armor.Pool) { p.QueryTimeout = timeOut },
			func(h *house, c *pgtest.Client) { h.must(c.Send(pgtest.Encode('Q', "SELECT pg_sleep("+longer+")"))) },
			"57014", armor.ReasonQueryTimeout, "terminating connection due to query timeout"},
		{"transaction that never rests", func(p *armor.Pool) { p.TransactionTimeout = timeOut }, func(h *house, c *pgtest.Client) {
			h.query(c, "BEGIN")
			h.must(c.Send(pgtest.Encode('Q', "SELECT pg_sleep("+longer+")")))
		}, "25P04", armor.ReasonTransactionTimeout, "terminating connection due to transaction timeout"},
		{"transaction that rests", func(p *armor.Pool) { p.TransactionTimeout = timeOut },
			func(h *house, c *pgtest.Client) { h.query(c, "BEGIN") },
			"25P04", armor.ReasonTransactionTimeout, "terminating connection due to transaction timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode armor.PoolMode) {
				h := newHouse(t, inMode(mode), withBudget(1), withPool(c.set))
				client := h.client()
				g := h.last()
				c.begin(h, client)
				fields := h.wantRefusal(lastWord(client), "FATAL", c.code)
				if fields['M'] != c.message || fields['D'] != "The pool allows 150ms." || !strings.Contains(fields['H'], "r1") {
					t.Errorf("got %q", fields)
				}
				h.awaitClosed("ServeConn returns", g.ended)
				g.mu.Lock()
				if len(g.refused) != 1 || g.refused[0].Reason != c.reason {
					t.Errorf("recorded %v", g.refused)
				}
				g.mu.Unlock()
				observer := h.observer()
				h.await("nothing runs on", func() bool {
					return h.query(observer, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'orders%' AND state <> 'idle'")[0] == "0"
				})
				if got := h.query(h.client(), "SELECT 1"); got[0] != "1" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// TestTimeOutsBeginAnew: many short ones take longer than one may, and nothing ends.
func TestTimeOutsBeginAnew(t *testing.T) {
	const all = 4 * timeOut
	set := withPool(func(p *armor.Pool) {
		p.ClientIdle, p.IdleInTransaction, p.QueryTimeout, p.TransactionTimeout = timeOut, timeOut, timeOut, 100*timeOut
	})
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), set)
		c := h.client()
		for began := time.Now(); time.Since(began) < all; {
			h.query(c, "SELECT pg_sleep(0.01)")
		}
		h.query(c, "BEGIN")
		for began := time.Now(); time.Since(began) < all; {
			h.query(c, "SELECT pg_sleep(0.01)")
		}
		for began := time.Now(); time.Since(began) < all; { // without a Sync
			h.must(c.Send(pgtest.Encode('P', "", "SELECT pg_sleep(0.01)", int16(0)),
				pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('H')))
			_, err := c.Until('C')
			h.must(err)
		}
	})
}

// TestPipelinedTransactionsEachHaveTheirTime: PostgreSQL owes an answer all the time.
func TestPipelinedTransactionsEachHaveTheirTime(t *testing.T) {
	const each, whole = 4 * timeOut, 6 * timeOut // a busy machine may be late with one of them
	h := newHouse(t, withPool(func(p *armor.Pool) { p.QueryTimeout, p.TransactionTimeout = each, each }))
	c := h.client()
	var all [][]byte
	const n = int(whole / (10 * time.Millisecond))
	for range n {
		all = append(all, pgtest.Encode('Q', "SELECT pg_sleep(0.01)"))
	}
	h.must(c.Send(all...))
	for range n {
		_, err := c.Answer()
		h.must(err)
	}
}

// TestWaitingClientsAreTheQueuesMatter: time in the queue counts for no time-out.
func TestWaitingClientsAreTheQueuesMatter(t *testing.T) {
	h := newHouse(t, withBudget(1), withPool(func(p *armor.Pool) {
		p.ClientIdle, p.IdleInTransaction, p.QueryTimeout = 100*timeOut, timeOut, timeOut
	}))
	holder := h.client()
	waiting := h.client()
	h.query(holder, "BEGIN")
	h.must(waiting.Send(pgtest.Encode('Q', "SELECT 1")))
	for began := time.Now(); time.Since(began) < 3*timeOut; {
		h.query(holder, "SELECT pg_sleep(0.01)")
	}
	h.query(holder, "COMMIT")
	_, err := waiting.Answer()
	h.must(err)
}

// TestTimeOutsFollowTheConfiguration: sessions that are there get them, and are rid of
// them.
func TestTimeOutsFollowTheConfiguration(t *testing.T) {
	h := newHouse(t)
	c := h.client()
	h.query(c, "SELECT 1")
	h.pool.ClientIdle = 100 * time.Hour
	h.configure()
	h.query(c, "SELECT 1")
	h.pool.ClientIdle = 0
	h.configure()
	h.query(c, "SELECT 1")
	h.pool.ClientIdle = timeOut
	h.configure()
	h.wantRefusal(lastWord(c), "FATAL", "57P05")
}

// TestClientThatDoesNotReadMeetsTheQueryTimeOut: its query has not ended.
func TestClientThatDoesNotReadMeetsTheQueryTimeOut(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(1), withPool(func(p *armor.Pool) { p.QueryTimeout, p.ClientIdle = 4*timeOut, timeOut }))
		c := h.client()
		h.must(c.Send(pgtest.Encode('Q', "SELECT repeat('x', 10000), generate_series(1, 1000000000)")))
		g := h.last()
		h.awaitClosed("ServeConn returns", g.ended)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.refused) != 1 || g.refused[0].Reason != armor.ReasonQueryTimeout {
			t.Errorf("recorded %v", g.refused)
		}
		if !errors.Is(g.refused[0], armor.ErrDenied) {
			t.Error("a time-out is a denial")
		}
	})
}
