package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Clocks are compared by how far they are ahead of this node's own boot clock, which is
// never set: so a reading stays true while our wall clock jumps.

// reading is what a voter's wall clock showed, at some instant between question and
// answer: it is between low and high ahead of our boot clock.
type reading struct {
	low, high time.Duration
	at        time.Duration // our boot clock when the answer came
	silent    bool          // the voter's release does not tell; nothing else is set
}

// agreement is what a majority of the voters' clocks says, as far as each has answered.
// At least a majority shows low or later, and at least a majority shows high or earlier:
// whichever minority is wrong, one of each majority is right.
type agreement struct {
	low, high time.Duration // ahead of our boot clock
	// floor and ceiling are the same, narrowed by earlier agreements that they do not
	// contradict: while a voter is silent, what was agreed on before still binds.
	floor, ceiling time.Duration
	own            time.Duration // how far our wall clock was ahead of our boot clock
	at             time.Duration // boot clock
}

// clocks is this node's table of the voters' clocks. Each node asks by itself: no other
// node's word moves what it believes.
type clocks struct {
	agreed atomic.Pointer[agreement]

	mu       sync.Mutex // guards all below
	readings map[armor.NodeID]reading
	known    chan struct{} // closed with the first agreement
}

func (c *clocks) init() {
	c.readings = map[armor.NodeID]reading{}
	c.known = make(chan struct{})
}

// readingsKept is how many rounds of questions a reading counts for.
const readingsKept = 5

// agreementKept is how many rounds without a new agreement its ceiling is believed.
const agreementKept = 15

func (c *clocks) read(voter armor.NodeID, r reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readings[voter] = r
}

// of returns a voter's reading, if it is not older than a boot instant.
func (c *clocks) of(voter armor.NodeID, since time.Duration) (r reading, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok = c.readings[voter]
	return r, ok && r.at >= since
}

// quorumBounds returns what a majority of count clocks says, of which some were read. ok is
// false while fewer than a majority were.
func quorumBounds(read []reading, count int) (low, high time.Duration, ok bool) {
	quorum := count/2 + 1
	if count == 0 || len(read) < quorum {
		return 0, 0, false
	}
	lows, highs := make([]time.Duration, 0, len(read)), make([]time.Duration, 0, len(read))
	for _, r := range read {
		lows, highs = append(lows, r.low), append(highs, r.high)
	}
	slices.Sort(lows)
	slices.Sort(highs)
	return lows[len(lows)-quorum], highs[quorum-1], true
}

// succeed returns the agreement that follows another one, or none.
func succeed(before *agreement, a agreement) *agreement {
	a.floor, a.ceiling = a.low, a.high
	if before != nil {
		a.floor = within(before.floor, a.low, a.high)
		a.ceiling = within(before.ceiling, a.low, a.high)
	}
	return &a
}

func within[T cmp.Ordered](v, low, high T) T { return max(low, min(v, high)) }

// WallClock is this node's own, whatever others' say: what it answers to whoever asks
// for the time.
func (n *Node) WallClock() time.Time { return n.cfg.Clock.Wall() }

// watchClocks asks the voters for the time again and again, and at once when our own
// clock has jumped.
func (n *Node) watchClocks(ctx context.Context) {
	for {
		n.askClocks(ctx, n.cfg.Timings.RenewTimeout)
		n.judgeClock(ctx)
		for end := n.cfg.Clock.Boot() + n.cfg.Timings.Clocks; ; {
			if !sleep(ctx, clockLook) {
				return
			}
			if n.cfg.Clock.Boot() >= end || n.clockJumped() {
				break
			}
		}
	}
}

// clockLook is how often our own clock is looked at between the questions.
const clockLook = 100 * time.Millisecond

// clockJumped reports whether our wall clock went another way than our boot clock since
// the last agreement.
func (n *Node) clockJumped() bool {
	a := n.clocks.agreed.Load()
	return a != nil && (n.ownAhead()-a.own).Abs() > clockJump
}

