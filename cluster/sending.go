package cluster

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// What this node sends of Raft's messages, and what it believes of the answers.

// AppendEntries sends entries or a heartbeat (raft.Transport). Raft doubles its pause after each
// failure to send entries, up to ten seconds, so that a node whose way is free again would
// wait that long for what it missed. Heartbeats go on all the time: entries that failed wait for
// the first one that arrives, and are sent again.
func (t *transport) AppendEntries(
	id raft.ServerID, address raft.ServerAddress, m *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse,
) error {
	err := t.appendOnce(id, address, m, answer)
	if err != nil && !isHeartbeat(m) && !t.mistakes.backOff && t.awaitContact(armor.NodeID(id)) {
		*answer = raft.AppendEntriesResponse{}
		err = t.appendOnce(id, address, m, answer)
	}
	return err
}

// appendOnce sends entries or a heartbeat, and does not wait for better times.
func (t *transport) appendOnce(
	id raft.ServerID, address raft.ServerAddress, m *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse,
) error {
	if err := t.NetworkTransport.AppendEntries(id, address, m, answer); err != nil {
		return err
	}
	t.reached.add(armor.NodeID(id), t.clock.Boot())
	return t.sentry.mayRaise(armor.NodeID(id), m.Term, answer.Term)
}

// isHeartbeat tells heartbeats from entries, as Raft does.
func isHeartbeat(m *raft.AppendEntriesRequest) bool {
	return m.PrevLogEntry == 0 && m.PrevLogTerm == 0 && len(m.Entries) == 0 && m.LeaderCommitIndex == 0
}

// reachLook is how often it is looked whether a node has answered.
const reachLook = 20 * time.Millisecond

// awaitContact waits until a node answers a message of any kind, and reports whether it
// did before this node stopped leading.
func (t *transport) awaitContact(node armor.NodeID) bool {
	since := t.clock.Boot()
	for t.sentry.replicatesTo(node) {
		if t.reached.has(node, since) {
			return true
		}
		select {
		case <-time.After(reachLook):
		case <-t.done:
			return false
		}
	}
	return false
}

// RequestVote asks for a vote, unless this node must not stand for election (raft.Transport).
func (t *transport) RequestVote(
	id raft.ServerID, address raft.ServerAddress, m *raft.RequestVoteRequest, answer *raft.RequestVoteResponse,
) error {
	if err := t.sentry.mayStand(); err != nil {
		return err
	}
	if err := t.NetworkTransport.RequestVote(id, address, m, answer); err != nil {
		return err
	}
	return t.late(armor.NodeID(id), m.Term, answer.Term)
}

// RequestPreVote asks whether a vote would be given, on the same condition (raft.WithPreVote).
func (t *transport) RequestPreVote(
	id raft.ServerID, address raft.ServerAddress, m *raft.RequestPreVoteRequest, answer *raft.RequestPreVoteResponse,
) error {
	if err := t.sentry.mayStand(); err != nil {
		return err
	}
	if err := t.NetworkTransport.RequestPreVote(id, address, m, answer); err != nil {
		return err
	}
	return t.late(armor.NodeID(id), m.Term, answer.Term)
}

// laterTermPause is how long an answer of a later term is kept from a candidate.
const laterTermPause = 200 * time.Millisecond

// late holds the answer of a later term back for a moment, at which Raft gives up its
// candidacy: if a majority gives its votes meanwhile, the election is over, whoever has
// answered so; if not, the candidate has to learn that term, however often it is told of one.
func (t *transport) late(node armor.NodeID, from, to uint64) error {
	if to <= from {
		return nil
	}
	if to > from+maxTermGap {
		return outOfReach(node, from, to)
	}
	select {
	case <-time.After(laterTermPause):
	case <-t.done:
	}
	return nil
}

func outOfReach(node armor.NodeID, from, to uint64) error {
	return fmt.Errorf("%w: node %q answers a message of term %d with term %d", armor.ErrDenied, node, from, to)
}

// InstallSnapshot sends a whole state (raft.Transport).
func (t *transport) InstallSnapshot(
	id raft.ServerID, address raft.ServerAddress, m *raft.InstallSnapshotRequest, answer *raft.InstallSnapshotResponse, state io.Reader,
) error {
	err := t.NetworkTransport.InstallSnapshot(id, address, m, answer, state)
	if err != nil && strings.Contains(err.Error(), errUnproven.Error()) {
		t.sentry.snapshotSoon()
	}
	if err != nil {
		return err
	}
	return t.sentry.mayRaise(armor.NodeID(id), m.Term, answer.Term)
}

// heir is the node to which an office is handed over, until a boot instant.
type heir struct {
	node  armor.NodeID
	until time.Duration
}

// TimeoutNow has a node stand for election at once, to take this node's office over
// (raft.Transport). The others ask this node whether it said so.
func (t *transport) TimeoutNow(
	id raft.ServerID, address raft.ServerAddress, m *raft.TimeoutNowRequest, answer *raft.TimeoutNowResponse,
) error {
	t.heir.Store(&heir{armor.NodeID(id), t.clock.Boot() + handOverTime})
	return t.NetworkTransport.TimeoutNow(id, address, m, answer)
}

// handOverTime is how long an election may take that was begun by the leader.
const handOverTime = 5 * time.Second

// successor is to whom the office is being handed over, if to anybody.
func (t *transport) successor(now time.Duration) armor.NodeID {
	if h := t.heir.Load(); h != nil && now < h.until {
		return h.node
	}
	return ""
}

// raised remembers how often each node's answers have ended a term.
type raised struct {
	mu    sync.Mutex // guards below
	nodes map[armor.NodeID]*raisedBy
}

// raisedBy is one node's account: the next time it ends a term, and how long it has to
// wait after that.
type raisedBy struct {
	next  time.Duration
	pause time.Duration
}

const (
	firstRaisePause = 2 * time.Second
	maxRaisePause   = time.Minute
)

// take reports whether a node's answer may end a term now. A node that does it again and
// again, which a majority of the cluster does not, has to wait longer each time.
func (r *raised) take(node armor.NodeID, now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes == nil {
		r.nodes = map[armor.NodeID]*raisedBy{}
	}
	by := r.nodes[node]
	switch {
	case by == nil || now >= by.next+2*by.pause:
		by = &raisedBy{pause: firstRaisePause}
		r.nodes[node] = by
	case now < by.next:
		return false
	default:
		by.pause = min(2*by.pause, maxRaisePause)
	}
	by.next = now + by.pause
	return true
}

// mayRaise judges an answer that names a later term than a leader's message did: at it, Raft
// gives up its office. One node's word is enough for that, so it is not taken
// often, nor for a term out of reach.
func (n *Node) mayRaise(node armor.NodeID, from, to uint64) error {
	if to <= from || n.cfg.mistakes.believeTerms {
		return nil
	}
	if to <= from+maxTermGap && n.raised.take(node, n.cfg.Clock.Boot()) {
		return nil
	}
	n.suspect(&n.suspicions.messages, node, "a node would end one term after the other")
	return outOfReach(node, from, to)
}
