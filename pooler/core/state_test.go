package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPreparedSetForgetsTheLeastRecentlyUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set preparedSet
		var model []statementKey // the oldest first
		key := rapid.Map(rapid.ByteRange(0, 20), func(b byte) statementKey { return statementKey{b} })
		without := func(k statementKey) {
			model = slices.DeleteFunc(model, func(m statementKey) bool { return m == k })
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k := key.Draw(t, "key")
				set.add(k, fmt.Sprint(k), 0)
				without(k)
				model = append(model, k)
			},
			"touch": func(t *rapid.T) {
				k := key.Draw(t, "key")
				had := slices.Contains(model, k)
				if got := set.touch(k); got != had {
					t.Fatalf("touch(%v) = %v", k, got)
				}
				if had {
					without(k)
					model = append(model, k)
				}
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				set.remove(k)
				without(k)
			},
			"": func(t *rapid.T) {
				if set.len() != len(model) {
					t.Fatalf("%d entries, want %d", set.len(), len(model))
				}
				if len(model) > 0 {
					if k, name := set.oldest(); k != model[0] || name != fmt.Sprint(k) {
						t.Fatalf("oldest is %v %s, want %v", k, name, model[0])
					}
				}
			},
		})
	})
}

func TestStatementsAreKeptOnceAndForgottenWithTheLastReference(t *testing.T) {
	var none [16]byte
	s := NewStatements(10)
	a, again := s.intern([]byte("aaaa\x00\x00\x00"), none), s.intern([]byte("aaaa\x00\x00\x00"), none)
	if a != again {
		t.Error("the same text is kept twice")
	}
	if s.intern([]byte("bbbb\x00\x00\x00"), none) != nil {
		t.Error("there was room beyond the limit")
	}
	s.release(a)
	s.release(again)
	if len(s.byKey) != 0 || s.size != 0 {
		t.Errorf("%d statements, %d bytes are left", len(s.byKey), s.size)
	}
	if s.intern([]byte("bbbb\x00\x00\x00"), none) == nil {
		t.Error("no room after everything was forgotten")
	}
}

func TestTurnLeadsFromOneClientsSettingsToAnothers(t *testing.T) {
	set := func(pairs ...string) *Settings {
		values := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			values[pairs[i]] = pairs[i+1]
		}
		return NewSettings(values)
	}
	const call = "pg_catalog.set_config"
	for _, c := range []struct {
		have, want *Settings
		sql        string
	}{
		{set("g", "1", "h", "1"), set("h", "2"), "SELECT " + call + "('g', '7', false), " + call + "('h', '2', false)"},
		{nil, nil, ""},
		{set("a", "1"), set("a", "1"), ""},
		{set("a", "1"), nil, "SELECT " + call + "('a', NULL, false)"},
		{set("a", "1", "b", "2"), set("b", "3", "c", `x "y", z`), "SELECT " + call + "('a', NULL, false), " + call + "('b', '3', false), " +
			call + `('c', 'x "y", z', false)`},
		{nil, set("a", "it's"), "SELECT " + call + "('a', pg_catalog.convert_from(pg_catalog.decode('69742773', 'hex'), " +
			"pg_catalog.getdatabaseencoding()), false)"},
		{set("role", "x"), set("a", "1", "role", "y", "session_authorization", "z"), "SELECT " + call + "('role', NULL, false), " + call +
			"('a', '1', false), " + call + "('session_authorization', 'z', false), " + call + "('role', 'y', false)"},
		{set("role", "x", "session_authorization", "z"), set("a", "1", "role", "x", "session_authorization", "z"), "SELECT " + call +
			"('role', NULL, false), " + call + "('session_authorization', NULL, false), " + call + "('a', '1', false), " + call +
			"('session_authorization', 'z', false), " + call + "('role', 'x', false)"},
		{set("role", "x", "session_authorization", "z"), set("role", "y", "session_authorization", "z"), "SELECT " + call +
			"('role', NULL, false), " + call + "('role', 'y', false)"},
		{set("a", "1", "role", "x"), nil, "SELECT " + call + "('role', NULL, false), " + call + "('a', NULL, false)"},
	} {
		if got := turn(c.have, c.want, set("g", "7", "h", "8")); got != c.sql {
			t.Errorf("from %v to %v:\ngot  %s\nwant %s", c.have.list(), c.want.list(), got, c.sql)
		}
	}
}

func TestLiteralsAreAlikeInEveryEncoding(t *testing.T) {
	for _, s := range []string{"é", `a\b`, "a\nb", "'", "\x7f"} {
		if got := plain(s); !strings.HasPrefix(got, "pg_catalog.convert_from(") {
			t.Errorf("%q goes as %s", s, got)
		}
	}
}

func TestSettingsAreNotChanged(t *testing.T) {
	one := NewSettings(map[string]string{"a": "1", "c": "3"})
	two := one.with("b", "2").without("a")
	if got := fmt.Sprint(one.list(), two.list()); got != "[{a 1} {c 3}] [{b 2} {c 3}]" {
		t.Error(got)
	}
	if one.without("b") != one || NewSettings(map[string]string{"a": ""}).without("a") != nil {
		t.Error("settings without what they do not have, or without all")
	}
}

func TestParamsAreShared(t *testing.T) {
	p := NewParams(map[string]string{"a": "1", "c": "3"})
	if p.With("a", "1") != p {
		t.Error("an unchanged value makes new parameters")
	}
	q := p.With("b", "2").With("a", "9")
	if v, _ := p.Get("a"); v != "1" {
		t.Error("the old parameters have changed")
	}
	var names []string
	for name := range q.All() {
		names = append(names, name)
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("names: %v", names)
	}
}
