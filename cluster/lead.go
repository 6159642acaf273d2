package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// tenure is one term in which this node leads and is ready: an entry of its own term
// is applied here, so its state contains everything any leader ever answered for.
type tenure struct {
	term   uint64
	began  time.Duration // on the boot clock; no grant of an earlier term was confirmed after it
	pulse  *pulse
	ledger *ledger
	ended  <-chan struct{}
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
	work.Go(func() { n.reconcile(ctx, t) })
	work.Wait()
}

// takeOffice waits until an entry of this term is applied.
func (n *Node) takeOffice(ctx context.Context) (*tenure, error) {
	r := n.raft.Load()
	term := r.CurrentTerm()
	future := r.Barrier(0)
	if err := future.Error(); err != nil {
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
	t.ledger = n.newLedger(t.began)
	return t, nil
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

// pulseSpacing bounds how often questions alone make the leader write to every node;
// questions that come closer together share one confirmation.
const pulseSpacing = 20 * time.Millisecond

// pulse sends every node an empty AppendEntries of this term at a committed entry. It
// serves two purposes. A node that receives it learns what is committed at once, not
// up to two CommitTimeouts later. And a voter that answers it was still of this term
// when it did: answers of a majority to messages sent after a question prove that no
// later leader had committed anything when the question came.
type pulse struct {
	node *Node
	t    *tenure
	want chan struct{} // a confirmation is waiting

	mu      sync.Mutex // guards all below; never held while sending
	beats   uint64
	heard   map[raft.ServerID]uint64 // the latest beat each has answered
	changed chan struct{}            // closed and replaced when heard changes
	couples map[raft.ServerID]*couple
	ended   bool
	running sync.WaitGroup
}

// couple is the goroutine that sends one node its pulses.
type couple struct {
	wake chan struct{}
	stop chan struct{}
}

func newPulse(n *Node, t *tenure) *pulse {
	return &pulse{
		node: n, t: t, want: make(chan struct{}, 1), heard: map[raft.ServerID]uint64{},
		changed: make(chan struct{}), couples: map[raft.ServerID]*couple{},
	}
}

// run beats when questions wait, until ctx ends.
func (p *pulse) run(ctx context.Context) {
	defer p.end()
	for {
		select {
		case <-p.want:
			p.beat()
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, pulseSpacing) {
			return
		}
	}
}

// beat starts one message to every other server. It does not wait.
func (p *pulse) beat() {
	all := servers(p.node.raft.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.beats++
	present := map[raft.ServerID]bool{}
	for _, s := range all {
		if s.ID != raft.ServerID(p.node.cfg.Node) {
			present[s.ID] = true
			p.wakeLocked(s)
		}
	}
	for id, c := range p.couples {
		if !present[id] {
			close(c.stop)
			delete(p.couples, id)
		}
	}
}

func (p *pulse) wakeLocked(s raft.Server) {
	c := p.couples[s.ID]
	if c == nil {
		c = &couple{wake: make(chan struct{}, 1), stop: make(chan struct{})}
		p.couples[s.ID] = c
		p.running.Go(func() { p.serve(c, s) })
	}
	select {
	case c.wake <- struct{}{}:
	default: // it will see the latest beat when it comes round
	}
}

func (p *pulse) end() {
	p.mu.Lock()
	p.ended = true
	for id, c := range p.couples {
		close(c.stop)
		delete(p.couples, id)
	}
	p.mu.Unlock()
	p.running.Wait()
}

// serve sends one server its pulses.
func (p *pulse) serve(c *couple, s raft.Server) {
	for {
		select {
		case <-c.wake:
		case <-c.stop:
			return
		}
		for pause := range nudgePauses() {
			beat := p.latest()
			current, upToDate := p.send(s)
			if current {
				p.hear(s.ID, beat)
			}
			if upToDate || !pauseFor(pause, c.stop) {
				break
			}
		}
	}
}

// nudgePauses are the pauses after an answer that did not come or said that the node
// lacks the entry: it is on its way in a message of Raft's own. After the last one
// Raft's CommitTimeout takes over.
func nudgePauses() func(func(time.Duration) bool) {
	return func(yield func(time.Duration) bool) {
		for _, d := range []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 15 * time.Millisecond, 0} {
			if !yield(d) {
				return
			}
		}
	}
}

func pauseFor(d time.Duration, stop <-chan struct{}) bool {
	if d == 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}

// send reports whether the server was of our term when it answered, and whether it has
// the entry.
func (p *pulse) send(s raft.Server) (current, upToDate bool) {
	n := p.node
	at := *n.adapter.committed.Load()
	header := n.transport.header()
	request := &raft.AppendEntriesRequest{
		RPCHeader: header, Term: p.t.term, Leader: header.Addr, //lint:ignore SA1019 receivers still read it
		PrevLogEntry: at.index, PrevLogTerm: at.term, LeaderCommitIndex: at.index,
	}
	var answer raft.AppendEntriesResponse
	if err := n.transport.AppendEntries(s.ID, s.Address, request, &answer); err != nil {
		return false, false
	}
	return answer.Term == p.t.term, answer.Success || answer.Term > p.t.term
}

func (p *pulse) latest() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beats
}

func (p *pulse) hear(id raft.ServerID, beat uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if beat <= p.heard[id] {
		return
	}
	p.heard[id] = beat
	close(p.changed)
	p.changed = make(chan struct{})
}

// confirm returns nil once a majority of the voters has answered a message that was
// sent after confirm was called.
func (p *pulse) confirm(ctx context.Context) error {
	need := p.latest() + 1
	if p.node.cfg.mistakes.countStaleAnswers {
		need--
	}
	select {
	case p.want <- struct{}{}:
	default:
	}
	timer := time.NewTimer(p.node.cfg.Timings.RenewTimeout)
	defer timer.Stop()
	for {
		yes, changed := p.majority(need)
		if yes {
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("%w: a majority of the voters did not confirm that this node leads", armor.ErrNoQuorum)
		case <-p.t.ended:
			return p.node.notLeader()
		case <-ctx.Done():
			return errors.Join(armor.ErrNoQuorum, ctx.Err())
		}
	}
}

// majority reports whether more than half of the voters have answered the given beat.
func (p *pulse) majority(beat uint64) (bool, <-chan struct{}) {
	all := servers(p.node.raft.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	voters, answered := 0, 0
	for _, s := range all {
		votes := s.Suffrage == raft.Voter
		if votes {
			voters++
		}
		if !votes && !p.node.cfg.mistakes.countNonvoters {
			continue
		}
		if s.ID == raft.ServerID(p.node.cfg.Node) || p.heard[s.ID] >= beat {
			answered++
		}
	}
	return 2*answered > voters, p.changed
}