func (n *Node) ownAhead() time.Duration { return ahead(n.cfg.Clock.Wall(), n.cfg.Clock.Boot()) }

// clockPatience is how long a renewal waits for the voters to say what time it is.
const clockPatience = 300 * time.Millisecond

// askClocks asks every other voter once, at the same time, and waits for their answers or
// until they are late.
func (n *Node) askClocks(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	n.agree()
	n.askOthers(n.voterIDs(), func(v armor.NodeID) {
		if n.askClock(ctx, v) {
			n.agree()
		}
	})
}

func (n *Node) askClock(ctx context.Context, voter armor.NodeID) bool {
	asked := n.cfg.Clock.Boot()
	shown, err := n.cfg.Courier.Clock(ctx, voter)
	answered := n.cfg.Clock.Boot()
	switch {
	case errors.Is(err, armor.ErrInvalid):
		n.clocks.read(voter, reading{silent: true, at: answered})
	case err != nil:
		return false
	default:
		n.clocks.read(voter, readingOf(shown, asked, answered))
	}
	return true
}

// readingOf is what an answer says: the clock showed that time, between question and answer.
func readingOf(shown time.Time, asked, answered time.Duration) reading {
	return reading{low: ahead(shown, answered), high: ahead(shown, asked), at: answered}
}

// voterIDs are the voters by Raft's latest configuration.
func (n *Node) voterIDs() []armor.NodeID {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	return votersAmong(servers(r))
}

// agree takes stock of the table. Voters of a release that does not tell the time are left
// out of the count: a majority of the others still holds one that is right.
func (n *Node) agree() {
	now, own := n.cfg.Clock.Boot(), n.ownAhead()
	since := now - readingsKept*n.cfg.Timings.Clocks
	var read []reading
	count := 0
	for _, v := range n.voterIDs() {
		r, ok := n.clocks.of(v, since)
		if v == n.cfg.Node {
			r, ok = reading{low: own, high: own}, true
		}
		if ok && r.silent {
			continue
		}
		count++
		if ok {
			read = append(read, r)
		}
	}
	if low, high, ok := quorumBounds(read, count); ok {
		n.clocks.settle(agreement{low: low, high: high, own: own, at: now}, n.logAhead())
	}
}

// logAhead is how far log time is ahead of our boot clock: a majority agreed once that it
// was that late.
func (n *Node) logAhead() time.Duration {
	state, _ := n.machine.Current()
	if state.Time.IsZero() {
		return 0
	}
	return ahead(state.Time, n.cfg.Clock.Boot())
}

// settle puts an agreement in force. The first one remembers what the log does.
func (c *clocks) settle(a agreement, log time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.agreed.Load()
	next := succeed(before, a)
	if before == nil {
		next.floor = within(log, next.low, next.high)
		defer close(c.known)
	}
	c.agreed.Store(next)
}

// Now is the clock by which certificates are judged: our own, kept between what a majority
// of the voters' clocks says, carried on by the boot clock. So a clock that is set back
// revives nothing, and one that is set ahead ends nothing. While no majority has said
// anything it is our own.
func (n *Node) Now() time.Time {
	m := n.Moment()
	a := n.clocks.agreed.Load()
	if n.cfg.mistakes.believeOneClock {
		return n.nowByOneWord(m)
	}
	if a == nil {
		return m.Wall
	}
	own := max(ahead(m.Wall, m.Boot), a.floor)
	if n.fresh(a, m.Boot) {
		own = min(own, a.ceiling)
	}
	return at(own, m.Boot)
}

// at is the time of a clock that is so far ahead of the boot clock.
func at(ahead, boot time.Duration) time.Time { return time.Unix(0, int64(ahead+boot)) }

// nowByOneWord is a planted mistake: the latest time that any one node has shown.
func (n *Node) nowByOneWord(m armor.Moment) time.Time {
	latest := ahead(m.Wall, m.Boot)
	n.clocks.mu.Lock()
	defer n.clocks.mu.Unlock()
	for _, r := range n.clocks.readings {
		latest = max(latest, r.high)
	}
	return at(latest, m.Boot)
}
