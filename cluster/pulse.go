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
	senders map[raft.ServerID]*sender
	ended   bool
	running sync.WaitGroup
}

// sender is the goroutine that sends one node its pulses.
type sender struct {
	wake chan struct{}
	stop chan struct{}
}

func newPulse(n *Node, t *tenure) *pulse {
	return &pulse{
		node: n, t: t, want: make(chan struct{}, 1), heard: map[raft.ServerID]uint64{},
		changed: make(chan struct{}), senders: map[raft.ServerID]*sender{},
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
	for id, c := range p.senders {
		if !present[id] {
			close(c.stop)
			delete(p.senders, id)
		}
	}
}

func (p *pulse) wakeLocked(s raft.Server) {
	c := p.senders[s.ID]
	if c == nil {
		c = &sender{wake: make(chan struct{}, 1), stop: make(chan struct{})}
		p.senders[s.ID] = c
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
	for id, c := range p.senders {
		close(c.stop)
		delete(p.senders, id)
	}
	p.mu.Unlock()
	p.running.Wait()
}

// serve sends one server its pulses.
func (p *pulse) serve(c *sender, s raft.Server) {
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
	if err := n.transport.appendOnce(s.ID, s.Address, request, &answer); err != nil {
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
