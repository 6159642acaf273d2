package cluster

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// TestARemovalThatWouldLeaveNoQuorumIsRefused, with the names of those that do not answer.
func TestARemovalThatWouldLeaveNoQuorumIsRefused(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader := l.leader()
		dead := l.follower()
		for _, removal := range []armor.Command{
			armor.RemoveMember{Node: leader.cfg.Node},
			armor.ReplaceMember{Node: dead.cfg.Node, Token: armor.JoinToken{
				Hash: l.digest("again"), Node: dead.cfg.Node, Expires: time.Now().Add(time.Hour)}},
		} {
			if err := leader.Validate(l.request(removal)); err != nil {
				t.Errorf("while all answer: %v", err)
			}
		}
		l.crash(dead)
		time.Sleep(2 * reportAge)
		live := l.follower()
		for _, node := range []armor.NodeID{live.cfg.Node, leader.cfg.Node} {
			_, err := leader.Propose(t.Context(), l.request(armor.RemoveMember{Node: node}))
			if !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), string(dead.cfg.Node)+" does not") ||
				!strings.Contains(err.Error(), "--force") {
				t.Errorf("removing %s: %v", node, err)
			}
			if err := leader.Validate(l.request(armor.RemoveMember{Node: node, Force: true})); err != nil {
				t.Errorf("removing %s by force: %v", node, err)
			}
		}
		l.do(armor.RemoveMember{Node: dead.cfg.Node})
		l.eventually("it is out", func() bool { return !leader.votes(leader.raft.Load(), dead.cfg.Node) })
		if err := leader.Validate(l.request(armor.RemoveMember{Node: live.cfg.Node})); err != nil {
			t.Errorf("after the dead one is out: %v", err)
		}
	})
}

// joined admits a node to a cluster of one that never serves clients and then dies. It reports whether the cluster
// goes on.
func joined(t *testing.T, wrong mistakes) (goesOn bool) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 1, func(t *testing.T, l *lab) {
		var serving atomic.Bool
		first := l.leader()
		newcomer := l.admitAs("n2", func(c *Config) { c.Serving = serving.Load })
		time.Sleep(20 * time.Second)
		if first.votes(first.raft.Load(), "n2") != wrong.voteUnproven {
			t.Errorf("it votes: %v", !wrong.voteUnproven)
		}
		l.crash(newcomer)
		time.Sleep(20 * time.Second)
		goesOn = first.KeepLive("prod") == nil
	})
	return goesOn
}

func TestANodeThatDiesBeforeItServesCostsNobodyTheQuorum(t *testing.T) {
	if !joined(t, mistakes{}) {
		t.Error("the cluster of one has stopped")
	}
}

func TestAVoteBeforeServiceIsNoticed(t *testing.T) {
	if joined(t, mistakes{voteUnproven: true}) {
		t.Error("the test above would not notice the mistake")
	}
}

func TestANodeThatServesVotesAfterSteadyRenewals(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		var serving atomic.Bool
		first := l.leader()
		l.admitAs("n2", func(c *Config) { c.Serving = serving.Load })
		time.Sleep(10 * time.Second)
		serving.Store(true)
		began := time.Now()
		l.eventually("it votes", func() bool { return first.votes(first.raft.Load(), "n2") })
		if took := time.Since(began); took < first.cfg.Timings.Steady {
			t.Errorf("it votes after %s", took)
		}
	})
}
