package fsm

import (
	"errors"
	"testing"

	"github.com/armordb/armordb/armor"
)

// twoPools applies a pool, and by an entry of a level a second one to the same role, database and host.
func twoPools(t *testing.T, level uint32, addBudgets bool) armor.Result {
	t.Helper()
	l := governed(t)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "production"}}))
	l.must(l.by("ada", poolOn("a", false)))
	r := l.request("ada", poolOn("b", addBudgets))
	w := l.machine.current.Load().world
	_, result := w.step(w.state.Revision+1, l.term, entry{request: r, proposedAt: l.now, level: level})
	return result
}

func poolOn(name string, addBudgets bool) armor.Apply {
	return armor.Apply{
		AddBudgets: addBudgets,
		Databases: []armor.Database{{Name: name, Environment: "production", DBName: "app", Hosts: []string{"pg1:5432"},
			TLSMode: armor.TLSDisable, Roles: []armor.RoleAuth{{Role: "rw"}}}},
		Pools: []armor.Pool{{Name: name, Environment: "production", Database: name, Mode: armor.TransactionMode, Budget: 12}},
		Identities: []armor.IdentityConfig{{Name: name, Environment: "production", ID: armor.Pattern("spiffe://prod.acme/" + name),
			Owner: "tests", Grants: []armor.Grant{{Database: name, Pool: name, Roles: []string{"rw"}}}}},
	}
}

// TestASecondBudgetForOnePlaceIsRefused, unless the operator says that it is meant.
func TestASecondBudgetForOnePlaceIsRefused(t *testing.T) {
	if result := twoPools(t, Level, false); !errors.Is(result.Err, armor.ErrConflict) {
		t.Errorf("refused: %v", result.Err)
	}
	if result := twoPools(t, Level, true); result.Err != nil {
		t.Errorf("meant: %v", result.Err)
	}
}

// TestASecondBudgetOfAnOldLogMeansWhatItMeant.
func TestASecondBudgetOfAnOldLogMeansWhatItMeant(t *testing.T) {
	if result := twoPools(t, 6, false); result.Err != nil {
		t.Error(result.Err)
	}
}
