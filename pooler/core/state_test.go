package core

import (
	"fmt"
	"slices"
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
				set.add(k, fmt.Sprint(k))
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
	s := NewStatements(10)
	a, again := s.intern([]byte("aaaa\x00\x00\x00")), s.intern([]byte("aaaa\x00\x00\x00"))
	if a != again {
		t.Error("the same text is kept twice")
	}
	if s.intern([]byte("bbbb\x00\x00\x00")) != nil {
		t.Error("there was room beyond the limit")
	}
	s.release(a)
	s.release(again)
	if len(s.byKey) != 0 || s.size != 0 {
		t.Errorf("%d statements, %d bytes are left", len(s.byKey), s.size)
	}
	if s.intern([]byte("bbbb\x00\x00\x00")) == nil {
		t.Error("no room after everything was forgotten")
	}
}

func TestReplayQuotes(t *testing.T) {
	have := NewSettings(map[string]string{"app.user": "x", "search_path": "a, b"})
	want := NewSettings(map[string]string{"search_path": `it's "a\b", c`})
	got := replay(have, want, nil)
	if expect := `RESET "app"."user"; SELECT pg_catalog.set_config('search_path', E'it''s "a\\b", c', false)`; got != expect {
		t.Errorf("got  %s\nwant %s", got, expect)
	}
	if got := replay(want, want, nil); got != "" {
		t.Errorf("nothing was to be done, and yet %s", got)
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
	lacking := q.With("server_version", "15").lacks(p.With("server_version", "16"))
	if !slices.Equal(lacking, []pair{{"a", "1"}}) {
		t.Errorf("lacking: %v", lacking)
	}
}
