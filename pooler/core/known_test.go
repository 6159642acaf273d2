package core

import (
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/pooler/pgtest"
)

// TestKnownFunctionsAreInTheCatalog asks a real PostgreSQL: a name that is not in
// pg_catalog could be anybody's, and a volatile function may change the session.
func TestKnownFunctionsAreInTheCatalog(t *testing.T) {
	pg, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	catalog := func(condition string) []string {
		out, err := pg.SQL("postgres", "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND "+condition)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out)
	}
	every, volatile := catalog("true"), catalog("provolatile = 'v'")
	for name, kind := range functions {
		switch {
		case kind == keyword || isIn(knownLater, name):
		case !slices.Contains(every, name):
			t.Errorf("%s is not in pg_catalog", name)
		case kind == harmlessFunction && slices.Contains(volatile, name) != isIn(knownVolatile, name):
			t.Errorf("%s is volatile, or not", name)
		}
	}
}

func isIn(list, name string) bool { return slices.Contains(strings.Fields(list), name) }

// TestKnownFunctionsAreOfOneKind: that of a name in two lists would be the one that
// happens to come last. And none is too long to be looked up.
func TestKnownFunctionsAreOfOneKind(t *testing.T) {
	seen := map[string]bool{}
	for _, list := range []string{knownPure, knownInspecting, knownVolatile, knownLater, parenthesized, "set_config nextval"} {
		for _, name := range strings.Fields(list) {
			if seen[name] {
				t.Errorf("%s is listed twice", name)
			}
			if seen[name] = true; len(name) > longestFunction {
				t.Errorf("%s is longer than %d", name, longestFunction)
			}
		}
	}
}
