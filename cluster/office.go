package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// tenure is one term in which this node leads and is ready: an entry of its own term
// is applied here, so its state contains everything any leader ever answered for.
type tenure struct {
	term  uint64
	began time.Duration // on the boot clock; no grant of an earlier term was confirmed after it
	pulse *pulse
	lives *lives
	// searches are for what removed nodes have left in PostgreSQL.
	searches *searches
	uses     *usesHeard
	ended    <-chan struct{}
}

// lead follows Raft's word on leadership. It never blocks Raft: each tenure runs in
// its own goroutine and is told to end by its context.
func (n *Node) lead(ctx context.Context, leading <-chan bool) {
	var tenures sync.WaitGroup
	defer tenures.Wait()
	resign := func() {}
	defer func() { resign() }()
	for {
		select {
		case yes := <-leading:
			resign()
			resign = func() {}
			if yes {
				term, cancel := context.WithCancel(ctx)
				resign = cancel
				tenures.Go(func() { n.reign(term) })
			}
		case <-ctx.Done():
			return
		}
	}
}

// reign makes the node ready to lead, and keeps house while it leads.
func (n *Node) reign(ctx context.Context) {
	t, err := n.takeOffice(ctx)
	if err != nil {
		n.cfg.Logger.Warn("cannot take office", armor.KeyErr, err)
		return
	}
	n.cfg.Logger.Info("leading", armor.KeyTerm, t.term, armor.KeyRevision, n.machine.LastCommand())
	n.setTenure(t)
	defer n.clearTenure(t)
	var work sync.WaitGroup
	work.Go(func() { t.pulse.run(ctx) })
	work.Go(func() { n.keepHouse(ctx, t) })
	work.Wait()
}

// takeOffice waits until an entry of this term is applied.
func (n *Node) takeOffice(ctx context.Context) (*tenure, error) {
	r := n.raft.Load()
	term := r.CurrentTerm()
	future := r.Barrier(0)
	if err := n.answered(ctx, future); err != nil {
		return nil, fmt.Errorf("apply a first entry of term %d: %w", term, err)
	}
	t := &tenure{term: term, began: n.cfg.Clock.Boot(), ended: ctx.Done()}
	if !n.holdsOffice(t) {
		return nil, fmt.Errorf("term %d is over", term)
	}
	if indexed, ok := future.(raft.IndexFuture); ok {
		n.adapter.commits(entryID{indexed.Index(), term})
	}
	t.pulse = newPulse(n, t)
	t.lives = n.newLives(t.began)
	t.searches = newSearches(n, t.lives)
	t.uses = newUsesHeard()
	return t, nil
}

// answered waits for what Raft says of an entry. A leadership that is lost while the entry
// is handed over leaves it unanswered until Raft ends, so the wait ends with ctx, too.
func (n *Node) answered(ctx context.Context, entry raft.Future) error {
	done := make(chan error, 1)
	if !n.tasks.start(func() { done <- entry.Error() }) {
		return armor.ErrShuttingDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// holdsOffice reports whether this node still leads in the tenure's term, as far as it
// knows. Only a confirmation by voters proves it.
func (n *Node) holdsOffice(t *tenure) bool {
	r := n.raft.Load()
	return r.State() == raft.Leader && r.CurrentTerm() == t.term
}

func (n *Node) setTenure(t *tenure) {
	n.office.Lock()
	defer n.office.Unlock()
	n.office.tenure = t
	close(n.office.changed)
	n.office.changed = make(chan struct{})
}

func (n *Node) clearTenure(t *tenure) {
	n.office.Lock()
	defer n.office.Unlock()
	if n.office.tenure == t {
		n.office.tenure = nil
	}
}

// tenure returns the tenure in force, or an error that names the leader.
func (n *Node) tenure() (*tenure, error) {
	n.office.Lock()
	t := n.office.tenure
	n.office.Unlock()
	if t == nil || !n.holdsOffice(t) {
		return nil, n.notLeader()
	}
	return t, nil
}

// readyTenure waits, if this node has just been elected, until it is ready.
func (n *Node) readyTenure(ctx context.Context) (*tenure, error) {
	for {
		n.office.Lock()
		t, changed := n.office.tenure, n.office.changed
		n.office.Unlock()
		if t != nil && n.holdsOffice(t) {
			return t, nil
		}
		r := n.raft.Load()
		if r == nil || r.State() != raft.Leader {
			return nil, n.notLeader()
		}
		timer := time.NewTimer(n.cfg.Timings.Heartbeat)
		select {
		case <-changed:
		case <-timer.C: // leadership may have ended meanwhile, which changes nothing here
		case <-ctx.Done():
			timer.Stop()
			return nil, n.notLeader()
		}
		timer.Stop()
	}
}

// notLeader names the leader; when there is none, nothing can be changed either.
func (n *Node) notLeader() error {
	leader, known := n.Leader()
	if leader == n.cfg.Node {
		leader, known = "", false // elected, and not ready
	}
	if !known {
		return fmt.Errorf("%w: %w", armor.ErrNoQuorum, &armor.NotLeaderError{})
	}
	return &armor.NotLeaderError{Leader: leader}
}
