package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// earlier is a disk as it was: it holds what this one does, up to a log entry.
func (l *lab) earlier(disk *stores, last uint64) *stores {
	l.t.Helper()
	copied := newDisk()
	for i := uint64(1); i <= last; i++ {
		var e raft.Log
		if err := disk.log.GetLog(i, &e); err != nil {
			l.t.Fatal(err)
		}
		if err := copied.log.StoreLog(&e); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, key := range []string{currentTerm, lastVoteTerm} {
		if value, err := disk.stable.GetUint64([]byte(key)); err == nil {
			copied.stable.SetUint64([]byte(key), value)
		}
	}
	if value, err := disk.stable.Get([]byte(lastVoteFor)); err == nil {
		copied.stable.Set([]byte(lastVoteFor), value)
	}
	return copied
}

// whisper lets a node ask another how far it is, and nothing else passes between them.
type whisper struct {
	Courier
	to *labNode
}

func (w whisper) Attest(ctx context.Context, to armor.NodeID, revision uint64) (armor.Attestation, error) {
	if to == w.to.cfg.Node {
		return w.to.Attest(revision)
	}
	return w.Courier.Attest(ctx, to, revision)
}

// forgetsByRollback commits a revocation on two of three voters, sets the disk of one of
// them back, kills the other, and reports whether the third and it then lead on without the
// revocation.
func forgetsByRollback(t *testing.T, mistake func(*mistakes)) (forgot bool) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		leader, back, late := three(l)
		l.eventually("all are as far", func() bool { return late.lastEntry() == leader.lastEntry() && back.lastEntry() == leader.lastEntry() })
		before := leader.lastEntry().index
		l.net.Isolate(late.cfg.Node)
		l.do(l.revocation("a"))
		l.eventually("two have it", func() bool { return l.revokedOn(back, "a") })
		l.stop(back)
		l.net.Isolate(late.cfg.Node)
		l.net.Sever(leader.cfg.Node, back.cfg.Node)
		l.net.Heal()
		l.net.Sever(leader.cfg.Node, back.cfg.Node)
		l.net.Sever(leader.cfg.Node, late.cfg.Node)
		back = l.start(back.cfg.Node, l.earlier(back.disk, before), func(c *Config) { c.Courier = whisper{c.Courier, leader} })
		for end := time.Now().Add(recallTime - 10*time.Second); time.Now().Before(end) && !forgot; time.Sleep(100 * time.Millisecond) {
			for _, n := range []*labNode{back, late} {
				_, err := n.tenure()
				forgot = forgot || err == nil && !l.revokedOn(n, "a")
			}
		}
		if forgot {
			return
		}
		l.net.Heal()
		for _, n := range l.all() {
			l.eventually("everybody has it", func() bool { return l.revokedOn(n, "a") && n.AdmitNew("prod") == nil })
		}
	})
	return forgot
}

func TestVoterWhoseDiskWentBackTakesNothingBack(t *testing.T) {
	if forgetsByRollback(t, func(*mistakes) {}) {
		t.Fatal("a leader was elected that lacks an acknowledged revocation")
	}
}

func TestVotingAtOnceIsNoticed(t *testing.T) {
	if !forgetsByRollback(t, func(m *mistakes) { m.voteAtOnce = true }) {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestClusterOfWhichOneIsDeadGoesOnAfterARestart(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		_, dead, again := three(l)
		l.crash(dead)
		disk := again.disk
		l.crash(again)
		l.net.Heal()
		began := time.Now()
		again = l.start(again.cfg.Node, disk, nil)
		l.do(l.revocation("a"))
		l.eventually("it has it", func() bool { return l.revokedOn(again, "a") })
		if took := time.Since(began); took > recallPatience+20*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
