package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// staleAt returns when a node's live sessions end, in the bubble's time.
func staleAt(l *lab, n *labNode) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		for n.KeepLive("prod") == nil {
			time.Sleep(time.Millisecond)
		}
		at <- time.Now()
	}()
	return at
}

func TestRevocationIsEnforcedEverywhereAndSaysSo(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		result := l.do(l.revocation("a"))
		e := l.await(l.leader(), result, time.Minute)
		if !e.Complete || len(e.Nodes) != 3 || e.Revision != result.Revision {
			t.Fatalf("%+v", e)
		}
		for _, n := range e.Nodes {
			if !n.Enforced || n.After > 100*time.Millisecond {
				t.Errorf("%+v", n)
			}
		}
	})
}

func TestCutOffFollowerIsStaleBeforeTheRevocationReturns(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n, leader := l.follower(), l.leader()
		l.net.Isolate(n.cfg.Node)
		stale := staleAt(l, n)
		began := time.Now()
		result := l.do(l.revocation("a"))
		e := l.await(leader, result, time.Minute)
		returned := time.Now()
		o := nodeOutcome(t, e, n.cfg.Node)
		if !e.Complete || o.Enforced || o.FencedBy.After(returned) {
			t.Fatalf("%+v", e)
		}
		if at := <-stale; at.After(returned) {
			t.Fatalf("live sessions ended %s after the revocation returned", at.Sub(returned))
		}
		if took := returned.Sub(began); took > stretch(armor.DefaultFreshLive)+time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestAwaitCutShortIsIncomplete(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		n.stuck.Store(true)
		e := l.await(l.leader(), l.do(l.revocation("a")), time.Second)
		o := nodeOutcome(t, e, n.cfg.Node)
		if e.Complete || o.Enforced || !o.FencedBy.After(time.Now()) {
			t.Fatalf("%+v", e)
		}
	})
}

func TestNodeThatHangsInEnforcingDoesNotProlongItsSessions(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		n.stuck.Store(true)
		stale := staleAt(l, n)
		e := l.await(l.leader(), l.do(l.revocation("a")), time.Minute)
		if !e.Complete || nodeOutcome(t, e, n.cfg.Node).Enforced {
			t.Fatalf("%+v", e)
		}
		select {
		case <-stale:
		default:
			t.Fatal("the revocation returned, and a session that should have been cut may go on")
		}
		if err := n.AdmitNew("prod"); err != nil {
			t.Errorf("new sessions are judged by the new state and may begin: %v", err)
		}
	})
}

// question is what a node would ask.
func question(n armor.NodeID, epoch uint64) armor.Renewal {
	return armor.Renewal{Node: n, Epoch: epoch}
}

// withNonVoters is three voters and two nodes that do not vote.
func withNonVoters(t *testing.T, mistake func(*mistakes), test func(*testing.T, *lab)) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		l.admit("n4", false)
		l.admit("n5", false)
		l.settle()
		test(t, l)
	})
}

// answersAfter asks the leader as a node that does not vote, after a cut.
func answersAfter(t *testing.T, l *lab, cut func(leader *labNode)) error {
	t.Helper()
	leader := l.leader()
	time.Sleep(5 * time.Second) // every message so far is answered
	cut(leader)
	ctx, cancel := context.WithTimeout(t.Context(), leader.cfg.Timings.LeaderLease-10*time.Millisecond)
	defer cancel()
	if leader.raft.Load().State() != raft.Leader {
		t.Fatal("the leader noticed too soon for this test")
	}
	_, err := leader.Answer(ctx, question("n4", l.get("n4").epoch))
	return err
}

func cutFromVoters(l *lab) func(*labNode) {
	return func(leader *labNode) {
		for _, n := range l.all() {
			if n != leader && n.cfg.Node != "n4" && n.cfg.Node != "n5" {
				l.net.Sever(leader.cfg.Node, n.cfg.Node)
			}
		}
	}
}

