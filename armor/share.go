package armor

import (
	"slices"
	"strings"
)

// Share is the part of a pool's budget that one node holds.
//
// Granted counts against the budget; the node may hold min(Granted, Target) server
// connections. A share shrinks in two steps, so that a live node is never short of
// what it was promised: Target falls, the node closes connections and reports so,
// and only then does Granted fall.
type Share struct {
	Pool    string // pool key
	Node    NodeID
	Granted int
	Target  int
}

// Key is the share's key in State.Shares.
func (s Share) Key() string { return ShareKey(s.Pool, s.Node) }

// Limit is how many server connections the holder may have open.
func (s Share) Limit() int { return min(s.Granted, s.Target) }

// ShareKey is a share's key in State.Shares.
func ShareKey(pool string, node NodeID) string { return pool + " " + string(node) }

// SharesOf returns a pool's shares in the order of their nodes.
func (s *State) SharesOf(pool string) []Share {
	var shares []Share
	for _, share := range s.Shares.Prefixed(pool + " ") {
		shares = append(shares, share)
	}
	return shares
}

// SharePlan is all that the next shares of a pool depend on: the machine and the leader
// both plan with it, so it reads no clock, draws no lots and computes in integers.
//
//	target falls ───▶ the holder closes, ───▶ granted falls ───▶ what is free then
//	at once           and that is known       to what is held    is granted to others
//
// Invariant: the targets of the next shares sum to the budget at most. So does what is
// granted, unless it was more before, because the budget was lowered: then it only falls.
type SharePlan struct {
	Pool    string   // pool key
	Budget  int      // of a deleted pool: 0
	Members []NodeID // who shares the budget, in any order; of a deleted pool: nobody
	Shares  []Share  // as they are, also of nodes that were removed
	// Demand is how many server connections each member could use. While nobody has
	// any, or all have the same, the cut is even.
	Demand map[NodeID]int
	// Held is how many server connections a share's holder may have at most, as far as is
	// known: what is granted, while nothing is. Nil: nothing is known of any holder.
	Held func(Share) int
}

// Next returns the shares one step closer to a cut of the budget over the members,
// sorted by node. What others hold stays theirs until they are settled; a share of
// nothing among the results may be forgotten when its node is no member.
func (p SharePlan) Next() []Share {
	part, free := p.cut(), p.Budget
	next := p.everybody()
	for i, s := range next {
		next[i] = p.lower(s, part[s.Node])
		free -= next[i].Granted
	}
	for i, s := range next {
		more := max(0, min(part[s.Node]-s.Granted, free))
		next[i].Granted, next[i].Target = s.Granted+more, part[s.Node]
		free -= more
	}
	return next
}

// everybody is the shares there are, and one of nothing for each member that has none.
func (p SharePlan) everybody() []Share {
	all := slices.Clone(p.Shares)
	for _, node := range p.Members {
		if !slices.ContainsFunc(p.Shares, func(s Share) bool { return s.Node == node }) {
			all = append(all, Share{Pool: p.Pool, Node: node})
		}
	}
	slices.SortFunc(all, func(a, b Share) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

// lower takes the one step down that is due: the target, or what is granted above it.
func (p SharePlan) lower(s Share, part int) Share {
	switch {
	case s.Target > part:
		s.Target = part
	case s.Granted > s.Target && p.Held != nil:
		s.Granted = max(s.Target, min(part, s.Granted), min(p.Held(s), s.Granted))
	}
	return s
}

// cut is each member's part of the budget. Everybody gets one server connection, then
// what it demands, in equal parts as long as it lasts; what nobody demands is cut evenly.
func (p SharePlan) cut() map[NodeID]int {
	part := make(map[NodeID]int, len(p.Members))
	members := slices.Sorted(slices.Values(p.Members))
	left := deal(p.Budget, members, part, func(NodeID) int { return 1 })
	left = deal(left, members, part, func(n NodeID) int { return p.Demand[n] })
	deal(left, members, part, func(NodeID) int { return p.Budget })
	return part
}

// deal adds to the parts of those that want more, evenly, until all have what they want
// or nothing is left. Where the rest does not go round, the first in order take it.
func deal(left int, nodes []NodeID, part map[NodeID]int, want func(NodeID) int) int {
	for {
		hungry := slices.DeleteFunc(slices.Clone(nodes), func(n NodeID) bool { return part[n] >= want(n) })
		if left == 0 || len(hungry) == 0 {
			return left
		}
		each, over := left/len(hungry), left%len(hungry)
		for i, n := range hungry {
			more := each
			if i < over {
				more++
			}
			more = min(more, want(n)-part[n])
			part[n] += more
			left -= more
		}
	}
}
