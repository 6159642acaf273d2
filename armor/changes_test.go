package armor_test

import (
	"slices"
	"testing"

	"github.com/armordb/armordb/armor"
)

// next makes the state that follows by some changes.
func next(s *armor.State, changes ...func(*armor.State)) *armor.State {
	n := *s
	n.Revision++
	for _, change := range changes {
		change(&n)
	}
	return &n
}

func revokeKeys(keys ...byte) func(*armor.State) {
	return func(s *armor.State) {
		for _, k := range keys {
			armor.Revoked.Put(s, armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{k}}, Revision: s.Revision})
		}
	}
}

func share(s *armor.State) {
	armor.Shares.Put(s, armor.Share{Pool: "dev/app", Node: "n1", Target: int(s.Revision)})
}

func keyOf(k byte) armor.SelectorKey {
	return armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{k}}.SelectorKey()
}

func TestAStateKnowsWhatItsLatestRevisionsWereAbout(t *testing.T) {
	zero := &armor.State{}
	one := next(zero, revokeKeys(1))
	two := next(one, share)
	three := next(two, revokeKeys(2, 3), func(s *armor.State) {
		armor.Inventory.Put(s, armor.CertRecord{Certificate: armor.Certificate{Key: armor.Digest{4}}})
	})
	for _, c := range []struct {
		name     string
		old      *armor.State
		policy   bool
		touched  []byte
		unproved bool
	}{
		{"nothing", three, false, nil, false},
		{"the last", two, false, []byte{2, 3, 4}, false},
		{"with a share before", one, false, []byte{2, 3, 4}, false},
		{"all", zero, false, []byte{1, 2, 3, 4}, false},
		{"since no state", nil, true, nil, true},
		{"since a later state", next(three), true, nil, true},
	} {
		if got := three.Differs(c.old, armor.Trusting, armor.Granting); got != c.policy {
			t.Errorf("%s: policy differs: %v", c.name, got)
		}
		keys, known := three.Touched(c.old)
		var want []armor.SelectorKey
		for _, k := range c.touched {
			want = append(want, keyOf(k))
		}
		slices.Sort(keys)
		if !slices.Equal(keys, want) || known == c.unproved {
			t.Errorf("%s: %q, known %v; want %q", c.name, keys, known, want)
		}
	}
	if three.Differs(two, armor.Sharing) || !three.Differs(one, armor.Sharing) {
		t.Error("a share moved with revision 2 and no other")
	}
}

func TestARestoredStateIsNewInAllAspects(t *testing.T) {
	before := next(&armor.State{}, revokeKeys(1))
	restored := &armor.State{Revision: 9, Changed: armor.Everything(9)}
	if _, known := restored.Touched(before); known || !restored.Differs(before, armor.Operating) {
		t.Error("a restored state claims to know what it brought")
	}
	after := next(restored, revokeKeys(2))
	if _, known := after.Touched(before); known {
		t.Error("what came by the snapshot is forgotten with the next revocation")
	}
	if keys, known := after.Touched(restored); !known || !slices.Equal(keys, []armor.SelectorKey{keyOf(2)}) {
		t.Errorf("after the restore: %q, %v", keys, known)
	}
}

// However long the history, a follower is told all that touched it or that it has to look
// for itself.
func TestNoTouchIsLost(t *testing.T) {
	s := &armor.State{}
	states := []*armor.State{s}
	for i := range 700 {
		k := byte(i)
		s = next(s, revokeKeys(k), revokeKeys(k+1)) // twice within one revision
		states = append(states, s)
	}
	unknown := 0
	for i, old := range states {
		keys, known := s.Touched(old)
		if !known {
			unknown++
			continue
		}
		for j := i; j < 700; j++ {
			if !slices.Contains(keys, keyOf(byte(j))) || !slices.Contains(keys, keyOf(byte(j)+1)) {
				t.Fatalf("from state %d on the revocation of %d is lost", i, j)
			}
		}
	}
	if unknown == 0 || unknown > 699 {
		t.Errorf("of %d followers %d have to look at all", len(states), unknown)
	}
}

func TestABulkTouchesAll(t *testing.T) {
	s := &armor.State{}
	bulk := next(s, func(s *armor.State) {
		var rows []armor.Revocation
		for i := range 2000 {
			rows = append(rows, armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{byte(i), byte(i >> 8)}}})
		}
		armor.Revoked.Put(s, rows...)
	}, revokeKeys(7))
	if _, known := bulk.Touched(s); known {
		t.Error("two thousand revocations are passed on one by one")
	}
	if keys, known := next(bulk, revokeKeys(9)).Touched(bulk); !known || len(keys) != 1 {
		t.Errorf("after it: %q, %v", keys, known)
	}
}