func TestLeaderThatReachesOnlyNonVotersGrantsNothing(t *testing.T) {
	withNonVoters(t, func(*mistakes) {}, func(t *testing.T, l *lab) {
		if err := answersAfter(t, l, cutFromVoters(l)); !errors.Is(err, armor.ErrNoQuorum) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCountingNonVotersIsNoticed(t *testing.T) {
	withNonVoters(t, func(m *mistakes) { m.countNonvoters = true }, func(t *testing.T, l *lab) {
		if err := answersAfter(t, l, cutFromVoters(l)); err != nil {
			t.Fatalf("the test above would not notice the mistake: %v", err)
		}
	})
}

func isolated(l *lab) func(*labNode) {
	return func(leader *labNode) { l.net.Isolate(leader.cfg.Node) }
}

func TestAnswersToEarlierMessagesConfirmNothing(t *testing.T) {
	withNonVoters(t, func(*mistakes) {}, func(t *testing.T, l *lab) {
		if err := answersAfter(t, l, isolated(l)); !errors.Is(err, armor.ErrNoQuorum) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCountingEarlierAnswersIsNoticed(t *testing.T) {
	withNonVoters(t, func(m *mistakes) { m.countStaleAnswers = true }, func(t *testing.T, l *lab) {
		if err := answersAfter(t, l, isolated(l)); err != nil {
			t.Fatalf("the test above would not notice the mistake: %v", err)
		}
	})
}

// revokeAfterRemoval removes a cut-off node, kills the leader, and revokes under the
// next one. It reports whether the removed node could still serve when the revocation
// had returned.
func revokeAfterRemoval(t *testing.T, mistake func(*mistakes)) (served bool) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 5, func(t *testing.T, l *lab) {
		gone := l.follower()
		l.net.Isolate(gone.cfg.Node)
		l.do(armor.RemoveMember{Node: gone.cfg.Node})
		for _, n := range l.all() {
			l.eventually("the removal is known", func() bool {
				state, _ := n.Current()
				return n == gone || !state.Members.Has(string(gone.cfg.Node))
			})
		}
		l.crash(l.leader())
		result := l.do(l.revocation("a"))
		// The dead leader's own bound would hide the mistake; look past it.
		leader := l.leader()
		w := leader.newWait(leader.office.tenure, mustState(leader), result)
		for {
			s := w.t.lives.stand(fenceOf(w, gone.cfg.Node), result.Revision)
			if s.fenced {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		served = gone.KeepLive("prod") == nil
	})
	return served
}

func mustState(n *labNode) *armor.State {
	state, _ := n.Current()
	return state
}

func fenceOf(w *wait, node armor.NodeID) fences {
	for _, f := range w.fences {
		if f.node == node {
			return f
		}
	}
	return fences{node: node}
}

func TestNewLeaderRemembersTheLeaseOfARemovedNode(t *testing.T) {
	if revokeAfterRemoval(t, func(*mistakes) {}) {
		t.Fatal("a removed node still serves after the revocation returned")
	}
}

func TestForgettingRemovedNodesIsNoticed(t *testing.T) {
	if !revokeAfterRemoval(t, func(m *mistakes) { m.forgetTombstones = true }) {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestSecondLifeWaitsForTheFirstOnesLease(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		const clone = 12345
		if _, err := leader.Answer(t.Context(), question(n.cfg.Node, clone)); !errors.Is(err, armor.ErrConflict) {
			t.Fatalf("a second life was granted a lease: %v", err)
		}
		l.net.Isolate(n.cfg.Node)
		stale := staleAt(l, n)
		l.eventually("the second life is granted one", func() bool {
			_, err := leader.Answer(t.Context(), question(n.cfg.Node, clone))
			return err == nil
		})
		granted := time.Now()
		select {
		case at := <-stale:
			// Both clocks run alike here, so the margin for those that do not is left over.
			if margin := granted.Sub(at); margin < stretch(armor.DefaultFreshLive)-armor.DefaultFreshLive {
				t.Fatalf("granted %s after the first life's lease: no margin for clocks that run apart", margin)
			}
		default:
			t.Fatal("both lives may serve")
		}
	})
}

func TestRevocationWaitsForEveryLifeOfANode(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		// A process that was killed and started again at once, without proof.
		l.net.Isolate(n.cfg.Node)
		result := l.do(l.revocation("a"))
		q := question(n.cfg.Node, 12345)
		q.Applied, q.Enforced = result.Revision, result.Revision
		leader.Answer(t.Context(), q)
		e := l.await(leader, result, time.Minute)
		if o := nodeOutcome(t, e, n.cfg.Node); !e.Complete || o.Enforced {
			t.Fatalf("the second life's word was taken for the first's: %+v", e)
		}
		if n.KeepLive("prod") == nil {
			t.Fatal("the first life may still serve")
		}
	})
}

func TestProofThatTheFormerLifeIsOverEndsTheWaitForIt(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		l.crash(n)
		began := time.Now()
		result := l.do(l.revocation("a"))
		q := question(n.cfg.Node, 12345)
		q.Succeeds, q.Applied, q.Enforced = n.epoch, result.Revision, result.Revision
		if _, err := leader.Answer(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		e := l.await(leader, result, time.Minute)
		if o := nodeOutcome(t, e, n.cfg.Node); !e.Complete || !o.Enforced {
			t.Fatalf("%+v", e)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestHealthyNodesConfirmAtOnceAfterALeaderChange(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		if err := l.stop(l.leader()); err != nil { // hands over
			t.Fatal(err)
		}
		leader := l.leader()
		l.eventually("leases of the new leader", func() bool {
			for _, n := range l.all() {
				if q, _, ok := leader.office.tenure.lives.lastReport(n.cfg.Node); !ok || !q.Leased {
					return false
				}
			}
			return true
		})
		result := l.do(l.revocation("a"))
		e := l.await(leader, result, time.Second)
		for _, n := range l.all() {
			if o := nodeOutcome(t, e, n.cfg.Node); !o.Enforced {
				t.Errorf("%+v", o)
			}
		}
	})
}

func TestShorterBoundHoldsOnlyAfterTheOldGrantsEnd(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		long := armor.Environment{Name: "prod", FreshNew: 5 * time.Second, FreshLive: 60 * time.Second}
		l.do(armor.PutEnvironment{Environment: long})
		time.Sleep(2 * time.Second) // granted under the long bound
		n := l.follower()
		l.net.Isolate(n.cfg.Node)
		stale := staleAt(l, n)
		short := long
		short.FreshLive = 15 * time.Second
		l.do(armor.PutEnvironment{Environment: short})
		e := l.await(l.leader(), l.do(l.revocation("a")), 5*time.Minute)
		if !e.Complete {
			t.Fatalf("%+v", e)
		}
		select {
		case <-stale:
		default:
			t.Fatal("the revocation returned while the cut-off node still went by the long bound")
		}
	})
}

func TestNewLeaderRemembersTheLongestBoundThereWas(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		long := armor.Environment{Name: "prod", FreshNew: 5 * time.Second, FreshLive: 60 * time.Second}
		l.do(armor.PutEnvironment{Environment: long})
		time.Sleep(2 * time.Second)
		n := l.follower()
		l.net.Isolate(n.cfg.Node)
		stale := staleAt(l, n)
		short := long
		short.FreshLive = 15 * time.Second
		l.do(armor.PutEnvironment{Environment: short})
		if err := l.leader().raft.Load().LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
		e := l.await(l.leader(), l.do(l.revocation("a")), 5*time.Minute)
		if !e.Complete {
			t.Fatalf("%+v", e)
		}
		select {
		case <-stale:
		default:
			t.Fatal("the new leader forgot under which bound the old one had granted")
		}
	})
}

func TestLongerBoundDoesNotStretchAGrantGivenBefore(t *testing.T) {
	clock := &labClock{began: time.Now()}
	g := &grant{bound: 15 * time.Second, asked: clock.Boot() - 16*time.Second, ahead: ahead(clock.Wall(), clock.Boot())}
	if g.holds(armor.Moment{Boot: clock.Boot(), Wall: clock.Wall()}, 60*time.Second) {
		t.Fatal("a grant of 15 s holds after 16 s")
	}
}

func TestNewSessionsEndBeforeLiveOnesWhenTheLeaderIsGone(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		l.net.Isolate(n.cfg.Node)
		time.Sleep(armor.DefaultFreshNew + time.Second)
		if err := n.AdmitNew("prod"); !errors.Is(err, armor.ErrStale) {
			t.Errorf("new: %v", err)
		}
		if err := n.KeepLive("prod"); err != nil {
			t.Errorf("live: %v", err)
		}
		time.Sleep(armor.DefaultFreshLive)
		if err := n.KeepLive("prod"); !errors.Is(err, armor.ErrStale) {
			t.Errorf("live: %v", err)
		}
		l.net.Heal()
		l.settle()
	})
}

