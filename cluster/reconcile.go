package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

const (
	// promoteBehind is how many entries a new node may lack when it becomes a voter.
	promoteBehind = 250
	// reportAge is how old a node's last report may be for that.
	reportAge = 3 * time.Second
	// pruneEvery is how often expired tokens and join requests are dropped.
	pruneEvery = time.Hour
	// reconcileSpacing keeps a burst of reports from making a burst of rounds.
	reconcileSpacing = 20 * time.Millisecond
)

// housekeeper brings what the cluster is to what its state says it should be. It works
// on the leader only, one change at a time; whatever it does is a command of the
// cluster's own or a Raft configuration change, and can be repeated.
type housekeeper struct {
	node  *Node
	t     *tenure
	known map[string]knownTarget // by armor.ShareKey
	// pruned is when tokens were last pruned, on the boot clock.
	pruned time.Duration
}

// knownTarget is a share's target and the first revision at which it was seen.
type knownTarget struct {
	target   int
	revision uint64
}

// reconcile keeps house until ctx ends.
func (n *Node) reconcile(ctx context.Context, t *tenure) {
	h := &housekeeper{node: n, t: t, known: map[string]knownTarget{}}
	tick := time.NewTicker(n.cfg.Timings.Reconcile)
	defer tick.Stop()
	for {
		state, superseded := n.machine.Current()
		reported := t.ledger.watch()
		if state.Cluster.ID != "" {
			h.keep(ctx, state)
		}
		select {
		case <-superseded:
		case <-reported:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, reconcileSpacing) {
			return
		}
	}
}

func (h *housekeeper) keep(ctx context.Context, state *armor.State) {
	h.servers(ctx, state)
	h.addresses(ctx, state)
	h.shares(ctx, state)
	h.tombstones(ctx, state)
	h.prune(ctx, state)
}

// propose makes a change of the cluster's own. What fails is tried again next round.
func (h *housekeeper) propose(ctx context.Context, c armor.Command) {
	ctx, cancel := context.WithTimeout(ctx, h.node.cfg.Timings.RenewTimeout)
	defer cancel()
	_, err := h.node.Propose(ctx, h.node.own(c))
	if err != nil && !errors.Is(err, armor.ErrNotLeader) {
		h.node.cfg.Logger.Debug("housekeeping was refused", armor.KeyReason, c.Kind(), armor.KeyErr, err)
	}
}

// servers brings Raft's configuration to the members: admitted nodes come in without a
// vote and get theirs once they have caught up; removed ones leave.
func (h *housekeeper) servers(ctx context.Context, state *armor.State) {
	r := h.node.raft.Load()
	all := servers(r)
	for m := range state.Members.Values() {
		if change := h.admit(r, all, m, state); change != nil {
			h.change(change)
			return
		}
	}
	for _, s := range all {
		if state.Members.Has(string(s.ID)) {
			continue
		}
		if change := h.dismiss(r, s, state); change != nil {
			h.change(change)
			return
		}
	}
}

// dismiss takes a removed node out of Raft's configuration: its vote once it can serve
// nobody, and all of it once it holds no share. In between it still follows the log,
// because a node that does not learn of its removal cannot say that it has let go.
func (h *housekeeper) dismiss(r *raft.Raft, s raft.Server, state *armor.State) func() raft.Future {
	node := armor.NodeID(s.ID)
	holds := len(sharesOfNode(state, node)) > 0
	switch {
	case holds && (s.Suffrage != raft.Voter || !h.t.ledger.quiet(node)):
		return nil
	case node == h.node.cfg.Node:
		return func() raft.Future { return r.LeadershipTransfer() }
	case holds:
		return func() raft.Future { return r.DemoteVoter(s.ID, 0, enqueueTimeout) }
	}
	return func() raft.Future { return r.RemoveServer(s.ID, 0, enqueueTimeout) }
}

