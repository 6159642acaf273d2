package cluster

//lint:file-ignore SA1019 the older fields that name a sender

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// forgery is a snapshot of the lab's cluster with an operator whose key is a thief's.
func (l *lab) forgery(c armor.Cluster) []byte {
	l.t.Helper()
	real := l.key
	defer func() { l.key = real }()
	member := armor.Member{ID: "n1", Certificate: l.certificate("n1", labName.NodeIdentity("n1")), PeerAddress: "n1:7432", Voter: true}
	entry, err := fsm.Encode(l.get("n1").own(armor.Bootstrap{Cluster: c, Operator: l.operator(), Member: member}), time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	m := fsm.New()
	if r, err := m.Apply(1<<19, 1, entry); err != nil || r.Err != nil {
		l.t.Fatal(err, r.Err)
	}
	return l.snapshotOf(m)
}

func (l *lab) snapshotOf(m *fsm.Machine) []byte {
	l.t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, snapshotHeader{snapshotMagic, int64(armor.DefaultFreshLive)}); err != nil {
		l.t.Fatal(err)
	}
	if _, err := m.Snapshot().WriteTo(&b); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

// install sends a node a snapshot with another voter's key.
func (l *lab) install(victim *labNode, snapshot, configuration []byte) error {
	l.t.Helper()
	var from *labNode
	for _, n := range l.all() {
		if n != victim && n != l.leader() {
			from = n
		}
	}
	thief := newThief(l, from.cfg.Node)
	defer thief.Close()
	as := []byte(from.cfg.Node)
	if configuration == nil {
		configuration = raft.EncodeConfiguration(raft.Configuration{Servers: servers(from.raft.Load())})
	}
	return thief.InstallSnapshot(raft.ServerID(victim.cfg.Node), raft.ServerAddress(victim.cfg.Node), &raft.InstallSnapshotRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: as, Addr: as}, SnapshotVersion: 1, Term: 1000,
		Leader: as, LastLogIndex: 1 << 20, LastLogTerm: 999, Configuration: configuration, ConfigurationIndex: 1, Size: int64(len(snapshot)),
	}, &raft.InstallSnapshotResponse{}, bytes.NewReader(snapshot))
}

func (l *lab) operatorOn(n *labNode) armor.Digest {
	state, _ := n.Current()
	o, _ := state.Operators.Get("ada")
	return o.Certificate.Key
}

// elected makes a lab where whoever votes is taken for the leader: what is shown is what a
// node does with a snapshot, whoever sent it.
func elected(l *lab) { l.mistakes.believeVoters = true }

func TestSnapshotThatNoOtherVoterHasIsRefused(t *testing.T) {
	bubble(t, elected, 3, func(t *testing.T, l *lab) {
		victim := l.follower()
		was := l.operatorOn(victim)
		if err := l.install(victim, l.forgery(labName), nil); err == nil || !strings.Contains(err.Error(), errUnproven.Error()) {
			t.Errorf("answered %v", err)
		}
		time.Sleep(time.Second)
		if l.operatorOn(victim) != was || victim.failed.cause() != nil {
			t.Fatalf("the operator is the thief's, or the node ended: %v", victim.failed.cause())
		}
		if all, err := victim.disk.snapshots.List(); err != nil || len(all) != 0 {
			t.Errorf("something of it is on the disk: %v, %v", all, err)
		}
		l.do(l.revocation("a"))
		l.eventually("the node goes on", func() bool { return l.revokedOn(victim, "a") })
	})
}

func TestNodeThatTakesAnySnapshotServesAThiefsState(t *testing.T) {
	bubble(t, func(l *lab) { elected(l); l.mistakes.takeSnapshots = true }, 3, func(t *testing.T, l *lab) {
		victim := l.follower()
		was := l.operatorOn(victim)
		if err := l.install(victim, l.forgery(labName), nil); err != nil {
			t.Fatal(err)
		}
		if l.operatorOn(victim) == was {
			t.Fatal("the forgery does nothing")
		}
	})
}

