package fsm

import (
	"bytes"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestTrailKnowsWhereEachRecentRevisionStood(t *testing.T) {
	l := governed(t)
	var stood []armor.Mark
	for _, name := range []string{"a", "b", "c"} {
		l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: name}}))
		stood = append(stood, l.machine.Mark())
	}
	for _, want := range stood {
		if got, known := l.machine.MarkAt(want.Revision); !known || got != want {
			t.Errorf("revision %d stood at %+v, and did at %+v", want.Revision, got, want)
		}
	}
	if _, known := l.machine.MarkAt(l.index + 1); known {
		t.Error("it knows a revision that was not applied")
	}
	if _, known := l.machine.MarkAt(0); known {
		t.Error("nothing stands anywhere")
	}
}

func TestRestoredMachineStandsWhereTheOtherOneDid(t *testing.T) {
	l := governed(t)
	m := New()
	if !m.Mark().IsZero() {
		t.Error("a machine that has applied nothing stands somewhere")
	}
	if err := m.Restore(bytes.NewReader(snapshotBytes(t, l.machine))); err != nil {
		t.Fatal(err)
	}
	want := l.machine.Mark()
	if got, known := m.MarkAt(want.Revision); m.Mark() != want || !known || got != want {
		t.Errorf("it stands at %+v, not at %+v", m.Mark(), want)
	}
}
