package cluster

//lint:file-ignore SA1019 the older fields that name a sender must be judged too

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// stolenKey sends a voter messages of the given kinds over connections of n4, which
// does not vote, in its own name and in the leader's. It returns which of them were
// answered and whether the voter's term moved.
func stolenKey(t *testing.T, mistake func(*mistakes), kinds ...string) (believed []string, moved bool) {
	t.Helper()
	withNonVoters(t, mistake, func(t *testing.T, l *lab) {
		leader, victim := l.leader(), l.follower()
		thief := newThief(l, "n4")
		defer thief.Close()
		before := victim.raft.Load().CurrentTerm()
		for _, name := range []armor.NodeID{"n4", leader.cfg.Node} {
			messages := thief.messages(name, victim.cfg.Node)
			for _, kind := range kinds {
				if messages[kind]() == nil {
					believed = append(believed, kind+" as "+string(name))
				}
			}
		}
		moved = victim.raft.Load().CurrentTerm() > before+1
	})
	return believed, moved
}

// thief sends Raft messages under one node's certificate.
type thief struct{ *raft.NetworkTransport }

func newThief(l *lab, from armor.NodeID) *thief {
	return &thief{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newOutgoing(l.net.Host(from), from), MaxPool: 1, Timeout: time.Second,
		Logger: newLibraryLog(discardLog(), "thief"), MsgpackUseNewTimeFormat: true,
	})}
}

// messages are those of a leader or candidate called name, of a term far ahead.
func (f *thief) messages(name, to armor.NodeID) map[string]func() error {
	const term = 1000
	id, address := raft.ServerID(to), raft.ServerAddress(to)
	as := []byte(name)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: as, Addr: as}
	return map[string]func() error{
		"append": func() error {
			return f.AppendEntries(id, address, &raft.AppendEntriesRequest{
				RPCHeader: header, Term: term, Leader: as, PrevLogEntry: 1, PrevLogTerm: 1,
			}, &raft.AppendEntriesResponse{})
		},
		"heartbeat": func() error {
			return f.AppendEntries(id, address, &raft.AppendEntriesRequest{RPCHeader: header, Term: term, Leader: as}, &raft.AppendEntriesResponse{})
		},
		"vote": func() error {
			return f.RequestVote(id, address, &raft.RequestVoteRequest{
				RPCHeader: header, Term: term, Candidate: as, LastLogIndex: 1 << 20, LastLogTerm: term, LeadershipTransfer: true,
			}, &raft.RequestVoteResponse{})
		},
		"snapshot": func() error {
			return f.InstallSnapshot(id, address, &raft.InstallSnapshotRequest{
				RPCHeader: header, SnapshotVersion: 1, Term: term, Leader: as, Size: 4,
			}, &raft.InstallSnapshotResponse{}, bytes.NewReader([]byte("lies")))
		},
		"timeout now": func() error {
			return f.TimeoutNow(id, address, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
		},
	}
}

func TestOneStolenNodeKeyIsNotTheCluster(t *testing.T) {
	believed, moved := stolenKey(t, func(*mistakes) {}, "append", "heartbeat", "vote", "snapshot", "timeout now")
	if len(believed) != 0 || moved {
		t.Fatalf("a voter believed a node that does not vote: %q, its term moved: %v", believed, moved)
	}
}

func TestBelievingHeadersIsNoticed(t *testing.T) {
	if believed, moved := stolenKey(t, func(m *mistakes) { m.trustHeaders = true }, "append", "vote"); len(believed) == 0 || !moved {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestVotersSpeakOnlyForThemselves(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		victim, leader := l.follower(), l.leader()
		var voter *labNode
		for _, n := range l.all() {
			if n != victim && n != leader {
				voter = n
			}
		}
		judge := func(m raft.WithRPCHeader) error {
			return victim.transport.judge(t.Context(), voter.cfg.Node, raft.RPC{Command: m})
		}
		named := func(name armor.NodeID) raft.RPCHeader { return raft.RPCHeader{ID: []byte(name), Addr: []byte(name)} }
		own, other := named(voter.cfg.Node), named(leader.cfg.Node)
		if err := judge(&raft.AppendEntriesRequest{RPCHeader: own, Leader: own.ID}); err != nil {
			t.Errorf("a voter was refused its own word: %v", err)
		}
		for name, m := range map[string]raft.WithRPCHeader{
			"header of another":    &raft.AppendEntriesRequest{RPCHeader: other, Leader: own.ID},
			"leader of another":    &raft.AppendEntriesRequest{RPCHeader: own, Leader: other.ID},
			"candidate of another": &raft.RequestVoteRequest{RPCHeader: own, Candidate: other.ID},
			"snapshot of another":  &raft.InstallSnapshotRequest{RPCHeader: own, Leader: other.ID},
			"no header":            &raft.AppendEntriesRequest{Leader: own.ID},
		} {
			if judge(m) == nil {
				t.Errorf("%s: believed", name)
			}
		}
	})
}

func TestNodesThatSleptThroughAChangeOfVotersFindTheNewLeader(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		sleeper := l.follower()
		l.net.Isolate(sleeper.cfg.Node)
		fresh := l.admit("n4", true)
		l.net.Sever(fresh.cfg.Node, sleeper.cfg.Node)
		l.eventually("the new node votes", func() bool { return l.leader().votes(l.leader().raft.Load(), "n4") })
		l.eventually("the new node leads", func() bool {
			leader := l.leader()
			if leader.cfg.Node != "n4" {
				leader.raft.Load().LeadershipTransferToServer("n4", "n4").Error()
			}
			return l.leader().cfg.Node == "n4"
		})
		if sleeper.knows("n4") {
			t.Fatal("it knows the new voter, so this test shows nothing")
		}
		l.net.Heal()
		l.eventually("the sleeper follows", func() bool { return sleeper.KeepLive("prod") == nil && sleeper.knows("n4") })
	})
}

func TestBeliefInAVouchedLeaderEnds(t *testing.T) {
	var v reminder
	v.add("n9", 10*time.Second)
	if !v.has("n9", 9*time.Second) || v.has("n9", 10*time.Second) || v.has("n8", 0) {
		t.Fatal("wrong")
	}
	for i := range 200 {
		v.add(nodeName(i), time.Hour)
	}
	if n := len(slices.Collect(maps.Keys(v.until))); n > 65 {
		t.Fatalf("remembers %d", n)
	}
}
