package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// clockJump is how far the wall clock may move against the boot clock before a proof
// of freshness no longer counts: the machine was paused or restored, or its clock was
// set.
const clockJump = 500 * time.Millisecond

// grant is one answer to "how much must I know?". It is good from the instant the
// question was sent.
type grant struct {
	index uint64        // what must be known
	bound time.Duration // it ends at asked+bound for every environment
	asked time.Duration // boot clock
	ahead time.Duration // wall clock less boot clock when it was asked
}

// lease is what a node may still do by its grants. A grant lets new sessions in once
// its index is published here. It lets live ones go on once that index is *enforced*
// here: so a node whose enforcement hangs does not prolong the sessions it should
// have cut, and the leader need wait only for grants given before the change.
type lease struct {
	admit, live atomic.Pointer[grant]
	latest      atomic.Pointer[grant] // also one that does not hold yet

	mu      sync.Mutex // guards waiting
	waiting []*grant   // in the order they were asked for
}

// maxWaiting bounds the grants of a node that lags behind.
const maxWaiting = 64

// add takes a grant; it counts once settle sees what it demands.
func (l *lease) add(g *grant) {
	l.latest.Store(g)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == maxWaiting {
		l.waiting = l.waiting[:maxWaiting-1]
	}
	l.waiting = append(l.waiting, g)
}

// settle puts the newest grants in force that the published and the enforced revision
// satisfy.
func (l *lease) settle(published, enforced uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, g := range slices.Backward(l.waiting) {
		if g.index <= published && later(g, l.admit.Load()) {
			l.admit.Store(g)
		}
		if g.index <= published && g.index <= enforced {
			if later(g, l.live.Load()) {
				l.live.Store(g)
			}
			l.waiting = slices.Clone(l.waiting[i+1:])
			return
		}
	}
}

func later(g, old *grant) bool { return old == nil || g.asked > old.asked }

// holds reports whether a grant still runs for an environment whose bound is given.
func (g *grant) holds(m armor.Moment, bound time.Duration) bool {
	if g == nil {
		return false
	}
	jump := ahead(m.Wall, m.Boot) - g.ahead
	return m.Boot-g.asked < min(bound, g.bound) && jump.Abs() <= clockJump
}

func ahead(wall time.Time, boot time.Duration) time.Duration {
	return time.Duration(wall.UnixNano()) - boot
}

// age is for people: negative when there is no proof.
func (l *lease) age(c Clock) time.Duration {
	g := l.admit.Load()
	if g == nil {
		return -1
	}
	return c.Boot() - g.asked
}

// AdmitNew returns nil when a new session may begin in the environment, else ErrStale.
func (n *Node) AdmitNew(environment string) error {
	fresh, _ := n.bounds(environment)
	if n.serves() && n.lease.admit.Load().holds(n.Moment(), fresh) {
		return nil
	}
	return n.stale(environment, fresh)
}

// KeepLive returns nil when live sessions of the environment may go on, else ErrStale.
func (n *Node) KeepLive(environment string) error { return n.KeepLiveAt(environment, n.Moment()) }

// KeepLiveAt is KeepLive by a reading of the clocks that was just taken. It reads a few
// atomics.
func (n *Node) KeepLiveAt(environment string, m armor.Moment) error {
	_, live := n.bounds(environment)
	if n.serves() && n.lease.live.Load().holds(m, live) {
		return nil
	}
	return n.stale(environment, live)
}

const (
	// catchUpPatience is how long CatchUp waits: some renewals, and an election.
	catchUpPatience = 5 * time.Second
	catchUpPoll     = 10 * time.Millisecond
)

// CatchUp returns once this node has published all that was committed when it was called, as
// a proof of freshness says that was asked for since. ErrNoQuorum when none comes in time.
func (n *Node) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpPatience)
	defer cancel()
	since := n.cfg.Clock.Boot()
	n.askSoon()
	tick := time.NewTicker(catchUpPoll)
	defer tick.Stop()
	for {
		if g := n.lease.admit.Load(); g != nil && g.asked >= since && n.failed.cause() == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: node %s has no proof that it knows all that is committed", armor.ErrNoQuorum, n.cfg.Node)
		}
	}
}

