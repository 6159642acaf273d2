package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

func TestNodesAdmittedByTokenBecomeVotersOnceTheyHaveCaughtUp(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader := l.leader()
		if got := leader.voters(); got != 3 {
			t.Fatalf("%d voters", got)
		}
		for _, n := range l.all() {
			if s := n.Status(); s.Revision != leader.machine.LastCommand() || s.Role == "non-voter" || s.Leader != leader.cfg.Node {
				t.Errorf("status of %s: %+v", n.cfg.Node, s)
			}
		}
	})
}

func TestNonVoterStaysOneWhenAdmittedAsOne(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		n := l.admit("n2", false)
		l.settle()
		if role := n.Status().Role; role != "non-voter" {
			t.Fatalf("role %s", role)
		}
	})
}

func TestAnotherLeaderTakesOverWhenTheLeaderIsCutOff(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		old := l.leader()
		l.net.Isolate(old.cfg.Node)
		began := time.Now()
		l.do(l.revocation("a"))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		if l.revokedOn(old, "a") {
			t.Error("the old leader cannot know")
		}
		l.net.Heal()
		l.eventually("the old leader knows", func() bool { return l.revokedOn(old, "a") })
		want := l.leader().machine.Mark()
		l.eventually("equal histories", func() bool {
			return old.machine.Mark() == want
		})
	})
}

func TestProposalOfACutOffLeaderIsUncertainAndNeverSilentlyLost(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		old := l.leader()
		l.net.Isolate(old.cfg.Node)
		r := l.request(l.revocation("a"))
		_, err := old.Propose(t.Context(), r)
		if !errors.Is(err, armor.ErrUncertain) {
			t.Fatalf("got %v", err)
		}
		result, err := l.leader().Propose(t.Context(), r)
		if err != nil || result.Repeated {
			t.Fatalf("the retry: %+v, %v", result, err)
		}
		l.net.Heal()
		l.eventually("one history", func() bool { return l.revokedOn(old, "a") })
	})
}

func TestProposalElsewhereNamesTheLeader(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		_, err := l.follower().Propose(t.Context(), l.request(l.revocation("a")))
		var not *armor.NotLeaderError
		if !errors.As(err, &not) || not.Leader != l.leader().cfg.Node {
			t.Fatalf("got %v", err)
		}
	})
}

func TestWithoutQuorumNothingChanges(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		for _, n := range l.all() {
			l.net.Isolate(n.cfg.Node)
		}
		n := l.get("n1")
		l.eventually("no leader", func() bool { _, known := n.Leader(); return !known })
		_, err := n.Propose(t.Context(), l.request(l.revocation("a")))
		if !errors.Is(err, armor.ErrNoQuorum) || !errors.Is(err, armor.ErrNotLeader) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestRetriedRequestIsAppliedOnceAcrossALeaderChange(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		old := l.leader()
		r := l.request(l.revocation("a"))
		first, err := old.Propose(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		l.crash(old)
		again, err := l.leader().Propose(t.Context(), r)
		if err != nil || !again.Repeated || again.Revision != first.Revision {
			t.Fatalf("first %+v, again %+v, %v", first, again, err)
		}
	})
}

func TestFollowersLearnOfACommitAtOnce(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		time.Sleep(10 * time.Second) // idle
		began := time.Now()
		l.do(l.revocation("a"))
		for _, n := range l.all() {
			l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
		}
		if took := time.Since(began); took >= l.leader().cfg.Timings.Commit {
			t.Errorf("took %s: nobody was nudged", took)
		}
	})
}

func TestStoppingLeaderHandsOver(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		old := l.leader()
		began := time.Now()
		if err := l.stop(old); err != nil {
			t.Fatal(err)
		}
		l.leader()
		if took := time.Since(began); took >= l.get(l.leader().cfg.Node).cfg.Timings.Election {
			t.Errorf("took %s, as an election does", took)
		}
	})
}

func TestRestartedNodeKnowsWhatItKnewAndAdmitsNobodyUntilItHasAsked(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		l.do(l.revocation("a"))
		n := l.follower()
		l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
		l.crash(n)
		l.do(l.revocation("b")) // while it is down
		l.net.Heal()
		for _, other := range l.all() {
			l.net.Sever(n.cfg.Node, other.cfg.Node)
		}
		again := l.start(n.cfg.Node, n.disk, nil)
		time.Sleep(time.Minute)
		if err := again.AdmitNew("prod"); !errors.Is(err, armor.ErrStale) {
			t.Fatalf("admits without a lease: %v", err)
		}
		if err := again.KeepLive("prod"); !errors.Is(err, armor.ErrStale) {
			t.Fatalf("keeps sessions without a lease: %v", err)
		}
		l.net.Heal()
		l.eventually("it serves again", func() bool {
			ok := again.AdmitNew("prod") == nil
			if ok && !(l.revokedOn(again, "a") && l.revokedOn(again, "b")) {
				t.Fatal("serves without knowing every revocation")
			}
			return ok
		})
	})
}

