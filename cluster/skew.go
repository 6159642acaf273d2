package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// skewWarning is from which difference on operators are told.
const skewWarning = time.Second

// DefaultClockSkew is how far a node's clock may be from the voters' while it leads.
const DefaultClockSkew = 5 * time.Second

// clockState is how far our clock is off, in words that a log line is written for.
type clockState int

const (
	clockGood clockState = iota
	clockOff             // from skewWarning on
	clockFar             // so far that this node does not lead
)

// skew is how far our wall clock is ahead of the voters' median, by the boot clock until
// now. ok is false while there is no fresh agreement.
func (n *Node) skew() (d time.Duration, ok bool) {
	a, ok := n.freshAgreement()
	if !ok {
		return 0, false
	}
	return n.ownAhead() - (a.low + (a.high-a.low)/2), true
}

// beyond is how far our wall clock is outside of what a majority of the voters' clocks
// says; 0 while there is no fresh agreement, and for each of two that contradict each other.
func (n *Node) beyond() time.Duration {
	a, ok := n.freshAgreement()
	if !ok {
		return 0
	}
	own := n.ownAhead()
	return own - within(own, a.low, a.high)
}

func (n *Node) freshAgreement() (a *agreement, ok bool) {
	a = n.clocks.agreed.Load()
	return a, a != nil && n.fresh(a, n.cfg.Clock.Boot())
}

// fresh reports whether an agreement's ceiling still binds at a boot instant.
func (n *Node) fresh(a *agreement, boot time.Duration) bool {
	return boot-a.at < agreementKept*n.cfg.Timings.Clocks
}

// mayLead returns why this node must not lead, by its clock; nil when it may.
func (n *Node) mayLead() error {
	off := n.beyond()
	if off.Abs() <= n.cfg.ClockSkew || n.cfg.mistakes.believeOneClock {
		return nil
	}
	return fmt.Errorf("the clock of node %s is %s what a majority of the voters' clocks shows, and may be %s off while it leads: set it right",
		n.cfg.Node, skewWords(off), n.cfg.ClockSkew)
}

func skewWords(off time.Duration) string {
	if off < 0 {
		return (-off).Round(time.Millisecond).String() + " behind"
	}
	return off.Round(time.Millisecond).String() + " ahead of"
}

// judgeClock acts on what a round of questions has shown: people are told once of each
// change, and a leader whose clock is far off hands leadership over.
func (n *Node) judgeClock(ctx context.Context) {
	n.noteClock()
	r := n.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return
	}
	if err := n.mayLead(); err != nil {
		n.handOver(ctx, r, err)
	}
}

// noteClock logs each change of how our clock stands. Only watchClocks calls it.
func (n *Node) noteClock() {
	d, known := n.skew()
	state := clockGood
	switch {
	case known && n.mayLead() != nil:
		state = clockFar
	case d.Abs() >= skewWarning:
		state = clockOff
	}
	if !known || state == n.clockStands {
		return
	}
	n.clockStands = state
	log := n.cfg.Logger.With(armor.KeySkew, d.Seconds())
	switch state {
	case clockGood:
		log.Info("the clock agrees with the voters' again")
	case clockOff:
		log.Warn("the clock differs from the voters': look at this machine's time service")
	case clockFar:
		log.Warn("the clock is so far from the voters' that this node does not lead: set it right")
	}
}

// handOver gives leadership to the voter whose clock is nearest to what is agreed; the
// next round tries again.
func (n *Node) handOver(ctx context.Context, r *raft.Raft, why error) {
	n.cfg.Logger.Warn("handing leadership over", armor.KeyErr, why)
	for _, voter := range n.bestClocks() {
		future := r.LeadershipTransferToServer(raft.ServerID(voter), raft.ServerAddress(voter))
		err := n.answered(ctx, future)
		if err == nil || ctx.Err() != nil || r.State() != raft.Leader {
			return
		}
		n.cfg.Logger.Info("leadership was not taken over", armor.KeyPeer, string(voter), armor.KeyErr, err)
	}
}

// bestClocks are the other voters whose clocks are within what may lead, the best first.
func (n *Node) bestClocks() []armor.NodeID {
	a, ok := n.freshAgreement()
	if !ok {
		return nil
	}
	off := map[armor.NodeID]time.Duration{}
	for _, v := range n.voterIDs() {
		r, told := n.clocks.of(v, n.cfg.Clock.Boot()-readingsKept*n.cfg.Timings.Clocks)
		if v == n.cfg.Node || !told || r.silent {
			continue
		}
		middle := r.low + (r.high-r.low)/2
		if d := (middle - within(middle, a.low, a.high)).Abs(); d <= n.cfg.ClockSkew {
			off[v] = d
		}
	}
	var best []armor.NodeID
	for v := range off {
		best = append(best, v)
	}
	slices.SortFunc(best, func(x, y armor.NodeID) int { return cmp.Or(cmp.Compare(off[x], off[y]), cmp.Compare(x, y)) })
	return best
}

// timeToPropose is the time that an entry carries: what a majority of the voters' clocks
// has reached, never our own clock alone. A node whose clock is far off proposes nothing,
// but for what only takes access away: that is refused for no clock's sake.
func (n *Node) timeToPropose(ctx context.Context, c armor.Command) (time.Time, error) {
	if n.cfg.mistakes.ownClockInLog {
		return n.cfg.Clock.Wall(), nil
	}
	always := fsm.TakesAway(c)
	if err := n.mayLead(); err != nil && !always {
		return time.Time{}, fmt.Errorf("%w: %w", armor.ErrNoQuorum, err)
	}
	timer := time.NewTimer(n.cfg.Timings.RenewTimeout)
	defer timer.Stop()
	select {
	case <-n.clocks.known:
	case <-timer.C:
	case <-ctx.Done():
	}
	if now, known := n.agreedTime(); known {
		return now, nil
	}
	if always {
		state, _ := n.machine.Current()
		return state.Time, nil
	}
	return time.Time{}, fmt.Errorf("%w: a majority of the voters has not said yet what time it is", armor.ErrNoQuorum)
}

// agreedTime is what a majority of the voters' clocks has reached.
func (n *Node) agreedTime() (time.Time, bool) {
	a := n.clocks.agreed.Load()
	if a == nil {
		return time.Time{}, false
	}
	return at(a.floor, n.cfg.Clock.Boot()), true
}