func (n *Node) serves() bool { return n.failed.cause() == nil && !n.retired.Load() }

// Moment reads the clocks.
func (n *Node) Moment() armor.Moment {
	return armor.Moment{Boot: n.cfg.Clock.Boot(), Wall: n.cfg.Clock.Wall()}
}

func (n *Node) bounds(environment string) (fresh, live time.Duration) {
	state, _ := n.machine.Current()
	e, _ := state.Environments.Get(environment)
	return bounds(e)
}

func (n *Node) stale(environment string, bound time.Duration) error {
	return fmt.Errorf("%w: no proof within %s for environment %q", armor.ErrStale, bound, environment)
}

// leased reports whether any grant of ours still runs, used or not: while it does, no
// leader grants another life of this node anything.
func (n *Node) leased() bool {
	g := n.lease.latest.Load()
	return g != nil && n.cfg.Clock.Boot()-g.asked < g.bound
}

// enforced is how far every session here conforms.
type enforced struct {
	revision atomic.Uint64

	mu     sync.Mutex // guards closed
	closed int        // sessions closed that the leader has not been told of
}

func (e *enforced) upTo() uint64 { return e.revision.Load() }

func (e *enforced) raise(revision uint64, closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed += closed
	if revision > e.revision.Load() {
		e.revision.Store(revision)
	}
}

func (e *enforced) report() (revision uint64, closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.revision.Load(), e.closed
}

func (e *enforced) told(closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed -= closed
}

// Enforced says that every session here conforms to revision, and how many were closed
// for it. The leader is told at once.
func (n *Node) Enforced(revision uint64, closed int) {
	n.enforced.raise(revision, closed)
	n.lease.settle(n.machine.LastCommand(), n.enforced.upTo())
	n.askSoon()
}

func (n *Node) askSoon() {
	select {
	case n.ask <- struct{}{}:
	default:
	}
}

// renewals asks the leader again and again, until the node retires.
func (n *Node) renewals(ctx context.Context) {
	tick := time.NewTicker(n.cfg.Timings.Renew)
	defer tick.Stop()
	for turn := 0; !n.retired.Load(); turn++ {
		if n.clocks.agreed.Load() == nil || n.clockJumped() {
			n.askClocks(ctx, clockPatience) // what the new proof lets in is judged by an agreed time
		}
		n.renew(ctx, turn)
		select {
		case <-tick.C:
		case <-n.ask:
		case <-ctx.Done():
			return
		}
	}
}

// renew asks the node that seems to lead and, if it names another as the leader, that one.
func (n *Node) renew(ctx context.Context, turn int) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timings.RenewTimeout)
	defer cancel()
	to, ok := n.whomToAsk(turn)
	if !ok {
		return
	}
	err := n.redirected(to, func(to armor.NodeID) error { return n.question(ctx, to) })
	if err != nil && ctx.Err() == nil {
		n.cfg.Logger.Debug("no proof of freshness", armor.KeyPeer, string(to), armor.KeyErr, err)
	}
}

// redirected asks a node and, if it names another one as the leader, that one.
func (n *Node) redirected(to armor.NodeID, ask func(to armor.NodeID) error) error {
	err := ask(to)
	elsewhere, ok := errors.AsType[*armor.NotLeaderError](err)
	if !ok || elsewhere.Leader == "" || elsewhere.Leader == to {
		return err
	}
	n.heardOfLeader(to, elsewhere.Leader)
	return ask(elsewhere.Leader)
}

// whomToAsk is the leader; while none is known, each member and seed in turn.
func (n *Node) whomToAsk(turn int) (armor.NodeID, bool) {
	if leader, ok := n.Leader(); ok {
		return leader, true
	}
	others := slices.Clone(n.cfg.Seeds)
	state, _ := n.machine.Current()
	for m := range state.Members.Values() {
		others = append(others, m.ID)
	}
	others = slices.DeleteFunc(others, func(id armor.NodeID) bool { return id == n.cfg.Node })
	if len(others) == 0 {
		return "", false
	}
	return others[turn%len(others)], true
}

