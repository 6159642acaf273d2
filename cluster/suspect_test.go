package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// enforcedByWordOnly has a stolen key report, once, that its node has enforced all there
// will ever be, lets the node itself hang, and revokes. It reports whether the node was
// believed.
func enforcedByWordOnly(t *testing.T, lie armor.Renewal, mistake func(*mistakes)) (believed bool) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		lie.Node, lie.Epoch, lie.Leased = n.cfg.Node, n.epoch, true
		leader.Answer(t.Context(), lie)
		time.Sleep(time.Minute)
		n.stuck.Store(true)
		result := l.do(l.revocation("a"))
		e := l.await(leader, result, time.Minute)
		believed = nodeOutcome(t, e, n.cfg.Node).Enforced && n.enforced.upTo() < result.Revision
		if seen := leader.Suspicions().Reports; !believed && seen != 1 {
			t.Errorf("%d reports were suspected, and 1 was wrong", seen)
		}
	})
	return believed
}

func TestReportOfWhatIsStillToComeIsRefused(t *testing.T) {
	for name, lie := range map[string]armor.Renewal{
		"enforced":                 {Enforced: 1 << 60},
		"applied":                  {Applied: 1 << 60},
		"applied and enforced":     {Applied: 1 << 60, Enforced: 1 << 60},
		"a little more than there": {Applied: 40, Enforced: 40},
	} {
		t.Run(name, func(t *testing.T) {
			if enforcedByWordOnly(t, lie, func(*mistakes) {}) {
				t.Fatal("the node was reported as enforced, and it was not")
			}
		})
	}
}

func TestBelievingReportsIsNoticed(t *testing.T) {
	if !enforcedByWordOnly(t, armor.Renewal{Applied: 1 << 60, Enforced: 1 << 60}, func(m *mistakes) { m.believeReports = true }) {
		t.Fatal("the test above would not notice the mistake")
	}
}

// forgery answers freshness questions with the stolen key of a node.
type forgery struct {
	stolen armor.NodeID
	term   func() uint64
}

func (f *forgery) answer() armor.Freshness {
	return armor.Freshness{Term: f.term(), Time: time.Now(), Bound: 10 * time.Minute}
}

// servesByForgery cuts a follower off from all but nodes whose keys are stolen, revokes,
// and reports whether the follower serves on a minute after the revocation was complete.
func servesByForgery(t *testing.T, stolen armor.NodeID, mistake func(*mistakes)) (serves bool) {
	t.Helper()
	withNonVoters(t, mistake, func(t *testing.T, l *lab) {
		leader, victim := l.leader(), l.follower()
		victim.forged.Store(&forgery{stolen, func() uint64 { return victim.raft.Load().CurrentTerm() }})
		for _, n := range l.all() {
			if n != victim {
				l.net.Sever(victim.cfg.Node, n.cfg.Node)
			}
		}
		l.await(leader, l.do(l.revocation("a")), time.Minute)
		time.Sleep(time.Minute)
		serves = (victim.KeepLive("prod") == nil || victim.AdmitNew("prod") == nil) && !l.revokedOn(victim, "a")
		if !serves && victim.Suspicions().Answers == 0 {
			t.Error("forged answers came, and none was suspected")
		}
	})
	return serves
}

func TestFreshnessIsTheLeadersWordOnly(t *testing.T) {
	for _, stolen := range []armor.NodeID{"n3", "n4"} { // one that votes, one that does not
		if servesByForgery(t, stolen, func(*mistakes) {}) {
			t.Errorf("with the key of %s a node that is cut off was kept serving", stolen)
		}
	}
}

func TestBelievingAnybodyIsNoticed(t *testing.T) {
	if !servesByForgery(t, "n4", func(m *mistakes) { m.believeAnybody = true }) {
		t.Fatal("the test above would not notice the mistake")
	}
}

// enforcedBesideFirstLife moves the leadership while a node is cut off, begins a second life of
// that node, and revokes. It reports whether the revocation was complete while the first
// life served on.
func enforcedBesideFirstLife(t *testing.T, mistake func(*mistakes)) (served bool) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		old, first := l.leader(), l.follower()
		l.net.Isolate(first.cfg.Node)
		var next *labNode
		for _, n := range l.all() {
			if n != old && n != first {
				next = n
			}
		}
		l.eventually("another leads", func() bool {
			old.raft.Load().LeadershipTransferToServer(raft.ServerID(next.cfg.Node), raft.ServerAddress(next.cfg.Node)).Error()
			_, err := next.tenure()
			return err == nil
		})
		second := question(first.cfg.Node, 12345) // its data elsewhere, and no proof that the first life is over
		_, err := next.Answer(t.Context(), second)
		second.Leased = err == nil || next.cfg.mistakes.inheritLate
		next.Answer(t.Context(), second)
		result := l.do(l.revocation("a"))
		second.Applied, second.Enforced = result.Revision, result.Revision
		if _, err := next.Answer(t.Context(), second); err != nil && !errors.Is(err, armor.ErrConflict) {
			t.Fatal(err)
		}
		e := l.await(next, result, time.Minute)
		served = e.Complete && first.KeepLive("prod") == nil && !l.revokedOn(first, "a")
	})
	return served
}

func TestSecondLifeUnderANewLeaderWaitsForTheFirst(t *testing.T) {
	if enforcedBesideFirstLife(t, func(*mistakes) {}) {
		t.Fatal("a revocation was complete while the first life of a node served on")
	}
}

func TestInheritingLateIsNoticed(t *testing.T) {
	if !enforcedBesideFirstLife(t, func(m *mistakes) { m.inheritLate = true }) {
		t.Fatal("the test above would not notice the mistake")
	}
}
