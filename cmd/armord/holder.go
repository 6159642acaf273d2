package main

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
)

// holder is the pooler as the cluster sees it (cluster.Holder). The pooler comes later
// than the cluster, which has to say what this node's number is; until then nothing is
// held but what a former life has left.
type holder struct {
	register *backend.Register // immutable once the cluster runs; what a former life has left

	mu      sync.Mutex // guards below; the pooler is not called while held
	pooler  *pooler.Pooler
	limits  map[string]int
	version uint64 // of limits
}

// Held is what the pooler has open.
func (h *holder) Held() map[string]int {
	h.mu.Lock()
	p := h.pooler
	h.mu.Unlock()
	if p != nil {
		return p.Held()
	}
	held := map[string]int{}
	for _, e := range h.register.Former() {
		held[e.Pool]++
	}
	return held
}

// Backends are the server connections that have logged in.
func (h *holder) Backends() []armor.HostBackends { return h.register.Backends() }

// Look asks PostgreSQL which backends a pool's roles have.
func (h *holder) Look(ctx context.Context, pool string) ([]armor.HostBackends, error) {
	h.mu.Lock()
	p := h.pooler
	h.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%w: this node serves no clients yet", armor.ErrUnavailable)
	}
	return p.Look(ctx, pool)
}

// SetShares passes the limits on.
func (h *holder) SetShares(_ uint64, limits map[string]int) {
	h.mu.Lock()
	h.limits = maps.Clone(limits)
	h.version++
	h.mu.Unlock()
	h.pass()
}

// attach gives the pooler the limits that it missed, and all later ones.
func (h *holder) attach(p *pooler.Pooler) {
	h.mu.Lock()
	h.pooler = p
	h.mu.Unlock()
	h.pass()
}

// pass gives the pooler the limits in force, and does so again when they have changed
// meanwhile: of two calls at the same time, the one that ends last must not leave the older
// limits in force.
func (h *holder) pass() {
	for {
		h.mu.Lock()
		p, limits, version := h.pooler, h.limits, h.version
		h.mu.Unlock()
		if p == nil || limits == nil {
			return
		}
		p.SetLimits(limits)
		h.mu.Lock()
		done := version == h.version
		h.mu.Unlock()
		if done {
			return
		}
	}
}
