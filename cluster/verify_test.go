package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

func TestVerificationOfAHealthyClusterFindsOneHistory(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		l.do(l.revocation("a"))
		leader := l.leader()
		if err := leader.raft.Load().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		l.do(l.revocation("b"))
		revision := leader.machine.LastCommand()
		want, _ := leader.machine.MarkAt(revision)
		for _, n := range l.all() {
			v, err := n.Verify(t.Context(), revision)
			if err != nil || len(v.Problems) > 0 || v.Mark != want || v.Entries == 0 {
				t.Errorf("%v: %+v", err, v)
			}
			if n == leader && v.Snapshots != 1 {
				t.Errorf("%d snapshots", v.Snapshots)
			}
		}
	})
}

// brief is a ctx that ends while the test runs.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestVerificationTellsWhatIsDamaged(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		l.do(l.revocation("a"))
		l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
		index := n.machine.LastCommand()
		var entry raft.Log
		if err := n.disk.log.GetLog(index, &entry); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func(*raft.Log){
			"checksum does not hold": func(e *raft.Log) { e.Data = append([]byte{1}, e.Data...) },
			"does not lead from":     func(e *raft.Log) { e.Data = append([]byte{1}, e.Data...); e.Extensions = nil },
		} {
			bad := entry
			change(&bad)
			if err := n.disk.log.StoreLog(&bad); err != nil {
				t.Fatal(err)
			}
			v, err := n.Verify(t.Context(), index)
			if err != nil || len(v.Problems) != 1 || !strings.Contains(v.Problems[0], what) {
				t.Errorf("%s: %v, %+v", what, err, v)
			}
		}
		if err := n.disk.log.StoreLog(&entry); err != nil {
			t.Fatal(err)
		}
		if v, err := n.Verify(brief(t), index+100); err == nil || v.Mark != (armor.Mark{}) {
			t.Errorf("a revision that nobody has: %v, %+v", err, v)
		}
	})
}
