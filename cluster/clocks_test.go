package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// day and year are how far clocks go wrong here.
const (
	day  = 24 * time.Hour
	year = 365 * day
)

func clockReading(d time.Duration) reading { return reading{low: d, high: d + time.Millisecond} }

// Whatever a minority shows, the bounds are what some of the right clocks show.
func TestBoundsOfAQuorumAreThoseOfRightClocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		count := 1 + random.IntN(7)
		wrong := random.IntN(count/2 + count%2) // a minority
		var read []reading
		for i := range count {
			off := time.Duration(random.IntN(5)) * time.Millisecond
			if i < wrong {
				off = time.Duration(random.Int64N(int64(4*year))) - 2*time.Duration(year)
			} else if random.IntN(3) == 0 {
				continue // it is silent
			}
			read = append(read, clockReading(off))
		}
		low, high, ok := quorumBounds(read, count)
		if ok && (low > 5*time.Millisecond || high < 0) {
			t.Fatalf("%d clocks, %d wrong: %s to %s by %v", count, wrong, low, high, read)
		}
	}
}

func TestFewerThanAQuorumAgreeOnNothing(t *testing.T) {
	for _, count := range []int{0, 2, 3, 5} {
		if _, _, ok := quorumBounds([]reading{clockReading(0)}, count); ok {
			t.Errorf("one clock of %d speaks for all", count)
		}
	}
}

func TestEarlierAgreementBindsWhereTheNextOneLeavesRoom(t *testing.T) {
	first := succeed(nil, agreement{low: 10, high: 12})
	wide := succeed(first, agreement{low: -1000, high: 1000}) // one voter is silent, one is wrong
	if wide.floor != 10 || wide.ceiling != 12 {
		t.Errorf("a wide agreement widened the bounds to %d and %d", wide.floor, wide.ceiling)
	}
	moved := succeed(wide, agreement{low: 500, high: 501})
	if moved.floor != 500 || moved.ceiling != 500 {
		t.Errorf("a later majority did not outweigh the earlier one: %d, %d", moved.floor, moved.ceiling)
	}
}

// lead hands leadership to a node as far as it is let, and reports whether it leads.
func (l *lab) lead(to *labNode) bool {
	for range 20 {
		from := l.leader()
		if from == to {
			return true
		}
		from.raft.Load().LeadershipTransferToServer(raft.ServerID(to.cfg.Node), raft.ServerAddress(to.cfg.Node)).Error()
		time.Sleep(500 * time.Millisecond)
	}
	return false
}

// tried makes a change as a client does, and returns what came of it.
func (l *lab) tried(c armor.Command) error {
	r := l.request(c)
	var err error
	for range 60 {
		_, err = l.leader().Propose(l.t.Context(), r)
		if !errors.Is(err, armor.ErrNotLeader) && !errors.Is(err, armor.ErrUncertain) && !errors.Is(err, armor.ErrNoQuorum) {
			return err
		}
		time.Sleep(time.Second)
	}
	return err
}

// wrongClocks is every way in which a clock of a minority goes wrong here.
func wrongClocks() []time.Duration {
	return []time.Duration{2 * time.Second, -2 * time.Second, time.Hour, -time.Hour, day, -day, year, -year}
}

func environment(name string) armor.Command {
	return armor.PutEnvironment{Environment: armor.Environment{Name: name}}
}

