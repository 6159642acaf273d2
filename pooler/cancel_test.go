package pooler_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

func keyOf(c *pgtest.Client) armor.CancelKey {
	return armor.CancelKey{PID: c.PID, Secret: c.Secret}
}

// startSleeping runs a query that lasts until it is cancelled, and returns when
// PostgreSQL runs it.
func (h *house) startSleeping(c *pgtest.Client) {
	h.t.Helper()
	observer := h.observer()
	h.must(c.Send(pgtest.Encode('Q', "SELECT pg_sleep(3600)")))
	h.await("PostgreSQL runs it", func() bool {
		return h.query(observer,
			"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename LIKE 'orders%'")[0] != "0"
	})
}

func TestCancelStopsTheQuery(t *testing.T) {
	for _, host := range []string{postgres.TCP(), postgres.Socket()} {
		bothModes(t, func(t *testing.T, mode armor.PoolMode) {
			h := newHouse(t, inMode(mode), withHost(host))
			c := h.client()
			h.startSleeping(c)
			wrong := keyOf(c)
			wrong.Secret++
			if h.Cancel(context.Background(), wrong, false) {
				t.Error("a wrong key was taken")
			}
			if !h.Cancel(context.Background(), keyOf(c), false) {
				t.Error("the key was not ours")
			}
			_, err := c.Answer()
			h.wantRefusal(err, "ERROR", "57014")
			if got := h.query(c, "SELECT 1"); got[0] != "1" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestCancelOverTLSIsTaken(t *testing.T) {
	h := newHouse(t)
	c := h.client()
	h.startSleeping(c)
	cancel := h.dial()
	h.must(cancel.Send(pgtest.CancelRequest(c.PID, c.Secret)))
	if _, err := cancel.Receive(); err != io.EOF {
		t.Errorf("a cancel request was answered: %v", err)
	}
	_, err := c.Answer()
	h.wantRefusal(err, "ERROR", "57014")
}

func TestCancelEndsTheWait(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a, b := h.client(), h.client()
	h.query(a, "BEGIN")
	for range 2 {
		h.must(b.Send(pgtest.Encode('Q', "SELECT 1")))
		h.await("it waits", func() bool { return h.status().Waiting == 1 })
		if !h.Cancel(context.Background(), keyOf(b), false) {
			t.Error("the key was not ours")
		}
		_, err := b.Answer()
		fields := h.wantRefusal(err, "ERROR", "57014")
		if fields['M'] != "canceling statement due to user request" {
			t.Errorf("message %q", fields['M'])
		}
	}
	h.query(a, "COMMIT")
	if got := h.query(b, "SELECT 1"); got[0] != "1" {
		t.Errorf("got %q", got)
	}
}

// TestCancelNeverHitsTheNextClient is GUARANTEES trap 29: the query ends by itself
// while cancel requests for it are under way, and the connection goes to another
// client.
func TestCancelNeverHitsTheNextClient(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a, b := h.client(), h.client()
	for i := range 200 {
		h.must(a.Send(pgtest.Encode('Q', "SELECT pg_sleep(0.0005)")))
		canceled := make(chan bool, 1)
		go func() { canceled <- h.Cancel(context.Background(), keyOf(a), false) }()
		h.must(b.Send(pgtest.Encode('Q', fmt.Sprintf("SELECT %d", i))))
		if _, err := a.Answer(); err != nil {
			h.wantRefusal(err, "ERROR", "57014")
		}
		if got, err := b.Answer(); err != nil || got[0] != fmt.Sprint(i) {
			t.Fatalf("the other client got %q, %v", got, err)
		}
		<-canceled
	}
}

func TestCancelOfAnIdleSessionDoesNothing(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client()
		for range 3 {
			if !h.Cancel(context.Background(), keyOf(c), false) {
				t.Error("the key was not ours")
			}
			if got := h.query(c, "SELECT 1"); got[0] != "1" {
				t.Errorf("got %q", got)
			}
		}
		h.must(c.Send(pgtest.Encode('X')))
		h.awaitClosed("the session ends", h.last().ended)
		if h.Cancel(context.Background(), keyOf(c), false) {
			t.Error("the key outlived its session")
		}
	})
}