func TestJumpOfTheWallClockEndsTheLeaseUntilItIsRenewed(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		n := l.leader()
		n.clock.wallOff.Store(int64(time.Second))
		if err := n.AdmitNew("prod"); !errors.Is(err, armor.ErrStale) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(2 * n.cfg.Timings.Renew)
		if err := n.AdmitNew("prod"); err != nil {
			t.Fatalf("after the next renewal: %v", err)
		}
	})
}

func TestClockSetBackRevivesNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		before := time.Now()
		n.clock.wallOff.Store(-int64(24 * time.Hour))
		time.Sleep(time.Second)
		if now := n.Now(); now.Before(before) {
			t.Fatalf("validity time fell to %s, from %s", now, before)
		}
	})
}

func TestStrangersAndRemovedNodesAreGrantedNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader := l.leader()
		if _, err := leader.Answer(t.Context(), question("n9", 1)); !errors.Is(err, armor.ErrDenied) {
			t.Errorf("stranger: %v", err)
		}
		gone := l.follower()
		l.do(armor.RemoveMember{Node: gone.cfg.Node})
		time.Sleep(armor.DefaultFreshLive + time.Second)
		if err := gone.KeepLive("prod"); !errors.Is(err, armor.ErrStale) {
			t.Errorf("removed: %v", err)
		}
		l.eventually("it leaves raft's configuration", func() bool { return leader.voters() == 2 })
		l.eventually("its tombstone is buried", func() bool { return mustState(leader).Tombstones.Len() == 0 })
	})
}