// minorityGoesWrong moves the clocks of a minority, the leader's among them, for some
// seconds and back, with or without a change meanwhile, and holds the cluster to its word.
func minorityGoesWrong(l *lab, off time.Duration, nodes int, meanwhile bool) (broken []error) {
	wrong := l.all()[:nodes/2]
	l.lead(wrong[0])
	check := func(what string, err error) {
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, n := range wrong {
		n.clock.wallOff.Store(int64(off))
	}
	for range 8 {
		time.Sleep(500 * time.Millisecond)
		check("while it is wrong", l.clocksHold())
		for _, n := range l.all()[nodes/2:] {
			check("a right node while another is wrong", errors.Join(n.AdmitNew("prod"), n.KeepLive("prod")))
		}
	}
	if meanwhile {
		check("a revocation meanwhile", l.tried(l.revocation("meanwhile")))
		check("a change meanwhile", l.tried(environment("meanwhile")))
	}
	for _, n := range wrong {
		n.clock.wallOff.Store(0)
	}
	for range 10 {
		time.Sleep(500 * time.Millisecond)
		check("after it was put right", l.clocksHold())
	}
	check("a revocation afterwards", l.tried(l.revocation("afterwards")))
	check("a change afterwards", l.tried(environment("afterwards")))
	for _, n := range l.all() {
		check("no lease afterwards", errors.Join(n.AdmitNew("prod"), n.KeepLive("prod")))
		check("status afterwards", statusIsGood(n))
	}
	return broken
}

func statusIsGood(n *labNode) error {
	if s := n.Status(); !s.ClockCompared || s.ClockSkew.Abs() > 100*time.Millisecond {
		return fmt.Errorf("node %s says %s (%v)", s.Node, s.ClockSkew, s.ClockCompared)
	}
	return nil
}

// clocksHold returns what is wrong with the validity clock of any node, and with log time.
func (l *lab) clocksHold() error {
	const room = 20 * time.Millisecond
	for _, n := range l.all() {
		if off := time.Until(n.Now()); off.Abs() > room {
			return fmt.Errorf("node %s judges certificates by a clock that is %s off", n.cfg.Node, off)
		}
		if off := time.Until(mustState(n).Time); off > room {
			return fmt.Errorf("log time is %s ahead on node %s", off, n.cfg.Node)
		}
	}
	return nil
}

func TestClocksOfAMinorityMoveNothing(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		for _, off := range wrongClocks() {
			for _, meanwhile := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d nodes %s %v", nodes, off, meanwhile), func(t *testing.T) {
					inBubble(t, nodes, func(t *testing.T, l *lab) {
						for _, err := range minorityGoesWrong(l, off, nodes, meanwhile) {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

func TestBelievingOneClockIsNoticed(t *testing.T) {
	bubble(t, func(l *lab) { l.mistakes.believeOneClock = true }, 3, func(t *testing.T, l *lab) {
		if len(minorityGoesWrong(l, time.Hour, 3, true)) == 0 {
			t.Fatal("the test above would not notice the mistake")
		}
	})
}

func TestProposingByOnesOwnClockIsNoticed(t *testing.T) {
	prepare := func(l *lab) { l.mistakes.ownClockInLog = true }
	bubble(t, prepare, 3, func(t *testing.T, l *lab) {
		if len(minorityGoesWrong(l, 2*time.Second, 3, true)) == 0 {
			t.Fatal("the test above would not notice the mistake")
		}
	})
}

func TestNodeWhoseClockIsFarOffDoesNotLead(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		n.clock.wallOff.Store(int64(2 * time.Hour))
		if l.lead(n) {
			t.Error("it was given leadership")
		}
		n.clock.wallOff.Store(0)
		time.Sleep(3 * time.Second)
		if !l.lead(n) {
			t.Error("it is not given leadership after its clock was put right")
		}
		n.clock.wallOff.Store(-int64(time.Hour))
		l.eventually("it hands leadership over", func() bool { return l.leader() != n })
		l.crash(leader)
		time.Sleep(10 * time.Second)
		if l.get("n3").raft.Load().State() == raft.Leader && l.get("n3") == n {
			t.Error("it was elected")
		}
	})
}

func TestLeaderTellsItsOwnTimeAndNotWhatItWasTold(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		leader.clock.wallOff.Store(-int64(3 * time.Second))
		answer, err := leader.Answer(t.Context(), question(n.cfg.Node, n.epoch))
		if off := time.Until(answer.Time); err != nil || off > -2*time.Second {
			t.Fatalf("it told a time that is %s off (%v)", off, err)
		}
	})
}

// A voter is down, and of the two left one is wrong: nobody can tell which. Nobody is
// locked out for that.
func TestTwoClocksThatContradictEachOtherLockNobodyOut(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		gone := l.follower()
		l.crash(gone)
		l.leader().clock.wallOff.Store(int64(time.Hour))
		time.Sleep(30 * time.Second)
		for _, n := range l.all() {
			if off := time.Until(n.Now()); off.Abs() > 20*time.Millisecond {
				t.Errorf("node %s forgot what three agreed on: it is %s off", n.cfg.Node, off)
			}
		}
		if err := l.tried(l.revocation("a")); err != nil {
			t.Error(err)
		}
		if err := l.tried(environment("b")); err != nil {
			t.Error(err)
		}
	})
}

// olderClocks is a courier to nodes that do not tell the time.
type olderClocks struct {
	labCourier
	older []armor.NodeID
}

func (c olderClocks) Clock(ctx context.Context, to armor.NodeID) (time.Time, error) {
	if slices.Contains(c.older, to) {
		return time.Time{}, armor.ErrInvalid
	}
	return c.labCourier.Clock(ctx, to)
}

func TestOlderNodesThatDoNotTellTheTimeHinderNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.leader()
		l.stop(n)
		n = l.start(n.cfg.Node, n.disk, func(c *Config) {
			c.Courier = olderClocks{labCourier{l, n.cfg.Node}, []armor.NodeID{"n1", "n2", "n3"}}
		})
		time.Sleep(5 * time.Second)
		if !l.lead(n) {
			t.Fatal("it cannot lead")
		}
		if err := l.tried(environment("a")); err != nil {
			t.Fatal(err)
		}
	})
}

// poisoned commits an entry that carries log time into the future, as a release that
// believed the leader's clock could.
func poisoned(l *lab, by time.Duration) {
	l.t.Helper()
	leader := l.leader()
	state := mustState(leader)
	r := leader.own(armor.PruneExpired{At: state.Time})
	r.Expires = time.Now().Add(by).Add(time.Minute)
	entry, err := fsm.Encode(r, time.Now().Add(by))
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := leader.commit(l.t.Context(), entry); err != nil {
		l.t.Fatal(err)
	}
	if off := time.Until(mustState(leader).Time); off < by-time.Second {
		l.t.Fatalf("log time is only %s ahead", off)
	}
}

func TestPoisonedLogRefusesNoRevocationAndIsMended(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		poisoned(l, 2*year) // the operators' certificates are over by then
		for _, n := range l.all() {
			if off := time.Until(n.Now()); off.Abs() > 20*time.Millisecond {
				t.Errorf("node %s judges certificates by log time, %s off", n.cfg.Node, off)
			}
		}
		if err := l.tried(l.revocation("a")); err != nil {
			t.Errorf("revoke: %v", err)
		}
		if err := l.tried(environment("b")); err == nil {
			t.Error("a change was made in the wrong time: this test proves nothing")
		}
		if err := l.tried(armor.MendTime{From: mustState(l.leader()).Time}); err != nil {
			t.Fatalf("mend: %v", err)
		}
		time.Sleep(armor.RequestWindow)
		if err := l.tried(environment("b")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if err := l.clocksHold(); err != nil {
			t.Error(err)
		}
	})
}

func TestHousekeepingGoesOnInAPoisonedLog(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		poisoned(l, time.Hour)
		leader := l.leader()
		if _, err := leader.ProposeOwn(t.Context(), armor.PruneExpired{At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	})
}
