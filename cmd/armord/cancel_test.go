package main

import (
	"slices"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestCancelIsAskedOfTheNodesThatItsKeyNamesAndNoOthers(t *testing.T) {
	s := &armor.State{}
	for i, id := range []string{"n1", "n2", "n3"} {
		s.Members = s.Members.With(armor.Member{ID: armor.NodeID(id), Index: uint16(i + 1)})
	}
	transaction := armor.NewTransactionKey(2, 0) // its secret's top bits name node 0, which is nobody
	if got := otherHolders(s, transaction, "n1"); !slices.Equal(got, []armor.NodeID{"n2"}) {
		t.Errorf("%q", got)
	}
	session := armor.NewSessionKey(3, 4711, 0)
	if got := otherHolders(s, session, "n1"); !slices.Equal(got, []armor.NodeID{"n3"}) {
		t.Errorf("%q", got)
	}
	long := session.Lengthen(2, [14]byte{}, nil) // node 3 is not in it any more
	if got := otherHolders(s, long, "n1"); !slices.Equal(got, []armor.NodeID{"n2"}) {
		t.Errorf("%q", got)
	}
	if got := otherHolders(s, session, "n3"); len(got) != 0 {
		t.Errorf("asks itself: %q", got)
	}
}
