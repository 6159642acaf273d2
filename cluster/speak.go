package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

const (
	// vouchTime is how long a voter's word that somebody leads is good for.
	vouchTime = 10 * time.Second
	// banTime is how long a node is not listened to that led us to undo what is done.
	banTime = time.Minute
	// maxTermGap is how far ahead of ours the term of a candidate may be. Terms are counted one
	// by one; a number near their end would leave no room for another election.
	maxTermGap = 1 << 20
)

// reminder remembers nodes until a boot instant.
type reminder struct {
	mu    sync.Mutex // guards below
	until map[armor.NodeID]time.Duration
}

// maxReminded bounds what a reminder holds.
const maxReminded = 64

func (r *reminder) add(node armor.NodeID, until time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil || len(r.until) > maxReminded {
		r.until = map[armor.NodeID]time.Duration{}
	}
	r.until[node] = until
}

func (r *reminder) has(node armor.NodeID, now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now < r.until[node]
}

// MaySpeak says whether a node that is no member, as far as is known here, may speak for
// the cluster (link.Config).
func (n *Node) MaySpeak(node armor.NodeID) bool { return n.listensTo(node) == nil }

// listensTo returns why a node is not listened to: it neither votes, nor has a node that may
// speak named it as the leader; or it would have undone what is committed.
func (n *Node) listensTo(node armor.NodeID) error {
	now := n.cfg.Clock.Boot()
	switch {
	case n.banned.has(node, now):
		return fmt.Errorf("%w: node %q is not listened to for now: it would have undone what is committed", armor.ErrDenied, node)
	case n.knows(node), n.vouched.has(node, now):
		return nil
	}
	return fmt.Errorf("%w: node %q is not a voter here", armor.ErrDenied, node)
}

// maySpeak says whether a Raft message of a node may be believed: the node is listened to,
// and has the right to this message. It may take the flag of a hand-over off a vote that
// is asked for. A joiner knows no voters yet, and believes those whom it was told of; whom
// a voter named cannot be proved to lead by the voters that this node knows.
func (n *Node) maySpeak(ctx context.Context, node armor.NodeID, command any) error {
	if err := n.listensTo(node); err != nil {
		return err
	}
	if !n.knows(node) || len(n.voterIDs()) == 0 {
		return nil
	}
	return n.mayCommand(ctx, node, command)
}

// mayCommand judges the message of a voter.
func (n *Node) mayCommand(ctx context.Context, node armor.NodeID, command any) error {
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		if err := n.elected(ctx, node, m.Term); err != nil {
			return err
		}
		return n.undoesNothing(node, m)
	case *raft.InstallSnapshotRequest:
		if err := n.elected(ctx, node, m.Term); err != nil {
			return err
		}
		return n.goesForward(node, m)
	case *raft.RequestVoteRequest:
		if err := n.mayWin(m); err != nil {
			return err
		}
		return n.mayRun(ctx, node, m)
	case *raft.RequestPreVoteRequest:
		if err := n.mayWin(m); err != nil {
			return err
		}
		return n.termInReach(node, m.Term)
	case *raft.TimeoutNowRequest:
		if leader, _ := n.Leader(); leader != node {
			return fmt.Errorf("%w: node %q would have this node stand for election, and the leader is %q", armor.ErrDenied, node, leader)
		}
		return n.mayStand()
	}
	return nil
}

// refused counts a message that was refused, and says so, now and then.
func (n *Node) refused(node armor.NodeID, why error) {
	n.suspicions.messages.Add(1)
	if n.suspicions.due("message"+string(node), n.cfg.Clock.Boot()) {
		n.cfg.Logger.Warn("refused a raft message", armor.KeyPeer, string(node), armor.KeyErr, why)
	}
}

// knows reports whether a node votes by our own configuration or, while we have none,
// is one that we were told of when we joined.
func (n *Node) knows(node armor.NodeID) bool {
	r := n.raft.Load()
	if r == nil {
		return false
	}
	all := servers(r)
	if len(all) == 0 {
		return slices.Contains(n.cfg.Seeds, node)
	}
	return slices.ContainsFunc(all, func(s raft.Server) bool {
		return s.ID == raft.ServerID(node) && s.Suffrage == raft.Voter
	})
}

