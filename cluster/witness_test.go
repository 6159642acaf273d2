package cluster

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// replaying makes a lab whose nodes replay their log: a snapshot at their end would hide what
// is done to it.
func replaying(l *lab) { l.mistakes.replayAll = true }

// forger restarts a follower whose log somebody has changed with care: every checksum
// holds.
func (l *lab) forger(change func(*Config)) *labNode {
	l.t.Helper()
	n := l.follower()
	l.do(l.revocation("a"))
	l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
	l.stop(n)
	l.alter(n.disk, true)
	l.net.Heal()
	return l.start(n.cfg.Node, n.disk, change)
}

func TestFollowerOfAnotherHistoryEndsAndNobodyElse(t *testing.T) {
	bubble(t, replaying, 3, func(t *testing.T, l *lab) {
		leader := l.leader()
		n := l.forger(nil)
		<-n.done
		if !errors.Is(n.err, ErrDiverged) || strings.Count(n.err.Error(), "history") != 2 {
			t.Fatalf("ended by %v", n.err)
		}
		if n.AdmitNew("prod") == nil {
			t.Error("it admits")
		}
		time.Sleep(time.Minute)
		if l.leader() != leader || leader.failed.cause() != nil || leader.Status().Divergences == 0 {
			t.Errorf("the leader: %v, %+v", leader.failed.cause(), leader.Status())
		}
	})
}

func TestNodeThatComparesNothingServesAnotherHistory(t *testing.T) {
	bubble(t, func(l *lab) { replaying(l); l.mistakes.trustMarks = true }, 3, func(t *testing.T, l *lab) {
		n := l.forger(nil)
		l.eventually("it serves", func() bool { return n.AdmitNew("prod") == nil })
		if l.revokedOn(n, "a") {
			t.Fatal("its log was not changed")
		}
	})
}

// gate holds a node's questions back while it is closed.
type gate struct {
	Courier
	closed atomic.Bool
}

func (g *gate) Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	if g.closed.Load() {
		return armor.Freshness{}, armor.ErrUnavailable
	}
	return g.Courier.Renew(ctx, to, q)
}

func (g *gate) Attest(ctx context.Context, to armor.NodeID, revision uint64) (armor.Attestation, error) {
	if g.closed.Load() {
		return armor.Attestation{}, armor.ErrUnavailable
	}
	return g.Courier.Attest(ctx, to, revision)
}

func TestLeaderOfAnotherHistoryEndsAndNoFollower(t *testing.T) {
	bubble(t, replaying, 3, func(t *testing.T, l *lab) {
		g := &gate{}
		g.closed.Store(true)
		n := l.forger(func(c *Config) { g.Courier, c.Courier = c.Courier, g })
		l.eventually("it has caught up", func() bool { return n.machine.LastCommand() == l.leader().machine.LastCommand() })
		id := raft.ServerID(n.cfg.Node)
		l.eventually("it leads", func() bool {
			l.leader().raft.Load().LeadershipTransferToServer(id, raft.ServerAddress(id)).Error()
			return n.raft.Load().State() == raft.Leader
		})
		g.closed.Store(false)
		<-n.done
		if !errors.Is(n.err, ErrDiverged) {
			t.Fatalf("ended by %v", n.err)
		}
		l.net.Heal()
		if leader := l.leader(); leader == n {
			t.Fatal("it leads")
		}
		for _, other := range l.all() {
			if other != n && other.failed.cause() != nil {
				t.Errorf("%s ended by %v", other.cfg.Node, other.failed.cause())
			}
		}
	})
}

// liar is a leader's courier, and answers, that call everybody's state another one.
type liar struct{ Courier }

func (c liar) Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	answer, err := c.Courier.Renew(ctx, to, q)
	return armor.Freshness{Term: answer.Term, Differs: true, Mark: armor.Mark{Revision: q.Applied, Chain: armor.Digest{9}}}, err
}

func TestOneNodesWordEndsNobody(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		l.stop(n)
		l.net.Heal()
		n = l.start(n.cfg.Node, n.disk, func(c *Config) { c.Courier = liar{c.Courier} })
		time.Sleep(time.Minute)
		if cause := n.failed.cause(); cause != nil || n.Status().Divergences == 0 {
			t.Fatalf("ended by %v: %+v", cause, n.Status())
		}
		if n.AdmitNew("prod") == nil {
			t.Error("it admits although the leader grants it nothing")
		}
	})
}

func TestTwoNodesThatDifferGoOnWithoutALeaseForEither(t *testing.T) {
	bubble(t, replaying, 2, func(t *testing.T, l *lab) {
		l.forger(nil)
		time.Sleep(time.Minute)
		for _, n := range l.all() {
			if cause := n.failed.cause(); cause != nil || n.AdmitNew("prod") == nil {
				t.Errorf("%s: ended by %v, or it admits", n.cfg.Node, cause)
			}
		}
	})
}
