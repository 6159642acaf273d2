package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// Where Raft writes its term and its votes down: of a vote the term first, then whom it was
// for.
const (
	currentTerm  = "CurrentTerm"
	lastVoteTerm = "LastVoteTerm"
	lastVoteFor  = "LastVoteCand"
)

// elections is what this node knows of elections: its own last vote, and who was proved to
// lead.
type elections struct {
	mu     sync.Mutex // guards all below; never held while asking
	own    election
	proven election
	asking map[armor.NodeID]*inquiry
}

// election says who was chosen in a term, or is to be.
type election struct {
	term uint64
	node armor.NodeID
}

// inquiry is a search for the proof that a node leads, in progress or failed.
type inquiry struct {
	election
	done  chan struct{} // closed once err is set
	err   error
	again time.Duration // boot instant from which a failed one may be repeated
}

// inquiryPause keeps a node that cannot prove anything from having us ask all the time.
const inquiryPause = 50 * time.Millisecond

// read takes the last vote that was written down: at the start, and once Raft has written
// both halves of another. A store without one has none to tell.
func (v *elections) read(stable raft.StableStore) {
	term, err := stable.GetUint64([]byte(lastVoteTerm))
	if err != nil {
		return
	}
	candidate, err := stable.Get([]byte(lastVoteFor))
	if err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.own = election{term, armor.NodeID(candidate)}
}

// in returns whom this node takes for the leader of a term, or gave its vote.
func (v *elections) in(term uint64) armor.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch term {
	case v.proven.term:
		return v.proven.node
	case v.own.term:
		return v.own.node
	}
	return ""
}

// isProven reports whether e is proved, or another node is for the same term.
func (v *elections) isProven(e election) (yes, another bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := v.proven.term == e.term
	return same && v.proven.node == e.node, same && v.proven.node != e.node
}

// begin returns the inquiry about an election, and whether the caller has to make it.
func (v *elections) begin(e election, now time.Duration) (q *inquiry, mine bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if q := v.asking[e.node]; q != nil && q.election == e && (q.again == 0 || now < q.again) {
		return q, false
	}
	if v.asking == nil {
		v.asking = map[armor.NodeID]*inquiry{}
	}
	q = &inquiry{election: e, done: make(chan struct{})}
	v.asking[e.node] = q
	return q, true
}

// end notes what an inquiry found.
func (v *elections) end(q *inquiry, err error, now time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	q.err, q.again = err, now+inquiryPause
	if err == nil && q.term > v.proven.term {
		v.proven = q.election
	}
	if err == nil && v.asking[q.node] == q {
		delete(v.asking, q.node)
	}
	close(q.done)
}

// Ballot is this node's word on who leads in a term. It answers at once, also before it
// knows anything.
func (n *Node) Ballot(term uint64) armor.Ballot {
	b := armor.Ballot{Term: term, Leader: n.elections.in(term)}
	if n.raft.Load() != nil { // the transport is there before Raft is
		b.Successor = n.transport.successor(n.cfg.Clock.Boot())
	}
	return b
}

// elected returns nil when a node was elected in a term, by the word of a majority of
// the voters: those who voted for it, and those who had this proof before. A message of
// a term that is over is left to Raft, which refuses it.
func (n *Node) elected(ctx context.Context, node armor.NodeID, term uint64) error {
	if term < n.raft.Load().CurrentTerm() || n.cfg.mistakes.believeVoters {
		return nil
	}
	e := election{term, node}
	yes, another := n.elections.isProven(e)
	switch {
	case yes:
		return nil
	case another:
		return fmt.Errorf("%w: node %q says that it leads in term %d, in which another node was elected", armor.ErrDenied, node, term)
	}
	q, mine := n.elections.begin(e, n.cfg.Clock.Boot())
	if !mine {
		select {
		case <-q.done:
			return q.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := n.count(ctx, e)
	n.elections.end(q, err, n.cfg.Clock.Boot())
	return err
}

// count asks the voters whom they chose, until a majority has named one.
func (n *Node) count(ctx context.Context, e election) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timings.Transport)
	defer cancel()
	voters := n.voterIDs()
	var yes atomic.Int32
	agrees := func() bool { return 2*int(yes.Add(1)) > len(voters) }
	var others []armor.NodeID
	for _, v := range voters {
		switch {
		case v != e.node && (v != n.cfg.Node || n.elections.in(e.term) != e.node):
			others = append(others, v)
		case agrees():
			return nil
		}
	}
	n.askOthers(others, func(v armor.NodeID) {
		if n.agreesTo(ctx, v, e) && agrees() {
			cancel() // the rest need not answer any more
		}
	})
	if said := int(yes.Load()); 2*said <= len(voters) {
		return fmt.Errorf("%w: node %q says that it leads in term %d, and %d of %d voters say so",
			armor.ErrDenied, e.node, e.term, said, len(voters))
	}
	return nil
}

// askOthers asks voters but this node at the same time, and returns when all have answered
// or given up.
func (n *Node) askOthers(voters []armor.NodeID, ask func(armor.NodeID)) {
	var asking sync.WaitGroup
	for _, v := range voters {
		if v != n.cfg.Node {
			asking.Go(func() { ask(v) })
		}
	}
	asking.Wait()
}

func (n *Node) agreesTo(ctx context.Context, voter armor.NodeID, e election) bool {
	b, err := n.cfg.Courier.Ballot(ctx, voter, e.term)
	return err == nil && (b.Unsaid || b.Term == e.term && b.Leader == e.node)
}
