package cluster

import (
	"context"
	"slices"

	"github.com/armordb/armordb/armor"
)

// planner brings every pool's shares one step closer to armor.SharePlan's cut. It is the
// leader's side of the shares: it knows which holders have let go of what.
type planner struct {
	*housekeeper
	known map[string]knownTarget // by armor.ShareKey
}

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
	for _, pool := range sharePlans(state) {
		pool.Settled = p.settled
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
