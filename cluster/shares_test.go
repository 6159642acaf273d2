package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/armordb/armordb/armor"
)

// TestPlannedSharesNeverExceedTheBudget drives plans over members that come and go,
// budgets that change and holders that close late, as the housekeeper does.
func TestPlannedSharesNeverExceedTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := ledgerPool{key: "prod/orders"}
		held := map[armor.NodeID]int{} // server connections open
		allowed := 0                   // the highest budget since all above it was given back
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 {
				pool.budget = rapid.IntRange(0, 12).Draw(t, "budget")
				pool.members = nil
				for i := range rapid.IntRange(1, 5).Draw(t, "first") {
					if rapid.Bool().Draw(t, "there") {
						pool.members = append(pool.members, nodeName(i))
					}
				}
			}
			before := granted(pool.shares)
			pool.shares = planShares(pool, func(s armor.Share) bool { return held[s.Node] <= s.Target })
			if allowed = max(pool.budget, before); granted(pool.shares) > allowed {
				t.Fatalf("granted %d of budget %d, before %d: %v", granted(pool.shares), pool.budget, before, pool.shares)
			}
			for _, s := range pool.shares {
				if held[s.Node] > s.Granted {
					t.Fatalf("%s holds %d, and %d was granted: taken from it unasked", s.Node, held[s.Node], s.Granted)
				}
				held[s.Node] = rapid.IntRange(0, max(s.Limit(), held[s.Node])).Draw(t, "held")
			}
		}
		for range 20 {
			pool.shares = planShares(pool, func(armor.Share) bool { return true })
		}
		checkEven(t, pool)
	})
}

func granted(shares []armor.Share) (sum int) {
	for _, s := range shares {
		sum += s.Granted
	}
	return sum
}

// checkEven is what plans must end on once every holder has given back.
func checkEven(t *rapid.T, pool ledgerPool) {
	if len(pool.members) > 0 && granted(pool.shares) != pool.budget {
		t.Fatalf("granted %d of %d to %v: %v", granted(pool.shares), pool.budget, pool.members, pool.shares)
	}
	for _, s := range pool.shares {
		if s.Target != s.Granted || len(pool.members) > 0 && s.Granted > pool.budget/len(pool.members)+1 {
			t.Fatalf("uneven: %v", pool.shares)
		}
	}
}

// putPool makes a pool of the given budget.
func putPool(l *lab, budget int) string {
	l.t.Helper()
	pool := armor.Pool{Name: "orders", Environment: "prod", Database: "orders", Mode: armor.TransactionMode, Budget: budget}
	l.do(armor.Apply{
		Databases: []armor.Database{{Name: "orders", Environment: "prod", Hosts: []string{"pg:5432"}, DBName: "orders", TLSMode: armor.TLSDisable, Roles: []armor.RoleAuth{{Role: "app", Secret: "orders-app"}}}},
		Pools:     []armor.Pool{pool},
	})
	return pool.Key()
}

// heldBy is what all nodes together hold, also those that are cut off or removed.
func heldBy(nodes []*labNode, pool string) (sum int) {
	for _, n := range nodes {
		sum += n.holder.count(pool)
	}
	return sum
}

func TestServerConnectionsOfAllNodesNeverExceedTheBudget(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		const budget = 10
		pool := putPool(l, budget)
		all := l.all()
		watch := func(what string, yes func() bool) {
			l.eventually(what, func() bool {
				if sum := heldBy(all, pool); sum > budget {
					t.Fatalf("%s: %d server connections are open, and the budget is %d", what, sum, budget)
				}
				return yes()
			})
		}
		full := func() bool { return heldBy(all, pool) == budget }
		watch("the budget is in use", full)
		all = append(all, l.admit("n4", true))
		watch("the newcomer has its share", func() bool { return l.get("n4").holder.count(pool) == 2 && full() })
		lost := l.follower()
		l.net.Isolate(lost.cfg.Node)
		watch("the lost node lets go by itself", func() bool { return lost.holder.count(pool) == 0 })
		l.do(armor.RemoveMember{Node: lost.cfg.Node})
		// A lease that has ended proves nothing about the connections of a node that was
		// frozen: its share waits for its own word.
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			watch("nobody takes over the share of a node that says nothing", func() bool { return !full() })
		}
		l.net.Heal()
		watch("the others take over its share", func() bool { return full() && lost.holder.count(pool) == 0 })
	})
}

func TestSnapshotHeadersOfOthersAreRefused(t *testing.T) {
	encode := func(h snapshotHeader) io.Reader {
		var b bytes.Buffer
		binary.Write(&b, binary.BigEndian, h)
		return &b
	}
	good := snapshotHeader{snapshotMagic, int64(time.Minute)}
	if h, err := readSnapshotHeader(encode(good)); err != nil || h != good {
		t.Fatalf("%v, %v", h, err)
	}
	for i, bad := range []snapshotHeader{
		{[8]byte{'P', 'G', 'D', 'M', 'P'}, int64(time.Minute)},
		{snapshotMagic, -1},
		{snapshotMagic, int64(maxLongest) + 1},
	} {
		if _, err := readSnapshotHeader(encode(bad)); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := readSnapshotHeader(bytes.NewReader([]byte("ARM"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}

func TestEveryTimingHasADefault(t *testing.T) {
	if text := fmt.Sprintf("%+v", Timings{}.withDefaults()); bytes.Contains([]byte(text), []byte(":0s")) || bytes.Contains([]byte(text), []byte(":0 ")) {
		t.Fatal(text)
	}
}
