package pooler_test

import (
	"sync/atomic"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

func TestPanicEndsOneSessionAndNoOther(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		var armed atomic.Bool
		h := newHouse(t, inMode(mode), func(h *house, _ *pooler.Config) {
			h.mayPanic = true
			h.atLive = func() {
				if armed.CompareAndSwap(true, false) {
					panic("planted")
				}
			}
		})
		other := h.client()
		broken := h.client()
		armed.Store(true)
		h.must(broken.Send(pgtest.Encode('Q', "SELECT 1")))
		if _, err := broken.Answer(); err == nil {
			t.Error("the session in which something panicked goes on")
		}
		<-h.last().ended
		if h.last().panicked == nil {
			t.Error("whoever serves the session did not hear of the panic")
		}
		if got := h.query(other, "SELECT 2"); got[0] != "2" {
			t.Errorf("another session got %q", got)
		}
	})
}