func TestStateThatComesBySnapshotIsPublishedAndEnforced(t *testing.T) {
	small := func(l *lab) {
		l.timings = Timings{TrailingLogs: 1, SnapshotThreshold: 4, SnapshotInterval: 500 * time.Millisecond}
		l.mistakes.backOff = true // else a message with the entry itself waits for the link
	}
	bubble(t, small, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		l.net.Isolate(n.cfg.Node)
		result := l.do(l.revocation("a"))
		for _, name := range []string{"b", "c", "d", "e", "f", "g", "h", "i"} {
			l.do(l.revocation(name))
		}
		l.eventually("the log is cut", func() bool {
			first, err := leader.disk.log.FirstIndex()
			return err == nil && first > result.Revision
		})
		// Messages that carry the entry itself must not arrive once the link is back:
		// those being sent are given up, and those on their way are lost.
		time.Sleep(2 * leader.cfg.Timings.Transport)
		for _, other := range l.all() {
			l.net.Drop(n.cfg.Node, other.cfg.Node)
		}
		if err := n.KeepLive("prod"); err != nil || l.revokedOn(n, "a") {
			t.Fatalf("the follower has no sessions to be cut, or knows already: %v", err)
		}
		l.net.Heal()
		l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
		if _, applied := n.adapter.publishedAt(result.Revision); applied {
			t.Fatal("the entry was applied, so nothing came by snapshot")
		}
		if e := l.await(leader, result, time.Minute); !e.Complete || !nodeOutcome(t, e, n.cfg.Node).Enforced {
			t.Fatalf("not enforced: %+v", e)
		}
	})
}

// brokenLog fails every write once it is told to.
type brokenLog struct {
	*raft.InmemStore
	broken bool
}

var errDisk = errors.New("input/output error")

func (b *brokenLog) StoreLogs(logs []*raft.Log) error {
	if b.broken {
		return errDisk
	}
	return b.InmemStore.StoreLogs(logs)
}

func TestFirstStorageErrorEndsTheNode(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		id := l.follower().cfg.Node
		l.crash(l.get(id))
		l.net.Heal()
		log := &brokenLog{InmemStore: raft.NewInmemStore()}
		n := l.start(id, &stores{log: log, stable: log, snapshots: raft.NewInmemSnapshotStore()}, nil)
		l.settle()
		log.broken = true
		l.do(l.revocation("a"))
		<-n.Failed()
		if err := n.KeepLive("prod"); !errors.Is(err, armor.ErrStale) {
			t.Errorf("serves after its disk failed: %v", err)
		}
		<-n.done
		if !errors.Is(n.err, errDisk) {
			t.Errorf("Run returned %v", n.err)
		}
		if err := n.latch.Set([]byte("k"), nil); !errors.Is(err, errDisk) {
			t.Errorf("a later write succeeded: %v", err)
		}
	})
}

func TestEntryThatCannotBeAppliedEndsTheNode(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		n := l.leader()
		if _, err := n.commit(t.Context(), []byte("no entry of ours")); err == nil {
			t.Fatal("applied")
		}
		<-n.done
		if n.err == nil {
			t.Fatal("Run returned no error")
		}
		if _, err := n.adapter.Snapshot(); err == nil {
			t.Fatal("a snapshot was taken of a state that lacks an entry")
		}
	})
}

// hungLog hangs in a write until it is released.
type hungLog struct {
	*raft.InmemStore
	hang    bool
	release chan struct{}
}

func (h *hungLog) StoreLogs(logs []*raft.Log) error {
	if h.hang {
		<-h.release
	}
	return h.InmemStore.StoreLogs(logs)
}

func TestHungDiskEndsTheNodeAndStatusAnswersMeanwhile(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		id := l.follower().cfg.Node
		l.crash(l.get(id))
		l.net.Heal()
		log := &hungLog{InmemStore: raft.NewInmemStore(), release: make(chan struct{})}
		n := l.start(id, &stores{log: log, stable: log, snapshots: raft.NewInmemSnapshotStore()}, nil)
		l.settle()
		log.hang = true
		began := time.Now()
		l.do(l.revocation("a"))
		if s := n.Status(); s.Node != id || s.Term == 0 {
			t.Errorf("status: %+v", s)
		}
		<-n.done
		if n.err == nil {
			t.Error("Run returned no error")
		}
		if took := time.Since(began); took > n.cfg.Timings.DiskStall+2*settleTime {
			t.Errorf("Run returned after %s", took)
		}
		close(log.release)
	})
}
