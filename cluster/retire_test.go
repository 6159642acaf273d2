package cluster

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// revokeAfterEnd ends a node in order, revokes, and returns how long the answer took.
func revokeAfterEnd(t *testing.T, which func(*lab) *labNode, mistake func(*mistakes)) (took time.Duration) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		ended := which(l)
		if err := l.stop(ended); err != nil {
			t.Fatal(err)
		}
		leader := l.leader()
		time.Sleep(2 * time.Second)
		began := time.Now()
		e := l.await(leader, l.do(l.revocation("a")), time.Minute)
		took = time.Since(began)
		if o := nodeOutcome(t, e, ended.cfg.Node); !e.Complete || o.Enforced || o.FencedBy.After(time.Now()) {
			t.Errorf("%+v", e)
		}
	})
	return took
}

func TestNothingWaitsForANodeThatEndedInOrder(t *testing.T) {
	for name, which := range map[string]func(*lab) *labNode{"follower": (*lab).follower, "leader": (*lab).leader} {
		if took := revokeAfterEnd(t, which, func(*mistakes) {}); took > time.Second {
			t.Errorf("a revocation after the end of a %s took %s", name, took)
		}
	}
}

func TestLeavingMuteIsNoticed(t *testing.T) {
	if took := revokeAfterEnd(t, (*lab).follower, func(m *mistakes) { m.leaveMute = true }); took < time.Second {
		t.Fatalf("the test above would not notice the mistake: %s", took)
	}
}

// revokeAfterLateQuestion has a node say its last word while a question of its is under
// way, and revokes. It returns how long the answer took.
func revokeAfterLateQuestion(t *testing.T, mistake func(*mistakes)) (took time.Duration) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		late := n.renewal()
		n.Retire(t.Context())
		if _, err := leader.Answer(t.Context(), late); err == nil && !l.mistakes.hearTheDead {
			t.Error("a life that is over was granted a lease")
		}
		l.crash(n)
		began := time.Now()
		e := l.await(leader, l.do(l.revocation("a")), time.Minute)
		if took = time.Since(began); !e.Complete {
			t.Errorf("%+v", e)
		}
	})
	return took
}

func TestLastWordIsTheLast(t *testing.T) {
	if took := revokeAfterLateQuestion(t, func(*mistakes) {}); took > time.Second {
		t.Errorf("the revocation took %s", took)
	}
}

func TestHearingTheDeadIsNoticed(t *testing.T) {
	if took := revokeAfterLateQuestion(t, func(m *mistakes) { m.hearTheDead = true }); took < time.Second {
		t.Fatalf("the test above would not notice the mistake: %s", took)
	}
}

func TestRetiredNodeServesNobody(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.leader()
		n.Retire(t.Context())
		if n.AdmitNew("prod") == nil || n.KeepLive("prod") == nil {
			t.Fatal("it serves on")
		}
		if l.leader() == n {
			t.Fatal("it leads on")
		}
	})
}

func TestShareOfANodeThatEndedInOrderGoesToTheOthers(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		const budget = 9
		pool := putPool(l, budget)
		ended := l.follower()
		l.eventually("the budget is in use", func() bool { return heldBy(l.all(), pool) == budget })
		ended.holder.mu.Lock()
		ended.holder.held = map[string]int{} // its clients have gone
		ended.holder.mu.Unlock()
		if err := l.stop(ended); err != nil {
			t.Fatal(err)
		}
		l.do(armor.RemoveMember{Node: ended.cfg.Node})
		l.eventually("the others have all of it", func() bool { return heldBy(l.all(), pool) == budget })
	})
}
