package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// olderCourier speaks for a node of a release that does not name its level.
type olderCourier struct{ labCourier }

func (c olderCourier) Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	q.Level = 0
	return c.labCourier.Renew(ctx, to, q)
}

func (l *lab) staging() armor.StageRevocations {
	return armor.StageRevocations{Batch: "00112233445566778899aabbccddeeff", Part: 1, Selectors: l.revocation("a").Selectors}
}

// restart starts a node anew on its disk.
func (l *lab) restart(id armor.NodeID, change func(*Config)) *labNode {
	l.t.Helper()
	n := l.get(id)
	if err := l.stop(n); err != nil {
		l.t.Fatal(err)
	}
	return l.start(id, n.disk, change)
}

func TestCommandThatAMemberCannotApplyIsNotProposed(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader := l.leader()
		id := l.follower().cfg.Node
		l.restart(id, func(c *Config) { c.Courier = olderCourier{labCourier{l, id}} })
		l.settle()
		request := l.request(armor.StageRevocations{Batch: l.staging().Batch, Part: 2, Selectors: l.staging().Selectors})
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "node "+string(id)+" runs an older release") {
				t.Errorf("%s: %v", what, err)
			}
		}
		l.eventually("the older node has reported", func() bool { return leader.Validate(request) != nil })
		_, err := leader.Propose(t.Context(), request)
		refused("propose", err)
		refused("begin", leader.Begin(t.Context(), request))
		refused("validate", leader.Validate(request))
		l.do(l.revocation("b")) // what it knows goes on

		l.restart(id, nil)
		l.settle()
		l.eventually("the node is of this release again", func() bool {
			_, err := leader.Propose(t.Context(), request)
			return err == nil
		})
		l.restart(id, func(c *Config) { c.Courier = olderCourier{labCourier{l, id}} })
		l.do(l.staging()) // the log has one already, at which the older node stops or does not
	})
}

// proposeSoon proposes to whoever leads or is about to; it retries nothing but that.
func (l *lab) proposeSoon(r armor.Request) (err error) {
	l.eventually("somebody leads", func() bool {
		for _, n := range l.all() {
			if _, err = n.Propose(l.t.Context(), r); !errors.Is(err, armor.ErrNotLeader) {
				return true
			}
		}
		return false
	})
	return err
}

func TestNewLeaderWaitsForReportsBeforeItRefuses(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		old := l.leader()
		if err := old.raft.Load().LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
		if err := l.proposeSoon(l.request(l.staging())); err != nil {
			t.Error("everybody is of this release:", err)
		}
		down := l.leader()
		l.crash(down)
		began := time.Now()
		next := l.leader()
		elected := time.Since(began)
		if err := l.proposeSoon(l.request(armor.Apply{})); !errors.Is(err, armor.ErrConflict) {
			t.Error("nobody knows what the node that is down applies:", err)
		}
		if took := time.Since(began); took > elected+next.cfg.Timings.Renew+next.cfg.Timings.RenewTimeout {
			t.Errorf("refused after %s, of which the election took %s", took, elected)
		}
		if err := l.proposeSoon(l.request(l.staging())); err != nil {
			t.Error("what everybody applied while the node was up waits for its return:", err)
		}
	})
}

// TestNodeThatWasJustAdmittedIsWaitedFor: whoever approves a node goes on with a change at once.
func TestNodeThatWasJustAdmittedIsWaitedFor(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		time.Sleep(time.Minute) // the leader is none of today
		leader, request := l.leader(), l.request(l.staging())
		l.invite("n9", false)
		outcome := make(chan error, 1)
		go func() {
			_, err := leader.Propose(t.Context(), request)
			outcome <- err
		}()
		time.Sleep(leader.cfg.Timings.Renew / 2)
		l.start("n9", newDisk(), nil)
		if err := <-outcome; err != nil {
			t.Error("the node has had no time to report:", err)
		}
		l.invite("n10", false)
		began := time.Now()
		if _, err := l.leader().Propose(t.Context(), l.request(armor.Apply{})); !errors.Is(err, armor.ErrConflict) {
			t.Error("nobody knows what a node that never came applies:", err)
		}
		if took := time.Since(began); took > 2*(leader.cfg.Timings.Renew+leader.cfg.Timings.RenewTimeout) {
			t.Errorf("refused after %s", took)
		}
	})
}

func TestPartsThatNobodyRevokedArePruned(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, l *lab) {
		l.do(l.staging())
		time.Sleep(armor.StagedLife + pruneEvery + time.Minute)
		l.eventually("the part is gone", func() bool {
			state, _ := l.leader().Current()
			return state.Staged.Len() == 0
		})
	})
}

// TestDeadNodesAreRemovedOneAfterTheOther: a new leader has heard of none of them what it
// applies.
func TestDeadNodesAreRemovedOneAfterTheOther(t *testing.T) {
	inBubble(t, 5, func(t *testing.T, l *lab) {
		dead := []*labNode{l.follower(), l.leader()}
		for _, n := range dead {
			if err := l.stop(n); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range dead {
			if err := l.proposeSoon(l.request(armor.RemoveMember{Node: n.cfg.Node})); err != nil {
				t.Errorf("remove %s: %v", n.cfg.Node, err)
			}
		}
	})
}

// TestRemovalMindsAnOlderNodeThatReports: only of those that are gone it asks nothing.
func TestRemovalMindsAnOlderNodeThatReports(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		older := l.follower().cfg.Node
		l.restart(older, func(c *Config) { c.Courier = olderCourier{labCourier{l, older}} })
		l.settle()
		l.eventually("the older node has reported", func() bool {
			err := l.leader().Validate(l.request(armor.RemoveMember{Node: l.leader().cfg.Node}))
			return errors.Is(err, armor.ErrConflict) && strings.Contains(err.Error(), "older release")
		})
	})
}