// question asks one node and takes its answer. Only the leader can know what is fresh:
// whoever else answers is believed no more than that he names somebody to ask.
func (n *Node) question(ctx context.Context, to armor.NodeID) error {
	q := n.renewal()
	g := &grant{asked: n.cfg.Clock.Boot()}
	g.ahead = ahead(n.cfg.Clock.Wall(), g.asked)
	answer, err := n.carry(ctx, to, q)
	if err != nil {
		return err
	}
	if answer.Copy {
		return n.isCopy(ctx, to, answer.Term)
	}
	if err := n.fromLeader(to, answer); err != nil {
		return err
	}
	n.enforced.told(q.Closed)
	if answer.Differs {
		n.diverged(to, q.Mark, answer.Mark)
		return fmt.Errorf("%w: node %s has another", ErrDiverged, to)
	}
	g.index, g.bound = answer.Index, answer.Bound
	n.clocks.read(to, readingOf(answer.Time, g.asked, n.cfg.Clock.Boot()))
	n.lease.add(g)
	n.lease.settle(n.machine.LastCommand(), n.enforced.upTo())
	return nil
}

// isCopy ends this node if it is the elected leader who says that another process runs as it:
// the leader may be unknown here, since it sends its messages to the other one.
func (n *Node) isCopy(ctx context.Context, from armor.NodeID, term uint64) error {
	if term < n.raft.Load().CurrentTerm() {
		return fmt.Errorf("%w: node %q speaks of term %d, which is over", armor.ErrDenied, from, term)
	}
	if err := n.elected(ctx, from, term); err != nil {
		return err
	}
	state, _ := n.machine.Current()
	m, _ := state.Members.Get(string(n.cfg.Node))
	err := fmt.Errorf("%w: node %s is running and serves, and was last at %s, as leader %s says; this data directory, %s, is a copy of its: %s",
		ErrCopy, n.cfg.Node, m.PeerAddress, from, n.cfg.DataDir, seeCopy)
	n.failed.fail(err)
	return err
}

// fromLeader refuses an answer unless it is from the node that Raft, here and now, takes
// for the leader of the present term.
func (n *Node) fromLeader(from armor.NodeID, answer armor.Freshness) error {
	leader, _ := n.Leader()
	term := n.raft.Load().CurrentTerm()
	now := n.cfg.Clock.Boot()
	if leader == from && answer.Term == term || n.cfg.mistakes.believeAnybody {
		n.suspicions.pretends(from, now, false)
		return nil
	}
	if leader != from && n.suspicions.pretends(from, now, true) {
		n.suspect(&n.suspicions.answers, from, "a node that does not lead answered as the leader does")
	}
	return fmt.Errorf("%w: node %q answered for term %d, and the leader of term %d is %q", armor.ErrDenied, from, answer.Term, term, leader)
}

func (n *Node) carry(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	if to == n.cfg.Node {
		return n.Answer(ctx, q)
	}
	return n.cfg.Courier.Renew(ctx, to, q)
}

func (n *Node) renewal() armor.Renewal {
	q := armor.Renewal{
		Node: n.cfg.Node, Epoch: n.epoch, Draining: n.cfg.Draining(), Serving: n.cfg.Serving(), Leased: n.leased(), Level: fsm.MaxLevel,
		PeerAddress: n.cfg.PeerAddress, ClientAddress: n.cfg.ClientAddress, OpsAddress: n.cfg.OpsAddress,
	}
	q.Enforced, q.Closed = n.enforced.report()
	q.Mark = n.machine.Mark() // read after what is enforced, so that it is no less
	q.Applied = q.Mark.Revision
	if n.dir != nil {
		q.Succeeds = n.dir.succeeds
	}
	q.Held, q.HeldAt = n.held()
	q.Backends = n.backends()
	q.Uses = n.witness.uses(n)
	return q
}
