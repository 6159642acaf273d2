package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// tombstones forgets removed members once nothing of theirs can still run: no lease,
// also none of an earlier leader's, no share, no place in Raft's configuration.
func (h *housekeeper) tombstones(ctx context.Context, state *armor.State) {
	all := servers(h.node.raft.Load())
	var over []armor.NodeID
	for t := range state.Tombstones.Values() {
		inRaft := slices.ContainsFunc(all, func(s raft.Server) bool { return s.ID == raft.ServerID(t.ID) })
		if !inRaft && h.t.lives.quiet(t.ID) && !holdsShares(state, t.ID) && !state.Members.Has(string(t.ID)) {
			over = append(over, t.ID)
		}
	}
	if len(over) > 0 {
		h.propose(ctx, armor.BuryTombstones{Nodes: over})
	}
}

// pruneEvery is how often expired tokens, join requests and staged parts are dropped.
const pruneEvery = time.Hour

// pruner drops join tokens, join requests and staged parts that have expired.
type pruner struct {
	*housekeeper
	pace
}

func newPruner(h *housekeeper) *pruner { return &pruner{housekeeper: h} }

func (p *pruner) prune(ctx context.Context, state *armor.State) {
	now := p.node.cfg.Clock.Boot()
	if state.Tokens.Len()+state.Joins.Len()+state.Staged.Len() == 0 || !p.over(now, pruneEvery) {
		return
	}
	p.last = now
	p.propose(ctx, armor.PruneExpired{At: p.node.Now()})
}
