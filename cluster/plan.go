package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// planner brings every pool's shares one step closer to armor.SharePlan's cut. It is the
// leader's side of the shares: it knows which holders have let go of what.
type planner struct {
	*housekeeper
	known map[string]knownTarget // by armor.ShareKey
}

// closingTime is how long after its lease a node may take to close its server connections.
// Where PostgreSQL is asked it shows; where an operator says that they are gone, the node
// may be alive, and cut off.
const closingTime = 5 * time.Second

// knownTarget is a share's target and the first revision at which it was seen.
type knownTarget struct {
	target   int
	revision uint64
}

func newPlanner(h *housekeeper) *planner {
	return &planner{housekeeper: h, known: map[string]knownTarget{}}
}

func (p *planner) plan(ctx context.Context, state *armor.State) {
	p.observe(state)
	p.t.searches.seek(ctx, state)
	for _, pool := range sharePlans(state) {
		pool.Held = func(s armor.Share) int { return p.held(state, s) }
		if next := pool.Next(); !slices.Equal(pool.Shares, next) {
			p.propose(ctx, armor.SetShares{Pool: pool.Pool, Shares: next})
		}
	}
}

// observe notes at which revision each share got its present target.
func (p *planner) observe(state *armor.State) {
	for key, s := range state.Shares.All() {
		if k, ok := p.known[key]; !ok || k.target != s.Target {
			p.known[key] = knownTarget{s.Target, state.Revision}
		}
	}
}

// held is what a share's holder may have at most: the target once that is its own word, of
// a removed node whose lease is over what PostgreSQL was seen to have or the operator says,
// and otherwise all that was granted.
func (p *planner) held(state *armor.State, s armor.Share) int {
	if p.settled(s) {
		return s.Target
	}
	tombstone, removed := state.Tombstones.Get(string(s.Node))
	switch {
	case !removed || state.Members.Has(string(s.Node)) || !p.t.lives.quiet(s.Node) && !p.node.cfg.mistakes.ignoreLeases:
		return s.Granted
	case tombstone.SharesSettled && p.t.lives.quietFor(s.Node, closingTime):
		return 0
	case tombstone.SharesSettled:
		return s.Granted
	}
	if left, known := p.t.searches.left(s.Pool, s.Node); known {
		return left
	}
	return s.Granted
}

// settled reports whether a share's holder is known to hold no more than the target:
// it says so, having seen the target, and no other life of it can hold more. A life that
// ended without any has let go for good.
func (p *planner) settled(s armor.Share) bool {
	if p.t.lives.letGo(s.Node) {
		return true
	}
	k, ok := p.known[armor.ShareKey(s.Pool, s.Node)]
	q, _, reported := p.t.lives.lastReport(s.Node)
	return ok && reported && q.HeldAt >= k.revision && q.Held[s.Pool] <= s.Target && p.t.lives.onlyLife(s.Node)
}

// sharePlans are all pools that exist or of which somebody still holds a share, as they
// are. No node's demand is known yet, so that the cut is even.
func sharePlans(state *armor.State) []armor.SharePlan {
	var members []armor.NodeID
	for m := range state.Members.Values() {
		members = append(members, m.ID)
	}
	var all []armor.SharePlan
	for p := range state.Pools.Values() {
		all = append(all, armor.SharePlan{Pool: p.Key(), Budget: p.Budget, Members: members, Shares: state.SharesOf(p.Key())})
	}
	deleted := map[string]bool{}
	for s := range state.Shares.Values() {
		if !state.Pools.Has(s.Pool) && !deleted[s.Pool] {
			deleted[s.Pool] = true
			all = append(all, armor.SharePlan{Pool: s.Pool, Shares: state.SharesOf(s.Pool)})
		}
	}
	return all
}

// holdsShares reports whether a node is still granted part of any pool.
func holdsShares(state *armor.State, node armor.NodeID) bool {
	for s := range state.Shares.Values() {
		if s.Node == node && s.Granted > 0 {
			return true
		}
	}
	return false
}
