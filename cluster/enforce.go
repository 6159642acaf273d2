package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// maxHeld bounds the pools that one renewal may report.
const maxHeld = 10_000

// maxBackends bounds the server connections that one renewal may name.
const maxBackends = 100_000

// Answer is the leader's side of the freshness question. The caller must have proved
// that q.Node is who asks. It is a NotLeaderError elsewhere, ErrDenied for a node that
// is not a member, ErrConflict while another life of the node may still serve, and
// ErrNoQuorum when the voters did not confirm in time. A node whose state is another than
// ours is told so and granted nothing.
func (n *Node) Answer(ctx context.Context, q armor.Renewal) (armor.Freshness, error) {
	if err := checkRenewal(q); err != nil {
		return armor.Freshness{}, err
	}
	t, err := n.tenure()
	if err != nil {
		return armor.Freshness{}, err
	}
	if err := n.takeReport(t, q); err != nil {
		return armor.Freshness{}, err
	}
	if ours, yes := n.differs(q.Mark); yes {
		n.diverged(q.Node, ours, q.Mark)
		return armor.Freshness{Term: t.term, Differs: true, Mark: ours}, nil
	}
	if n.contradicted(t) {
		return armor.Freshness{}, fmt.Errorf("%w: half of the voters have another state than their leader", armor.ErrNoQuorum)
	}
	answer := armor.Freshness{Term: t.term}
	if q.Ended {
		return answer, nil // it said its last word, and asks for nothing
	}
	err = t.lives.grant(q.Node, q.Epoch, func() time.Duration {
		state, _ := n.machine.Current()
		answer.Index, answer.Bound = state.Revision, longestLive(state)
		return answer.Bound
	})
	if errors.Is(err, errCopy) {
		n.cfg.Logger.Warn("two processes run as one node: one of them is a copy, and is told to end", armor.KeyNode, string(q.Node))
		return armor.Freshness{Term: t.term, Copy: true}, nil
	}
	if err != nil {
		return armor.Freshness{}, err
	}
	if err := t.pulse.confirm(ctx); err != nil {
		return armor.Freshness{}, fmt.Errorf("answer node %s: %w", q.Node, err)
	}
	// The node may have lost and regained office meanwhile, around a change of another
	// leader's that the index does not cover.
	if !n.holdsOffice(t) {
		return armor.Freshness{}, n.notLeader()
	}
	answer.Time = n.WallClock()
	return answer, nil
}

func checkRenewal(q armor.Renewal) error {
	if _, err := armor.ParseNodeID(string(q.Node)); err != nil {
		return err
	}
	if q.Epoch == 0 || q.Epoch == q.Succeeds {
		return fmt.Errorf("%w: the renewal of node %q names no life of its own", armor.ErrInvalid, q.Node)
	}
	if len(q.Held) > maxHeld || countBackends(q.Backends) > maxBackends || q.Closed < 0 || !q.Mark.IsZero() && q.Mark.Revision != q.Applied {
		return fmt.Errorf("%w: the renewal of node %q is out of bounds", armor.ErrInvalid, q.Node)
	}
	return checkUses(q)
}

// takeReport notes what the node says of itself. A removed node is still listened to,
// because its word ends the wait for it, but it is granted nothing.
func (n *Node) takeReport(t *tenure, q armor.Renewal) error {
	state, _ := n.machine.Current()
	member, removed := state.Members.Has(string(q.Node)), state.Tombstones.Has(string(q.Node))
	if err := n.possible(q); err != nil {
		n.suspect(&n.suspicions.reports, q.Node, "a node reports what cannot be")
		return err
	}
	if member || removed {
		t.lives.report(q)
	}
	if member {
		t.uses.hear(q.Uses)
	}
	if !member {
		return fmt.Errorf("%w: node %q is not a member", armor.ErrDenied, q.Node)
	}
	return nil
}

// possible refuses the report of a node that has enforced what it has not applied, or
// applied what is not committed: such a word would count for changes that are still to come.
func (n *Node) possible(q armor.Renewal) error {
	committed := n.raft.Load().CommitIndex()
	if q.Enforced <= q.Applied && q.Applied <= committed || n.cfg.mistakes.believeReports {
		return nil
	}
	return fmt.Errorf("%w: node %q says that it has enforced revision %d and applied %d, and %d is committed",
		armor.ErrInvalid, q.Node, q.Enforced, q.Applied, committed)
}

// AwaitEnforced waits until every member and every removed member has enforced the
// result's revision or can serve nobody without it. When ctx ends first the answer is
// incomplete and the error nil. When this node stops leading meanwhile the error is a
// NotLeaderError: the new leader can be asked the same.
func (n *Node) AwaitEnforced(ctx context.Context, r armor.Result) (armor.Enforcement, error) {
	t, err := n.readyTenure(ctx)
	if err != nil {
		return armor.Enforcement{}, err
	}
	state, _ := n.machine.Current()
	if r.Revision == 0 || r.Revision > state.Revision {
		return armor.Enforcement{}, fmt.Errorf("%w: revision %d was not committed here", armor.ErrInvalid, r.Revision)
	}
	w := n.newWait(t, state, r)
	for {
		changed := t.lives.watch()
		e, next := w.look()
		if e.Complete {
			return e, nil
		}
		timer := time.NewTimer(max(next, time.Millisecond))
		select {
		case <-changed:
		case <-timer.C:
		case <-t.ended:
			err = n.notLeader()
		case <-ctx.Done():
			timer.Stop()
			return e, nil
		}
		timer.Stop()
		if err != nil {
			return e, err
		}
	}
}

// wait is one AwaitEnforced in progress.
type wait struct {
	node      *Node
	t         *tenure
	result    armor.Result
	published publication
	fences    []fences
}

func (n *Node) newWait(t *tenure, state *armor.State, r armor.Result) *wait {
	published, ok := n.adapter.publishedAt(r.Revision)
	if !ok { // long ago, or under another leader
		published = publication{r.Revision, t.began, r.Time}
	}
	return &wait{node: n, t: t, result: r, published: published, fences: t.lives.fencesOf(everyNode(state))}
}

// everyNode is every member and every removed member that is still remembered.
func everyNode(state *armor.State) []armor.NodeID {
	var all []armor.NodeID
	for m := range state.Members.Values() {
		all = append(all, m.ID)
	}
	for t := range state.Tombstones.Values() {
		all = append(all, t.ID)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// look takes stock. next is how long it is until time alone may change the answer.
func (w *wait) look() (e armor.Enforcement, next time.Duration) {
	boot, wall := w.node.cfg.Clock.Boot(), w.node.cfg.Clock.Wall()
	e = armor.Enforcement{Revision: w.result.Revision, Term: w.result.Term, CommittedAt: w.published.wall, Complete: true}
	next = time.Minute
	for _, f := range w.fences {
		s := w.t.lives.stand(f, w.result.Revision)
		one := armor.NodeEnforcement{Node: f.node, Enforced: s.confirmed}
		if s.confirmed {
			one.After, one.Closed = max(s.ack.at-w.published.at, 0), s.ack.closed
		} else {
			one.FencedBy = fencedBy(s.until, boot, wall)
		}
		e.Nodes = append(e.Nodes, one)
		if !s.confirmed && !s.fenced {
			e.Complete = false
			next = min(next, s.until-boot)
		}
	}
	return e, next
}

// fencedBy puts a boot instant on the wall clock; a node that was granted nothing is
// fenced as of now.
func fencedBy(until, boot time.Duration, wall time.Time) time.Time {
	if until == 0 {
		return wall
	}
	return wall.Add(until - boot)
}
