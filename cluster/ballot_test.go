package cluster

//lint:file-ignore SA1019 the older fields that name a sender are filled in, as raft does

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// three are a leader and two followers, the second of whose keys is stolen.
func three(l *lab) (leader, victim, stolen *labNode) {
	leader, victim = l.leader(), l.follower()
	for _, n := range l.all() {
		if n != leader && n != victim {
			stolen = n
		}
	}
	return leader, victim, stolen
}

// stolenVoter sends a voter and the leader every kind of message with the key of another voter,
// and returns which were believed and how many terms have gone by since.
func stolenVoter(t *testing.T, mistake func(*mistakes)) (believed []string, terms uint64) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, victim, stolen := three(l)
		thief := newThief(l, stolen.cfg.Node)
		defer thief.Close()
		before := leader.raft.Load().CurrentTerm()
		for _, to := range []*labNode{victim, leader} {
			for kind, send := range thief.messages(stolen.cfg.Node, to.cfg.Node) {
				send()
				time.Sleep(time.Second)
				if to.raft.Load().CurrentTerm() != before {
					believed = append(believed, kind)
				}
			}
		}
		terms = l.leader().raft.Load().CurrentTerm() - before
		if len(believed) == 0 && l.leader() != leader {
			t.Error("another leads")
		}
	})
	return believed, terms
}

func TestKeyOfAVoterDoesNotMakeALeader(t *testing.T) {
	if believed, terms := stolenVoter(t, func(*mistakes) {}); len(believed) != 0 || terms != 0 {
		t.Fatalf("believed %q, and %d terms went by", believed, terms)
	}
}

func TestBelievingVotersIsNoticed(t *testing.T) {
	if believed, _ := stolenVoter(t, func(m *mistakes) { m.believeVoters = true }); len(believed) == 0 {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestElectionIsProvedToWhoWasNotThere(t *testing.T) {
	inBubble(t, 5, func(t *testing.T, l *lab) {
		sleeper := l.follower()
		l.net.Isolate(sleeper.cfg.Node)
		l.crash(l.leader())
		next := l.leader()
		l.net.Heal()
		l.eventually("the node that was cut off follows whom it did not vote for", func() bool {
			leader, _ := sleeper.Leader()
			return leader == next.cfg.Node && sleeper.KeepLive("prod") == nil
		})
		term := next.raft.Load().CurrentTerm()
		if got := sleeper.Ballot(term); got.Leader != next.cfg.Node {
			t.Fatalf("it tells others %+v", got)
		}
		if err := sleeper.elected(t.Context(), sleeper.cfg.Node, term); !errors.Is(err, armor.ErrDenied) {
			t.Fatalf("a second leader of one term: %v", err)
		}
	})
}

// termsEnded is how many terms one node's answers end in five minutes of trying.
func termsEnded(t *testing.T, mistake func(*mistakes)) (ended int) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, _, stolen := three(l)
		for range 3000 {
			if leader.mayRaise(stolen.cfg.Node, 5, 6) == nil {
				ended++
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return ended
}

func TestOneNodesAnswersEndFewTerms(t *testing.T) {
	if ended := termsEnded(t, func(*mistakes) {}); ended > 10 {
		t.Errorf("in five minutes one node's answers have ended %d terms", ended)
	}
}

func TestBelievingTermsIsNoticed(t *testing.T) {
	if ended := termsEnded(t, func(m *mistakes) { m.believeTerms = true }); ended <= 10 {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestLeaderGoesOnThroughAnswersOfATermFarAhead(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, _, stolen := three(l)
		if err := leader.mayRaise("n9", 5, math.MaxUint64); !errors.Is(err, armor.ErrDenied) {
			t.Errorf("the last term there can be: %v", err)
		}
		for range 10 {
			leader.mayRaise(stolen.cfg.Node, 5, 6)
		}
		time.Sleep(5 * time.Minute)
		if err := leader.mayRaise(stolen.cfg.Node, 5, 6); err != nil {
			t.Errorf("after a time of quiet: %v", err)
		}
	})
}

// replacesApplied has an elected leader send another entry in the place of one that was
// applied, and returns what the follower said and whether it believed the next message.
func replacesApplied(t *testing.T, mistake func(*mistakes)) (err, next error) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, victim, _ := three(l)
		done := l.do(l.revocation("a"))
		l.eventually("it arrives", func() bool { return l.revokedOn(victim, "a") })
		m := &raft.AppendEntriesRequest{
			RPCHeader: leader.transport.header(), Leader: []byte(leader.cfg.Node), Term: done.Term,
			PrevLogEntry: done.Revision - 1, PrevLogTerm: done.Term,
			Entries: []*raft.Log{{Index: done.Revision, Term: done.Term - 1, Type: raft.LogCommand}},
		}
		err = victim.transport.judge(t.Context(), leader.cfg.Node, raft.RPC{Command: m})
		m.Entries = nil
		next = victim.transport.judge(t.Context(), leader.cfg.Node, raft.RPC{Command: m})
	})
	return err, next
}

func TestWhatWasAppliedIsNotReplaced(t *testing.T) {
	err, next := replacesApplied(t, func(*mistakes) {})
	if !errors.Is(err, armor.ErrDenied) || !errors.Is(next, armor.ErrDenied) {
		t.Fatalf("replaced: %v; after it: %v", err, next)
	}
}

func TestReplacingWhatWasAppliedIsNoticed(t *testing.T) {
	if err, _ := replacesApplied(t, func(m *mistakes) { m.overwrite = true }); err != nil {
		t.Fatalf("the test above would not notice the mistake: %v", err)
	}
}

func TestSnapshotOlderThanWhatIsInForceIsRefused(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, victim, _ := three(l)
		done := l.do(l.revocation("a"))
		l.eventually("it arrives", func() bool { return l.revokedOn(victim, "a") })
		m := &raft.InstallSnapshotRequest{
			RPCHeader: leader.transport.header(), Leader: []byte(leader.cfg.Node), Term: done.Term, LastLogIndex: done.Revision - 1, LastLogTerm: done.Term,
		}
		if err := victim.transport.judge(t.Context(), leader.cfg.Node, raft.RPC{Command: m}); !errors.Is(err, armor.ErrDenied) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestOfficeIsHandedOverToWhomTheLeaderNames(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, victim, other := three(l)
		to := raft.ServerID(other.cfg.Node)
		if err := leader.raft.Load().LeadershipTransferToServer(to, raft.ServerAddress(to)).Error(); err != nil {
			t.Fatal(err)
		}
		l.eventually("it leads", func() bool { return l.leader() == other })
		if seen := victim.Suspicions().Messages; seen != 0 {
			t.Errorf("%d messages of an orderly change were suspected", seen)
		}
	})
}