func TestRenewalOutOfBoundsIsRefused(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		for name, q := range map[string]armor.Renewal{
			"no epoch":       {Node: "n1"},
			"succeeds self":  {Node: "n1", Epoch: 7, Succeeds: 7},
			"no node":        {Epoch: 7},
			"negative count": {Node: "n1", Epoch: 7, Closed: -1},
		} {
			if _, err := l.leader().Answer(t.Context(), q); !errors.Is(err, armor.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// What is saved must have all that was acknowledged: a proof from before the question says
// nothing about what came since.
func TestCatchUpTakesAProofThatWasAskedForSince(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		result := l.do(l.revocation("a"))
		if err := n.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, _ := n.Current(); s.Revision < result.Revision {
			t.Errorf("caught up at revision %d, and %d was acknowledged before", s.Revision, result.Revision)
		}
		if err := l.leader().CatchUp(t.Context()); err != nil {
			t.Errorf("the leader: %v", err)
		}
		l.net.Isolate(n.cfg.Node)
		if err := n.AdmitNew("prod"); err != nil {
			t.Fatal("the proof that it had before is over too soon for this test", err)
		}
		if err := n.CatchUp(t.Context()); !errors.Is(err, armor.ErrNoQuorum) {
			t.Errorf("a node that is cut off has caught up: %v", err)
		}
	})
}
