package cluster

import (
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// ledgerPool is a pool as the plan sees it. A deleted pool has budget 0 and no members.
type ledgerPool struct {
	key     string
	budget  int
	members []armor.NodeID
	shares  []armor.Share
}

// planShares returns the shares of a pool as they should be next, sorted by node. It
// moves towards an even cut over the members and never towards more than the budget:
// a target falls first; only when the holder is settled, which means that it is known
// to hold no more than its target, does the grant fall; and only what is free then is
// granted to others. What removed members still hold stays theirs until they are
// known to hold nothing.
func planShares(p ledgerPool, settled func(armor.Share) bool) []armor.Share {
	members := slices.Sorted(slices.Values(p.members))
	free := p.budget
	var next []armor.Share
	for _, s := range p.shares {
		if !slices.Contains(members, s.Node) {
			s = shrink(s, 0, settled)
			free -= s.Granted
			next = append(next, s)
		}
	}
	mine, desired := make([]armor.Share, len(members)), evenCut(p.budget, members)
	for i, node := range members {
		mine[i] = shrink(p.shareOf(node), desired[i], settled)
		free -= mine[i].Granted
	}
	for i := range mine {
		more := max(min(desired[i]-mine[i].Granted, free), 0)
		mine[i].Granted += more
		mine[i].Target = desired[i]
		free -= more
	}
	next = append(next, mine...)
	slices.SortFunc(next, byNode)
	return next
}

func byNode(a, b armor.Share) int { return strings.Compare(string(a.Node), string(b.Node)) }

// shrink takes the one step that is due: the target, or what is granted above it.
func shrink(s armor.Share, desired int, settled func(armor.Share) bool) armor.Share {
	switch {
	case s.Target > desired:
		s.Target = desired
	case s.Granted > s.Target && settled(s):
		s.Granted = max(s.Target, min(desired, s.Granted))
	}
	return s
}

func (p ledgerPool) shareOf(node armor.NodeID) armor.Share {
	for _, s := range p.shares {
		if s.Node == node {
			return s
		}
	}
	return armor.Share{Pool: p.key, Node: node}
}

// evenCut cuts a budget as armor.EvenShares does; with fewer connections than nodes
// the first nodes get one each.
func evenCut(budget int, members []armor.NodeID) []int {
	cut := make([]int, len(members))
	for i := range cut {
		cut[i] = budget / len(members)
		if i < budget%len(members) {
			cut[i]++
		}
	}
	return cut
}

// ledgerPools are all pools that exist or of which somebody still holds a share.
func ledgerPools(state *armor.State) []ledgerPool {
	var members []armor.NodeID
	for m := range state.Members.Values() {
		members = append(members, m.ID)
	}
	var all []ledgerPool
	for p := range state.Pools.Values() {
		all = append(all, ledgerPool{key: p.Key(), budget: p.Budget, members: members, shares: state.SharesOf(p.Key())})
	}
	deleted := map[string]bool{}
	for s := range state.Shares.Values() {
		if !state.Pools.Has(s.Pool) && !deleted[s.Pool] {
			deleted[s.Pool] = true
			all = append(all, ledgerPool{key: s.Pool, shares: state.SharesOf(s.Pool)})
		}
	}
	return all
}
