package pooler_test

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestClientIsToldThatItWaits: once in each wait, and then it is served.
func TestClientIsToldThatItWaits(t *testing.T) {
	h := newHouse(t, withBudget(1), withPool(func(p *armor.Pool) { p.QueryWaitNotify = 50 * time.Millisecond }))
	holder, waiting := h.client(), h.client()
	for range 2 {
		h.query(holder, "BEGIN")
		h.must(waiting.Send(pgtest.Encode('Q', "SELECT 7")))
		messages, err := waiting.Until('N')
		h.must(err)
		f := messages[len(messages)-1].Fields()
		if len(messages) != 1 || f['V'] != "NOTICE" || f['C'] != "00000" || f['M'] != "no server connection is available, the client is queued" {
			t.Errorf("got %v", messages)
		}
		h.query(holder, "SELECT pg_sleep(0.2)") // four times as long: no second notice
		h.query(holder, "COMMIT")
		messages, err = waiting.Until('Z')
		h.must(err)
		for _, m := range messages {
			if m.Type == 'N' {
				t.Errorf("told again: %v", m)
			}
		}
	}
}

// TestShortWaitIsNotWorthANotice.
func TestShortWaitIsNotWorthANotice(t *testing.T) {
	for _, after := range []time.Duration{0, time.Hour} {
		h := newHouse(t, withBudget(1), withPool(func(p *armor.Pool) { p.QueryWaitNotify = after }))
		holder, waiting := h.client(), h.client()
		h.query(holder, "BEGIN")
		h.must(waiting.Send(pgtest.Encode('Q', "SELECT 7")))
		h.await("it waits", func() bool { return h.status().Waiting == 1 })
		h.query(holder, "SELECT pg_sleep(0.2)")
		h.query(holder, "COMMIT")
		messages, err := waiting.Until('Z')
		h.must(err)
		for _, m := range messages {
			if m.Type == 'N' {
				t.Errorf("told: %v", m)
			}
		}
	}
}
