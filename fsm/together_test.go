package fsm

import (
	"errors"
	"testing"

	"github.com/armordb/armordb/armor"
)

// together applies the entries of a lab in parts of a size, and returns the machine and the
// results.
func (l *lab) together(size int, trustAhead bool) (*Machine, []armor.Result) {
	l.t.Helper()
	m, all := New(), []armor.Result(nil)
	m.trustAhead = trustAhead
	var part []Entry
	for i, data := range l.entries {
		if part = append(part, Entry{uint64(i + 1), l.term, data}); len(part) < size && i+1 < len(l.entries) {
			continue
		}
		results, err := m.ApplyAll(part)
		if err != nil {
			l.t.Fatal(err)
		}
		all, part = append(all, results...), nil
	}
	return m, all
}

func TestEntriesTogetherComeToWhatTheyComeToOneByOne(t *testing.T) {
	l := everyCommand(t)
	want := l.machine.Mark()
	_, alone := l.together(1, false)
	for _, size := range []int{2, 3, 7, len(l.entries)} {
		m, results := l.together(size, false)
		if m.Mark() != want {
			t.Errorf("parts of %d lead to another state", size)
		}
		for i, r := range results {
			if (r.Err == nil) != (alone[i].Err == nil) || r.Revision != alone[i].Revision || r.Repeated != alone[i].Repeated {
				t.Errorf("parts of %d: entry %d gives %+v, and alone %+v", size, i+1, r, alone[i])
			}
		}
	}
}

// formerKey is a log in which an operator's key is replaced and the former one used right
// after that. It returns what became of that use when all entries come at once.
func formerKey(t *testing.T, trustAhead bool) error {
	l := furnished(t)
	l.must(l.by("ada", armor.PutOperator{Operator: l.operator("bob", armor.Revoker)}))
	former := l.keys["bob"]
	renewed := l.operator("carl", armor.Revoker)
	renewed.Name, renewed.Certificate.Identity = "bob", l.operator("bob").Certificate.Identity
	l.must(l.by("ada", armor.PutOperator{Operator: renewed}))
	l.keys["bob"] = former
	if err := l.by("bob", armor.Revoke{Selectors: everySelector()[:1], Reason: armor.Superseded}).Err; !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("alone: %v", err)
	}
	base := len(l.entries) - 2
	m := New()
	m.trustAhead = trustAhead
	var results []armor.Result
	for _, span := range [][2]int{{0, base}, {base, len(l.entries)}} {
		var part []Entry
		for i := span[0]; i < span[1]; i++ {
			part = append(part, Entry{uint64(i + 1), l.term, l.entries[i]})
		}
		var err error
		if results, err = m.ApplyAll(part); err != nil {
			t.Fatal(err)
		}
	}
	return results[len(results)-1].Err
}

func TestAKeyThatWasReplacedJustBeforeIsNotBelieved(t *testing.T) {
	if err := formerKey(t, false); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("together: %v", err)
	}
	if err := formerKey(t, true); err != nil {
		t.Errorf("a machine that trusts what it verified ahead is not noticed: %v", err)
	}
}

func TestEntriesTogetherArePublishedOnce(t *testing.T) {
	l := everyCommand(t)
	m := New()
	_, superseded := m.Current()
	var part []Entry
	for i, data := range l.entries {
		part = append(part, Entry{uint64(i + 1), l.term, data})
	}
	part = append(part, Entry{uint64(len(part) + 1), l.term, []byte("damaged")})
	results, err := m.ApplyAll(part)
	if !errors.Is(err, ErrCannotApply) || len(results) != len(l.entries) {
		t.Errorf("%d results, %v", len(results), err)
	}
	<-superseded
	s, next := m.Current()
	select {
	case <-next:
		t.Error("a state in between was published")
	default:
	}
	if s.Revision != uint64(len(l.entries)) {
		t.Errorf("revision %d, and the entries before the damaged one lead to %d", s.Revision, len(l.entries))
	}
}