func TestSnapshotThatCannotBeOursIsRefusedBeforeAnybodyIsAsked(t *testing.T) {
	bubble(t, elected, 3, func(t *testing.T, l *lab) {
		victim := l.follower()
		l.eventually("it has caught up", func() bool { return victim.machine.LastCommand() == l.leader().machine.LastCommand() })
		old := l.snapshotOf(victim.machine)
		l.do(l.revocation("a"))
		l.eventually("it knows", func() bool { return l.revokedOn(victim, "a") })
		foreign := labName
		foreign.ID = "fedcba9876543210fedcba9876543210"
		damaged := l.snapshotOf(victim.machine)
		damaged[len(damaged)/2] ^= 1
		for name, c := range map[string]struct {
			snapshot, configuration []byte
			says                    string
		}{
			"older":                   {old, nil, "this node has"},
			"another cluster":         {l.forgery(foreign), nil, "is of cluster"},
			"damaged":                 {damaged, nil, "damaged"},
			"no snapshot":             {[]byte("nothing of ours, and long enough"), nil, "another program"},
			"unreadable servers":      {old, []byte{0xc1, 0xff}, "configuration"},
			"nothing":                 {nil, nil, "EOF"},
			"unreadable servers, too": {old, []byte("\xdf\xff\xff\xff\xff"), "configuration"},
		} {
			if err := l.install(victim, c.snapshot, c.configuration); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: answered %v", name, err)
			}
			if victim.failed.cause() != nil || !l.revokedOn(victim, "a") {
				t.Fatalf("%s: %v", name, victim.failed.cause())
			}
		}
	})
}

// forgetful is a courier by which nobody knows of revisions before one.
type forgetful struct {
	Courier
	before *uint64
}

func (c forgetful) Attest(ctx context.Context, to armor.NodeID, revision uint64) (armor.Attestation, error) {
	if revision < *c.before {
		return armor.Attestation{}, nil
	}
	return c.Courier.Attest(ctx, to, revision)
}

func TestLeaderMakesASnapshotThatVotersCanProve(t *testing.T) {
	small := func(l *lab) {
		l.timings = Timings{TrailingLogs: 1, SnapshotThreshold: 4, SnapshotInterval: 500 * time.Millisecond}
	}
	bubble(t, small, 3, func(t *testing.T, l *lab) {
		leader, n := l.leader(), l.follower()
		l.crash(n)
		l.net.Heal()
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			l.do(l.revocation(name))
		}
		l.eventually("the log is cut", func() bool {
			first, err := leader.disk.log.FirstIndex()
			return err == nil && first > 1+n.machine.LastCommand()
		})
		for _, other := range l.all() { // no snapshot but on demand from here on
			other.raft.Load().ReloadConfig(raft.ReloadableConfig{
				TrailingLogs: 1, SnapshotInterval: time.Hour, SnapshotThreshold: 1 << 30,
				HeartbeatTimeout: other.cfg.Timings.Heartbeat, ElectionTimeout: other.cfg.Timings.Election,
			})
		}
		time.Sleep(2 * time.Second)
		before := l.do(l.revocation("i")).Revision
		again := l.start(n.cfg.Node, n.disk, func(c *Config) { c.Courier = forgetful{c.Courier, &before} })
		l.eventually("it catches up", func() bool { return l.revokedOn(again, "i") && again.AdmitNew("prod") == nil })
	})
}

func TestWitnessesAreAMajorityOrAllOthers(t *testing.T) {
	names := []armor.NodeID{"n1", "n2", "n3", "n4", "n5"}
	for voters, want := range []int{0, 0, 1, 2, 3, 3} {
		if got := witnesses(names[:voters], "n1"); got != want {
			t.Errorf("of %d voters, one itself: %d, not %d", voters, got, want)
		}
	}
	if got := witnesses(names[:1], "n9"); got != 1 {
		t.Errorf("of one voter, who is another: %d", got)
	}
	if got := witnesses(names[:3], "n9"); got != 2 {
		t.Errorf("of three voters, all others: %d", got)
	}
}

func TestIncomingSnapshotLeavesNoFileBehind(t *testing.T) {
	n := bareNode()
	n.dir = &dataDir{path: t.TempDir()}
	body, err := n.spool(strings.NewReader("a state, and more"), 7)
	if err != nil {
		t.Fatal(err)
	}
	var read bytes.Buffer
	if _, err := read.ReadFrom(&untilEnd{body}); err != nil || read.String() != "a state" {
		t.Fatalf("read %q: %v", &read, err)
	}
	if left, err := os.ReadDir(n.dir.path); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := n.spool(strings.NewReader("short"), 7); err == nil {
		t.Error("a short one is taken")
	}
	if _, err := n.spool(strings.NewReader(""), maxIncoming+1); err == nil {
		t.Error("one of any size is taken")
	}
}