func (h *housekeeper) admit(r *raft.Raft, all []raft.Server, m armor.Member, state *armor.State) func() raft.Future {
	id, address := raft.ServerID(m.ID), raft.ServerAddress(m.ID)
	i := slices.IndexFunc(all, func(s raft.Server) bool { return s.ID == id })
	switch {
	case i < 0:
		return func() raft.Future { return r.AddNonvoter(id, address, 0, enqueueTimeout) }
	case m.Voter && all[i].Suffrage != raft.Voter && h.caughtUp(m.ID, state):
		return func() raft.Future { return r.AddVoter(id, address, 0, enqueueTimeout) }
	}
	return nil
}

func (h *housekeeper) caughtUp(node armor.NodeID, state *armor.State) bool {
	q, age, ok := h.t.ledger.lastReport(node)
	return ok && age < reportAge && q.Applied+promoteBehind >= state.Revision
}

func (h *housekeeper) change(do func() raft.Future) {
	if err := do().Error(); err != nil {
		h.node.cfg.Logger.Debug("raft configuration not changed", armor.KeyErr, err)
	}
}

func sharesOfNode(state *armor.State, node armor.NodeID) []armor.Share {
	var held []armor.Share
	for s := range state.Shares.Values() {
		if s.Node == node && s.Granted > 0 {
			held = append(held, s)
		}
	}
	return held
}

// addresses records where members say they are.
func (h *housekeeper) addresses(ctx context.Context, state *armor.State) {
	for m := range state.Members.Values() {
		q, age, ok := h.t.ledger.lastReport(m.ID)
		if !ok || age > reportAge || q.PeerAddress == "" {
			continue
		}
		if q.PeerAddress != m.PeerAddress || q.ClientAddress != m.ClientAddress || q.OpsAddress != m.OpsAddress {
			h.propose(ctx, armor.SetMemberAddresses{
				Node: m.ID, PeerAddress: q.PeerAddress, ClientAddress: q.ClientAddress, OpsAddress: q.OpsAddress,
			})
		}
	}
}

// shares brings every pool's shares one step closer to an even cut.
func (h *housekeeper) shares(ctx context.Context, state *armor.State) {
	h.observe(state)
	for _, pool := range ledgerPools(state) {
		slices.SortFunc(pool.shares, byNode)
		if next := planShares(pool, h.settled); !slices.Equal(pool.shares, next) {
			h.propose(ctx, armor.SetShares{Pool: pool.key, Shares: next})
		}
	}
}

// observe notes at which revision each share got its present target.
func (h *housekeeper) observe(state *armor.State) {
	for key, s := range state.Shares.All() {
		if k, ok := h.known[key]; !ok || k.target != s.Target {
			h.known[key] = knownTarget{s.Target, state.Revision}
		}
	}
}

// settled reports whether a share's holder is known to hold no more than the target:
// it says so, having seen the target, and no other life of it can hold more.
func (h *housekeeper) settled(s armor.Share) bool {
	k, ok := h.known[armor.ShareKey(s.Pool, s.Node)]
	q, _, reported := h.t.ledger.lastReport(s.Node)
	return ok && reported && q.HeldAt >= k.revision && q.Held[s.Pool] <= s.Target && h.t.ledger.onlyLife(s.Node)
}

// tombstones forgets removed members once nothing of theirs can still run: no lease,
// also none of an earlier leader's, no share, no place in Raft's configuration.
func (h *housekeeper) tombstones(ctx context.Context, state *armor.State) {
	all := servers(h.node.raft.Load())
	var over []armor.NodeID
	for t := range state.Tombstones.Values() {
		inRaft := slices.ContainsFunc(all, func(s raft.Server) bool { return s.ID == raft.ServerID(t.ID) })
		if !inRaft && h.t.ledger.quiet(t.ID) && len(sharesOfNode(state, t.ID)) == 0 && !state.Members.Has(string(t.ID)) {
			over = append(over, t.ID)
		}
	}
	if len(over) > 0 {
		h.propose(ctx, armor.BuryTombstones{Nodes: over})
	}
}

func (h *housekeeper) prune(ctx context.Context, state *armor.State) {
	now := h.node.cfg.Clock.Boot()
	if state.Tokens.Len()+state.Joins.Len() == 0 || h.pruned != 0 && now-h.pruned < pruneEvery {
		return
	}
	h.pruned = now
	h.propose(ctx, armor.PruneExpired{At: h.node.Now()})
}
