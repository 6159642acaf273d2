package cluster

import (
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
		// A lease that has ended proves nothing about the connections of a node that was
		// frozen: its share waits for its own word.
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			watch("nobody takes over the share of a node that says nothing", func() bool { return !full() })
		}
		l.net.Heal()
		watch("the others take over its share", func() bool { return full() && lost.holder.count(pool) == 0 })
	})
}
