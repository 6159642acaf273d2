package armor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestWithheldIsWhatRemovedNodesHoldAndMembersHaveNotGivenBack(t *testing.T) {
	var s armor.State
	for _, share := range []armor.Share{
		{Pool: "e/a", Node: "n1", Granted: 4, Target: 4}, {Pool: "e/a", Node: "n2", Granted: 4, Target: 3},
		{Pool: "e/a", Node: "n3", Granted: 4}, {Pool: "e/b", Node: "n3", Granted: 1}, {Pool: "e/b", Node: "n1", Granted: 2, Target: 3},
	} {
		s.Shares = s.Shares.With(share)
	}
	s.Members = s.Members.With(armor.Member{ID: "n1"}).With(armor.Member{ID: "n2"})
	s.Tombstones = s.Tombstones.With(armor.Tombstone{ID: "n3", RemovedAt: time.Unix(0, 0)})
	var got []string
	for _, w := range s.Withheld() {
		got = append(got, w.Pool+" "+w.String())
	}
	want := []string{
		"e/a 1 withheld for node n2: it has not said yet that it has closed them",
		"e/a 4 withheld for node n3: it was removed at 1970-01-01T00:00:00Z, and PostgreSQL may still have them",
		"e/b 1 withheld for node n3: it was removed at 1970-01-01T00:00:00Z, and PostgreSQL may still have them",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if words := armor.WithheldWords(s.Withheld(), "e/b"); strings.Contains(words, ";") || !strings.HasPrefix(words, "1 withheld") {
		t.Errorf("words of one pool: %q", words)
	}
}

func TestTheEndOfWhatIsWithheldIsNeverToldTooEarly(t *testing.T) {
	w := armor.Withheld{Node: "n3", Count: 1, Why: "so", Until: time.Unix(10, 1)}
	if !strings.HasSuffix(w.String(), "until 1970-01-01T00:00:11Z") {
		t.Errorf("%s", w)
	}
}
