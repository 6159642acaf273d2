package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// putPool makes a pool of the given budget.
func putPool(l *lab, budget int) string {
	l.t.Helper()
	database := armor.Database{
		Name: "orders", Environment: "prod", Hosts: []string{"pg:5432"}, DBName: "orders", TLSMode: armor.TLSDisable,
		Roles: []armor.RoleAuth{{Role: "app", Secret: "orders-app"}},
	}
	pool := armor.Pool{Name: "orders", Environment: "prod", Database: "orders", Mode: armor.TransactionMode, Budget: budget}
	l.do(armor.Apply{Databases: []armor.Database{database}, Pools: []armor.Pool{pool}})
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
		watch("the others take over the share of a node that says nothing, of which nothing is left", full)
		l.net.Heal()
		watch("the others take over its share", func() bool { return full() && lost.holder.count(pool) == 0 })
	})
}

// replaced removes a node that is cut off from the others, or frozen, and may not come back; a newcomer takes its
// place. It returns the most server connections that were open at once.
func replaced(t *testing.T, wrong mistakes, freeze bool, after func(l *lab, pool string, lost *labNode)) (most int) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 3, func(t *testing.T, l *lab) {
		pool := putPool(l, 12)
		all := l.all()
		watch := func(yes func() bool) func() bool {
			return func() bool {
				most = max(most, heldBy(all, pool))
				return yes()
			}
		}
		l.eventually("the budget is in use", watch(func() bool { return heldBy(all, pool) == 12 }))
		lost := l.follower()
		lost.holder.freeze(freeze)
		l.net.Isolate(lost.cfg.Node)
		l.do(armor.RemoveMember{Node: lost.cfg.Node})
		all = append(all, l.admit("n4", true))
		for end := time.Now().Add(45 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			watch(func() bool { return true })()
		}
		after(l, pool, lost)
	})
	return most
}

func newcomerHas(want int) func(*lab, string, *labNode) {
	return func(l *lab, pool string, _ *labNode) {
		l.t.Helper()
		if n := l.get("n4").holder.count(pool); n != want {
			l.t.Errorf("the newcomer has %d server connections, not %d", n, want)
		}
	}
}

func TestAShareOfTheDeadIsGivenAwayOnceItsLeaseIsOverAndPostgresHasNothingOfIt(t *testing.T) {
	most := replaced(t, mistakes{}, false, func(l *lab, pool string, lost *labNode) {
		newcomerHas(4)(l, pool, lost)
		state, _ := l.leader().Current()
		if state.Tombstones.Len() > 0 {
			t.Error("the removed node is not forgotten")
		}
		if w := l.leader().Status().Withheld; len(w) > 0 {
			t.Errorf("withheld: %v", w)
		}
	})
	if most != 12 {
		t.Errorf("%d server connections of 12 at once", most)
	}
}

func TestWhatAFrozenNodeStillHasIsWithheldAndSaid(t *testing.T) {
	most := replaced(t, mistakes{}, true, func(l *lab, pool string, lost *labNode) {
		leader := l.leader()
		w := leader.Status().Withheld
		if len(w) != 1 || w[0].Node != lost.cfg.Node || w[0].Pool != pool || w[0].Count != 4 || !strings.Contains(w[0].Why, "--shares-settled") {
			t.Errorf("withheld: %v", w)
		}
		l.do(armor.RemoveMember{Node: lost.cfg.Node, SharesSettled: true})
		l.eventually("the operator's word counts", func() bool { return l.get("n4").holder.count(pool) == 4 })
		lost.holder.freeze(false)
	})
	if most != 12 {
		t.Errorf("%d server connections of 12 at once", most)
	}
}

func TestBudgetNoticesAShareThatIsGivenAwayTooEarly(t *testing.T) {
	if most := replaced(t, mistakes{ignoreLeases: true, explainAll: true}, false, newcomerHas(4)); most <= 12 {
		t.Errorf("%d server connections of 12 at once", most)
	}
	if most := replaced(t, mistakes{explainAll: true}, true, func(_ *lab, _ string, lost *labNode) { lost.holder.freeze(false) }); most <= 12 {
		t.Errorf("%d server connections of 12 at once", most)
	}
}

// TestAnOperatorsWordDoesNotShortenALease: the node may be alive and cut off.
func TestAnOperatorsWordDoesNotShortenALease(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		pool := putPool(l, 12)
		all := l.all()
		l.eventually("the budget is in use", func() bool { return heldBy(all, pool) == 12 })
		lost := l.follower()
		l.net.Isolate(lost.cfg.Node)
		l.do(armor.RemoveMember{Node: lost.cfg.Node, SharesSettled: true})
		w := l.leader().Status().Withheld
		if len(w) != 1 || w[0].Until.IsZero() {
			t.Errorf("withheld: %v", w)
		}
		l.eventually("the others have its share", func() bool {
			if sum := heldBy(all, pool); sum > 12 {
				t.Fatalf("%d server connections of 12 at once", sum)
			}
			return lost.holder.count(pool) == 0 && heldBy(all, pool) == 12
		})
	})
}

func TestAShareStaysWithheldWherePostgresCannotBeAsked(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		pool := putPool(l, 12)
		l.eventually("the budget is in use", func() bool { return heldBy(l.all(), pool) == 12 })
		for _, n := range l.all() {
			n.holder.blind.Store(true)
		}
		lost := l.follower()
		l.crash(lost)
		l.do(armor.RemoveMember{Node: lost.cfg.Node})
		time.Sleep(time.Minute)
		w := l.leader().Status().Withheld
		if len(w) != 1 || w[0].Count != 4 || !strings.Contains(w[0].Why, "PostgreSQL cannot be asked") {
			t.Fatalf("withheld: %v", w)
		}
		for _, n := range l.all() {
			n.holder.blind.Store(false)
		}
		l.eventually("the others have its share", func() bool { return heldBy(l.all(), pool) == 12 })
	})
}