// replicatesTo reports whether this node leads and a node is one of Raft's servers.
func (n *Node) replicatesTo(node armor.NodeID) bool {
	r := n.raft.Load()
	return r != nil && r.State() == raft.Leader &&
		slices.ContainsFunc(servers(r), func(s raft.Server) bool { return s.ID == raft.ServerID(node) })
}

// heardOfLeader takes a voter's word for who leads.
func (n *Node) heardOfLeader(from, leader armor.NodeID) {
	if leader != "" && leader != n.cfg.Node && n.knows(from) {
		n.vouched.add(leader, n.cfg.Clock.Boot()+vouchTime)
	}
}

// mayRun judges a candidate. Who asks for votes while there is a leader needs the
// leader's word that it hands its office over; without it the flag that says so is taken
// off, and Raft refuses the vote and keeps its term.
func (n *Node) mayRun(ctx context.Context, candidate armor.NodeID, m *raft.RequestVoteRequest) error {
	if err := n.termInReach(candidate, m.Term); err != nil {
		return err
	}
	leader, known := n.Leader()
	if !m.LeadershipTransfer || !known || leader == candidate {
		return nil
	}
	m.LeadershipTransfer = n.handsOver(ctx, leader, candidate)
	if !m.LeadershipTransfer {
		n.suspect(&n.suspicions.messages, candidate, "a node asked for votes as if the leader had told it to")
	}
	return nil
}

func (n *Node) handsOver(ctx context.Context, leader, candidate armor.NodeID) bool {
	term := n.raft.Load().CurrentTerm()
	if leader == n.cfg.Node {
		return n.Ballot(term).Successor == candidate
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timings.Transport)
	defer cancel()
	b, err := n.cfg.Courier.Ballot(ctx, leader, term)
	return err == nil && (b.Unsaid || b.Successor == candidate)
}

func (n *Node) termInReach(node armor.NodeID, term uint64) error {
	if own := n.raft.Load().CurrentTerm(); term > own+maxTermGap {
		return fmt.Errorf("%w: node %q asks for votes in term %d, and this is term %d", armor.ErrDenied, node, term, own)
	}
	return nil
}

// undoesNothing refuses entries in the place of those that were applied here. What was
// applied was committed, so no leader has another entry there: this one lost some of its log
// or has been stolen. It is not listened to for a while, so that another is elected.
func (n *Node) undoesNothing(leader armor.NodeID, m *raft.AppendEntriesRequest) error {
	applied := *n.adapter.committed.Load()
	places := []entryID{{m.PrevLogEntry, m.PrevLogTerm}}
	for _, e := range m.Entries {
		places = append(places, entryID{e.Index, e.Term})
	}
	for _, p := range places {
		if p.index == 0 || p.index > applied.index || n.cfg.mistakes.overwrite {
			continue
		}
		if term, ok := n.termAt(p.index, applied); ok && term != p.term {
			n.banned.add(leader, n.cfg.Clock.Boot()+banTime)
			return fmt.Errorf("%w: node %q has an entry of term %d at index %d, where one of term %d was applied here",
				armor.ErrDenied, leader, p.term, p.index, term)
		}
	}
	return nil
}

// termAt is the term of an entry that was applied here, if the log still has it.
func (n *Node) termAt(index uint64, applied entryID) (term uint64, ok bool) {
	if index == applied.index {
		return applied.term, true
	}
	var entry raft.Log
	if n.latch.GetLog(index, &entry) != nil {
		return 0, false
	}
	return entry.Term, true
}

// goesForward refuses a snapshot that is older than what is published here.
func (n *Node) goesForward(leader armor.NodeID, m *raft.InstallSnapshotRequest) error {
	if published := n.machine.LastCommand(); m.LastLogIndex < published {
		return fmt.Errorf("%w: node %q sent a snapshot of index %d, and revision %d is in force here", armor.ErrDenied, leader, m.LastLogIndex, published)
	}
	return nil
}
