package fsm

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// TestLevelIsTheLatestOfAnEntry: also one that was refused had to be understood, and a snapshot
// says it of the entries that it stands for.
func TestLevelIsTheLatestOfAnEntry(t *testing.T) {
	l := governed(t, "n2")
	if level := l.machine.Level(); level != 1 {
		t.Fatalf("level %d of entries of level 1", level)
	}
	if r := l.by("ada", armor.RevokeStaged{Batch: batchID("gone"), Parts: 1, Reason: armor.Superseded}); r.Err == nil {
		t.Fatal("nothing is staged, and it was revoked")
	}
	if level := l.machine.Level(); level != 4 {
		t.Errorf("level %d after an entry of level 4", level)
	}
	l.must(l.by("ada", l.token("n9", time.Hour)))
	m := New()
	restore(t, m, l.machine.Snapshot())
	if level := m.Level(); level != 4 {
		t.Errorf("level %d of a snapshot of what level 4 led to", level)
	}
}
