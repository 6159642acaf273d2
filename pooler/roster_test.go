package pooler_test

import (
	"fmt"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestSessionsAreBounded: per pool and per identity, on login and not later; a place is
// free once its session has ended, however it began.
func TestSessionsAreBounded(t *testing.T) {
	for name, set := range map[string]option{
		`pool "orders"`: withPool(func(p *armor.Pool) { p.MaxClients = 2 }),
		`identity "checkout"`: func(h *house, _ *pooler.Config) {
			h.identity = armor.IdentityConfig{Name: "checkout", MaxConnections: 2}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode armor.PoolMode) {
				h := newHouse(t, inMode(mode), set)
				a, b := h.client(), h.client()
				first := h.all()[0]
				for range 3 {
					fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "53300")
					if want := fmt.Sprintf("too many connections for %s on this node", name); fields['M'] != want ||
						fields['D'] != "It may have 2 at once on each node." || fields['H'] == "" {
						t.Errorf("got %q, want %q", fields, want)
					}
				}
				g := h.last()
				g.mu.Lock()
				if len(g.refused) != 1 || g.refused[0].Reason != armor.ReasonLimit {
					t.Errorf("recorded %v", g.refused)
				}
				g.mu.Unlock()
				h.query(b, "SELECT 1")
				h.must(a.Send(pgtest.Encode('X')))
				h.awaitClosed("one has left", first.ended)
				h.client()
				h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "53300")
			})
		})
	}
}

func TestFailedLoginTakesNoPlace(t *testing.T) {
	h := newHouse(t, withPool(func(p *armor.Pool) { p.MaxClients = 1 }))
	h.secrets.set("wrong")
	for range 3 {
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	}
	for _, g := range h.all() {
		h.awaitClosed("it has left", g.ended)
	}
	h.secrets.set(pgtest.Password)
	h.await("one may come in", func() bool { return h.dial().Login("user", pgtest.Role, "database", "orders") == nil })
}
