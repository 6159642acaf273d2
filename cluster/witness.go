package cluster

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// divergence is what a node knows of others that have come to another state than it has.
type divergence struct {
	count  atomic.Uint64
	asking atomic.Bool  // an inquiry is under way
	said   atomic.Int64 // boot clock of the last line about it, in nanoseconds
}

// Attest is what this node knows of a revision, and where its log ends: its word, which
// others weigh against that of other voters.
func (n *Node) Attest(revision uint64) (armor.Attestation, error) {
	r := n.raft.Load()
	if r == nil || n.failed.cause() != nil {
		return armor.Attestation{}, fmt.Errorf("attest to revision %d: %w", revision, armor.ErrUnavailable)
	}
	var a armor.Attestation
	a.Mark, _ = n.machine.MarkAt(revision)
	last := n.lastEntry()
	a.LastIndex, a.LastTerm = last.index, last.term
	return a, nil
}

// differs holds what a node says of itself against our own history, and returns ours where
// it is another. One that says nothing, or is too far away, is not judged.
func (n *Node) differs(theirs armor.Mark) (ours armor.Mark, yes bool) {
	if theirs.IsZero() || n.cfg.mistakes.trustMarks {
		return armor.Mark{}, false
	}
	ours, known := n.machine.MarkAt(theirs.Revision)
	return ours, known && ours != theirs
}

// contradicted reports whether at least half of the voters have reported another state than
// this leader's: then nobody knows which is right, and it grants nothing, itself included.
func (n *Node) contradicted(t *tenure) bool {
	against, voters := 0, n.voterIDs()
	for _, v := range voters {
		if q, _, met := t.lives.lastReport(v); met && v != n.cfg.Node {
			if _, yes := n.differs(q.Mark); yes {
				against++
			}
		}
	}
	return 2*against >= len(voters)
}

// diverged says that a node and this one have different states at one revision, and has
// this one find out which of them is wrong.
func (n *Node) diverged(peer armor.NodeID, ours, theirs armor.Mark) {
	n.divergence.count.Add(1)
	now := int64(n.cfg.Clock.Boot())
	if said := n.divergence.said.Load(); said == 0 || now-said > int64(sayAgain) {
		n.divergence.said.Store(now)
		n.cfg.Logger.Error("this node and another have different states at the same revision", armor.KeyPeer, string(peer),
			armor.KeyRevision, ours.Revision, "ours", describe(ours), "theirs", describe(theirs))
	}
	if !n.divergence.asking.CompareAndSwap(false, true) {
		return
	}
	if !n.tasks.start(func() { defer n.divergence.asking.Store(false); n.inquire(ours) }) {
		n.divergence.asking.Store(false)
	}
}

func describe(m armor.Mark) string { return fmt.Sprintf("history %s, state %s", m.Chain, m.State) }

// inquire asks the other voters about a revision and ends this node when a majority of all
// voters stands elsewhere. One node's word, the leader's too, ends nobody.
func (n *Node) inquire(ours armor.Mark) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timings.RenewTimeout) // a task: Run waits for it
	defer cancel()
	answers := n.askVoters(ctx, votersAmong(servers(n.raft.Load())), ours.Revision)
	against := 0
	var other armor.Mark
	for _, a := range answers {
		if !a.Mark.IsZero() && a.Mark != ours {
			against, other = against+1, a.Mark
		}
	}
	if 2*against <= n.voters() {
		return
	}
	n.failed.fail(fmt.Errorf("%w: at revision %d it has %s, and %d of %d voters have another: %s: %s",
		ErrDiverged, ours.Revision, describe(ours), against, n.voters(), describe(other), seeDiverged))
}

// votersAmong are those of a configuration's servers that vote.
func votersAmong(all []raft.Server) (voters []armor.NodeID) {
	for _, s := range all {
		if s.Suffrage == raft.Voter {
			voters = append(voters, armor.NodeID(s.ID))
		}
	}
	return voters
}

// askVoters asks all of them but this node about a revision at the same time, and returns
// what came back before ctx ended.
func (n *Node) askVoters(ctx context.Context, voters []armor.NodeID, revision uint64) map[armor.NodeID]armor.Attestation {
	var mu sync.Mutex // guards answers
	answers := map[armor.NodeID]armor.Attestation{}
	n.askOthers(voters, func(id armor.NodeID) {
		a, err := n.cfg.Courier.Attest(ctx, id, revision)
		if err != nil {
			n.cfg.Logger.Debug("a voter did not attest", armor.KeyPeer, string(id), armor.KeyErr, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		answers[id] = a
	})
	return answers
}

// lastEntry is the last entry of this node's log, or of the snapshot that it follows.
func (n *Node) lastEntry() entryID {
	stats := n.raft.Load().Stats()
	number := func(key string) uint64 {
		v, err := strconv.ParseUint(stats[key], 10, 64)
		if err != nil {
			panic("cluster: raft says no number for " + key)
		}
		return v
	}
	log := entryID{number("last_log_index"), number("last_log_term")}
	snapshot := entryID{number("last_snapshot_index"), number("last_snapshot_term")}
	if snapshot.index > log.index {
		return snapshot
	}
	return log
}
