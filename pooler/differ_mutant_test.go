//go:build mutant

package pooler_test

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

// TestMutantsAreFound: the search that passes on a sound build finds what is planted in
// this one.
func TestMutantsAreFound(t *testing.T) {
	for mutant, mode := range map[core.Mutant]armor.PoolMode{
		core.RepliesSwapped: armor.TransactionMode,
		core.ReparseSkipped: armor.TransactionMode,
		core.UndoForgotten:  armor.TransactionMode,
		core.NoticeLost:     armor.SessionMode,
		core.ResetOff:       armor.SessionMode,
	} {
		t.Run(string(mutant), func(t *testing.T) {
			core.Plant(mutant)
			t.Cleanup(func() { core.Plant("") }) // when the house's have ended its sessions
			d := newDiffer(t, mode)
			d.patience = 3 * time.Second // what is lost is waited for
			seed, _, found := d.first(differCount(150), 1)
			if found == nil {
				t.Fatal("it was not found")
			}
			t.Logf("seed %d, %v", seed, found)
		})
	}
}
