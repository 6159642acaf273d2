package armor_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/armordb/armordb/armor"
)

// granted and targeted are what all shares come to.
func granted(shares []armor.Share) (sum int) {
	for _, s := range shares {
		sum += s.Granted
	}
	return sum
}

func targeted(shares []armor.Share) (sum int) {
	for _, s := range shares {
		sum += s.Target
	}
	return sum
}

func nothing(armor.Share) int { return 0 }

// drawMembers draws some of five nodes.
func drawMembers(t *rapid.T) (members []armor.NodeID) {
	for i := range rapid.IntRange(1, 5).Draw(t, "first") {
		if rapid.Bool().Draw(t, "there") {
			members = append(members, armor.NodeID(fmt.Sprintf("n%d", i)))
		}
	}
	return members
}

// drawDemand draws what some of five nodes could use; nil one time in three.
func drawDemand(t *rapid.T) map[armor.NodeID]int {
	if rapid.IntRange(0, 2).Draw(t, "unknown demand") == 0 {
		return nil
	}
	demand := map[armor.NodeID]int{}
	for i := range 5 {
		demand[armor.NodeID(fmt.Sprintf("n%d", i))] = rapid.IntRange(0, 15).Draw(t, "demand")
	}
	return demand
}

// TestPlannedSharesNeverExceedTheBudget drives plans over members that come and go,
// budgets and demands that change and holders that close late, as the leader does.
func TestPlannedSharesNeverExceedTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		held := map[armor.NodeID]int{} // server connections open
		pool := armor.SharePlan{Pool: "prod/orders", Held: func(s armor.Share) int { return held[s.Node] }}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 {
				pool.Budget, pool.Members = rapid.IntRange(0, 12).Draw(t, "budget"), drawMembers(t)
				pool.Demand = drawDemand(t)
			}
			before := granted(pool.Shares)
			pool.Shares = pool.Next()
			// Allowed is the highest budget since all above it was given back.
			if allowed := max(pool.Budget, before); granted(pool.Shares) > allowed {
				t.Fatalf("granted %d of budget %d, before %d: %v", granted(pool.Shares), pool.Budget, before, pool.Shares)
			}
			if targeted(pool.Shares) > pool.Budget {
				t.Fatalf("targets %d of budget %d: %v", targeted(pool.Shares), pool.Budget, pool.Shares)
			}
			for _, s := range pool.Shares {
				if held[s.Node] > s.Granted {
					t.Fatalf("%s holds %d, and %d was granted: taken from it unasked", s.Node, held[s.Node], s.Granted)
				}
				held[s.Node] = rapid.IntRange(0, max(s.Limit(), held[s.Node])).Draw(t, "held")
			}
		}
		pool.Held = nothing
		pool.Demand = nil
		for range 20 {
			pool.Shares = pool.Next()
		}
		checkEven(t, pool)
	})
}

// checkEven is what plans must end on once every holder has given back.
func checkEven(t *rapid.T, pool armor.SharePlan) {
	if len(pool.Members) > 0 && granted(pool.Shares) != pool.Budget {
		t.Fatalf("granted %d of %d to %v: %v", granted(pool.Shares), pool.Budget, pool.Members, pool.Shares)
	}
	for _, s := range pool.Shares {
		if s.Target != s.Granted || len(pool.Members) > 0 && s.Granted > pool.Budget/len(pool.Members)+1 {
			t.Fatalf("uneven: %v", pool.Shares)
		}
	}
}

func TestFirstSharesOfAPoolAreItsWholeBudget(t *testing.T) {
	nodes := []armor.NodeID{"n3", "n1", "n2"}
	for budget := 3; budget < 50; budget++ {
		shares := armor.SharePlan{Pool: "e/p", Budget: budget, Members: nodes}.Next()
		sum := 0
		for _, s := range shares {
			sum += s.Granted
			if s.Limit() == 0 {
				t.Fatalf("budget %d leaves %s without a connection", budget, s.Node)
			}
		}
		if sum != budget {
			t.Fatalf("budget %d was cut into %d", budget, sum)
		}
	}
}

func TestSharesFollowDemandAndSpareNobodyTheFirst(t *testing.T) {
	for _, c := range []struct {
		budget int
		demand map[armor.NodeID]int
		want   []int // of n1, n2, n3
	}{
		{11, nil, []int{4, 4, 3}},
		{11, map[armor.NodeID]int{"n1": 9, "n2": 9, "n3": 9}, []int{4, 4, 3}},
		{11, map[armor.NodeID]int{"n1": 2, "n2": 2, "n3": 2}, []int{4, 4, 3}},
		{12, map[armor.NodeID]int{"n2": 100}, []int{1, 10, 1}},
		{12, map[armor.NodeID]int{"n1": 2, "n2": 100, "n3": 100}, []int{2, 5, 5}},
		{12, map[armor.NodeID]int{"n3": 4}, []int{3, 3, 6}},
		{2, map[armor.NodeID]int{"n3": 4}, []int{1, 1, 0}},
	} {
		var got []int
		plan := armor.SharePlan{Pool: "e/p", Budget: c.budget, Members: []armor.NodeID{"n3", "n1", "n2"}, Demand: c.demand}
		for _, s := range plan.Next() {
			got = append(got, s.Granted)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("budget %d, demand %v: %v, want %v", c.budget, c.demand, got, c.want)
		}
	}
}

func TestSharesFallBeforeOthersRise(t *testing.T) {
	full := []armor.Share{{Pool: "e/p", Node: "n1", Granted: 6, Target: 6}}
	plan := armor.SharePlan{Pool: "e/p", Budget: 6, Members: []armor.NodeID{"n1", "n2"}, Shares: full}
	step := func(want ...armor.Share) {
		t.Helper()
		if plan.Shares = plan.Next(); !slices.Equal(plan.Shares, want) {
			t.Fatalf("got %v, want %v", plan.Shares, want)
		}
	}
	share := func(n armor.NodeID, granted, target int) armor.Share {
		return armor.Share{Pool: "e/p", Node: n, Granted: granted, Target: target}
	}
	step(share("n1", 6, 3), share("n2", 0, 3))
	step(share("n1", 6, 3), share("n2", 0, 3)) // n1 has not closed anything yet
	plan.Held = nothing
	step(share("n1", 3, 3), share("n2", 3, 3))
	plan.Members = []armor.NodeID{"n2"}
	step(share("n1", 3, 0), share("n2", 3, 6))
	step(share("n1", 0, 0), share("n2", 6, 6))
}

func TestAShareFallsToWhatItsHolderMayStillHave(t *testing.T) {
	left := 3
	plan := armor.SharePlan{
		Pool: "e/p", Budget: 8, Members: []armor.NodeID{"n1"},
		Shares: []armor.Share{{Pool: "e/p", Node: "n1", Granted: 4, Target: 8}, {Pool: "e/p", Node: "n2", Granted: 4}},
		Held:   func(s armor.Share) int { return map[armor.NodeID]int{"n1": s.Granted, "n2": left}[s.Node] },
	}
	for _, want := range []int{5, 5, 8} {
		if plan.Shares = plan.Next(); plan.Shares[0].Granted != want || plan.Shares[1].Granted != 8-want {
			t.Fatalf("with %d left: %v", left, plan.Shares)
		}
		left = map[int]int{3: 6, 6: 0}[left] // a count that rises again raises nothing
	}
}
