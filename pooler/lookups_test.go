package pooler

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

var aQuestion = question{armor.AuthQuery{Role: "asker", Statement: "SELECT $1"}, "app", ""}

// put puts an answer in place of the one that is had.
func (s *lookups) put(q question, set func(*lookup)) {
	l, _ := s.find(q)
	set(l)
	l.at = time.Now()
	close(l.done)
}

func TestAnswersHoldForAWhile(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*lookup)
		holds time.Duration
	}{
		"found":  {func(l *lookup) { l.known = true }, 30 * time.Second},
		"none":   {func(*lookup) {}, 5 * time.Second},
		"unfit":  {func(l *lookup) { l.unfit = errors.New("md5") }, 5 * time.Second},
		"failed": {func(l *lookup) { l.failed = errors.New("gone") }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s lookups
			if _, isNew := s.find(aQuestion); !isNew {
				t.Fatalf("%s: known before it was asked", name)
			}
			if _, isNew := s.find(aQuestion); isNew {
				t.Errorf("%s: asked twice at once", name)
			}
			s.put(aQuestion, c.set)
			if c.holds > 0 {
				if time.Sleep(c.holds - 1); isNewNow(&s, aQuestion) {
					t.Errorf("%s: asked again before %s", name, c.holds)
				}
				time.Sleep(time.Nanosecond)
			}
			if !isNewNow(&s, aQuestion) {
				t.Errorf("%s: not asked again after %s", name, c.holds)
			}
		})
	}
}

func isNewNow(s *lookups, q question) bool {
	_, isNew := s.find(q)
	return isNew
}

func TestWrongPasswordHasAnAnswerDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s lookups
		s.doubt(aQuestion) // nobody has asked
		s.find(aQuestion)
		s.doubt(aQuestion) // nobody has answered
		s.put(aQuestion, func(l *lookup) { l.known = true })
		time.Sleep(doubtAfter - 1)
		if s.doubt(aQuestion); isNewNow(&s, aQuestion) {
			t.Error("a very new answer was doubted")
		}
		time.Sleep(time.Nanosecond)
		if s.doubt(aQuestion); !isNewNow(&s, aQuestion) {
			t.Error("an older answer was not")
		}
	})
}

func TestAnswersAreForgottenAndBounded(t *testing.T) {
	var s lookups
	s.find(aQuestion)
	if s.forget(); !isNewNow(&s, aQuestion) {
		t.Error("an answer under way is given to those who ask after it was to be forgotten")
	}
	other := aQuestion
	other.query.Statement = "SELECT $1, 2"
	if !isNewNow(&s, other) {
		t.Error("another query has the same answer")
	}
	for n := range 2 * maxLookups {
		s.find(question{aQuestion.query, fmt.Sprint(n), ""})
		if len(s.all) > maxLookups {
			t.Fatalf("%d are kept", len(s.all))
		}
	}
}

// TestNullsOfAFunctionAreNoRole: PgBouncer's documentation has such a function.
func TestNullsOfAFunctionAreNoRole(t *testing.T) {
	for name, c := range map[string]struct {
		x    core.Exchange
		text string
		ok   bool
	}{
		"no row":           {core.Exchange{}, "", true},
		"a row of NULLs":   {core.Exchange{Seen: 1, Rows: [][]string{{"", ""}}}, "", true},
		"no password":      {core.Exchange{Seen: 1, Rows: [][]string{{"app", ""}}}, "", true},
		"a password":       {core.Exchange{Seen: 1, Rows: [][]string{{"app", "x"}}}, "x", true},
		"nobody's":         {core.Exchange{Seen: 1, Rows: [][]string{{"", "x"}}}, "", false},
		"somebody else's":  {core.Exchange{Seen: 1, Rows: [][]string{{"postgres", "x"}}}, "", false},
		"one of two":       {core.Exchange{Seen: 2, Rows: [][]string{{"app", "x"}}}, "", false},
		"and nothing more": {core.Exchange{Seen: 1, Rows: [][]string{{"app"}}}, "", false},
	} {
		if text, err := aQuestion.read(c.x); text != c.text || (err == nil) != c.ok {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
