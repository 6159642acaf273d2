package cluster

import (
	"context"
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
)

// servers brings Raft's configuration to the members: admitted nodes come in without a
// vote and get theirs once they have caught up; removed ones leave.
func (h *housekeeper) servers(_ context.Context, state *armor.State) {
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

// caughtUp says whether a node can be counted on: it has held a lease of this leader's for a
// while, which it takes only from whom Raft names, serves clients, and has nearly all entries. A vote for one
// that Raft does not reach yet, or that ends since a port of its is taken, could cost the leader its
// quorum.
func (h *housekeeper) caughtUp(node armor.NodeID, state *armor.State) bool {
	q, age, ok := h.t.lives.lastReport(node)
	steady := h.t.lives.steadyFor(node) >= h.node.cfg.Timings.Steady || h.node.cfg.mistakes.voteUnproven
	return ok && age < reportAge && q.Leased && steady && q.Applied+promoteBehind >= state.Revision
}

// dismiss takes a removed node out of Raft's configuration: its vote once it can serve
// nobody, and all of it once it holds no share. In between it still follows the log,
// because a node that does not learn of its removal cannot say that it has let go.
func (h *housekeeper) dismiss(r *raft.Raft, s raft.Server, state *armor.State) func() raft.Future {
	node := armor.NodeID(s.ID)
	holds := holdsShares(state, node)
	switch {
	case holds && (s.Suffrage != raft.Voter || !h.t.lives.quiet(node)):
		return nil
	case node == h.node.cfg.Node:
		return func() raft.Future { return r.LeadershipTransfer() }
	case holds:
		return func() raft.Future { return r.DemoteVoter(s.ID, 0, enqueueTimeout) }
	}
	return func() raft.Future { return r.RemoveServer(s.ID, 0, enqueueTimeout) }
}

func (h *housekeeper) change(do func() raft.Future) {
	if err := do().Error(); err != nil {
		h.node.cfg.Logger.Debug("raft configuration not changed", armor.KeyErr, err)
	}
}

// addresses records where members say they are.
func (h *housekeeper) addresses(ctx context.Context, state *armor.State) {
	for m := range state.Members.Values() {
		q, age, ok := h.t.lives.lastReport(m.ID)
		if !ok || age > reportAge || q.PeerAddress == "" || !h.t.lives.onlyLife(m.ID) { // a copy is somewhere else
			continue
		}
		if q.PeerAddress != m.PeerAddress || q.ClientAddress != m.ClientAddress || q.OpsAddress != m.OpsAddress {
			h.propose(ctx, armor.SetMemberAddresses{
				Node: m.ID, PeerAddress: q.PeerAddress, ClientAddress: q.ClientAddress, OpsAddress: q.OpsAddress,
			})
		}
	}
}
