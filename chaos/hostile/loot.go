package hostile

import (
	"context"
	"time"

	"github.com/armordb/armordb/rpc/armorpb"
)

// maxLoot bounds the requests of others that are kept to be sent again.
const maxLoot = 64

// loot is what the thief has learned from those who spoke to it or answered it.
type loot struct {
	term, index uint64             // the latest that anybody named
	requests    []*armorpb.Request // what operators and nodes sent, with its signature
}

// spy keeps the thief's picture of the victim's term and revision up to date, so that its
// lies are near the truth.
func (t *Thief) spy(ctx context.Context, victim string) {
	for ctx.Err() == nil {
		if s, err := t.api.status(ctx, victim); err == nil {
			t.saw(s.Term, s.Revision)
		}
		pause(ctx, 300*time.Millisecond)
	}
}

func (t *Thief) saw(term, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A number that the thief itself has put into the world teaches nothing.
	if term > t.loot.term && term < t.loot.term+farTerms {
		t.loot.term = term
	}
	if index > t.loot.index && index < t.loot.index+farTerms {
		t.loot.index = index
	}
}

func (t *Thief) took(r *armorpb.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r != nil && len(t.loot.requests) < maxLoot {
		t.loot.requests = append(t.loot.requests, r)
	}
}

// request is one that somebody else has signed, or nil.
func (t *Thief) request() *armorpb.Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.loot.requests) == 0 {
		return nil
	}
	return t.loot.requests[t.random.IntN(len(t.loot.requests))]
}

// farTerms is what is far away, and beyond what a node that goes by its own count believes.
const farTerms = 1 << 21

// aTerm is one near the present one or far from it.
func (t *Thief) aTerm() uint64 {
	now := t.known().term
	return []uint64{now, now, now + 1, now + 2, now + 1000, now + farTerms, max(now, 2) - 1, 1 << 62}[t.chance(8)]
}

// anIndex is one near the present one or far from it.
func (t *Thief) anIndex() uint64 {
	now := t.known().index
	return []uint64{now, now, now + 1, now + 1000, max(now, 4) - 3, 1, 0, 1 << 60}[t.chance(8)]
}

func (t *Thief) known() loot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return loot{term: t.loot.term, index: t.loot.index}
}
