package armor_test

import (
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestQuotedWordsAreCutOffTheFront(t *testing.T) {
	for s, want := range map[string]struct {
		word, rest string
		ok         bool
	}{
		`"a" b`:     {"a", " b", true},
		`"a""b"c`:   {`a"b`, "c", true},
		`""`:        {"", "", true},
		`"'"`:       {"'", "", true},
		``:          {"", "", false},
		`a`:         {"", "a", false},
		`'a'`:       {"", "'a'", false},
		`"a`:        {"", `"a`, false},
		`"a""`:      {"", `"a""`, false},
		"\"a\nb\"c": {"a\nb", "c", true},
	} {
		if word, rest, ok := armor.CutQuoted(s, '"'); word != want.word || rest != want.rest || ok != want.ok {
			t.Errorf("%q: got %q, %q, %t", s, word, rest, ok)
		}
	}
}
