package password

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
)

var aQuestion = Question{armor.AuthQuery{Role: "asker", Statement: "SELECT $1"}, "app", ""}

// put puts an answer in place of the one that is had.
func (s *Lookups) put(q Question, set func(*Lookup)) {
	l, _ := s.find(q)
	set(l)
	l.at = time.Now()
	close(l.done)
}

func TestAnswersHoldForAWhile(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*Lookup)
		holds time.Duration
	}{
		"found":  {func(l *Lookup) { l.found.Known = true }, 30 * time.Second},
		"none":   {func(*Lookup) {}, 5 * time.Second},
		"unfit":  {func(l *Lookup) { l.err, l.unfit = errors.New("md5"), true }, 5 * time.Second},
		"failed": {func(l *Lookup) { l.err = errors.New("gone") }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s Lookups
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

func isNewNow(s *Lookups, q Question) bool {
	_, isNew := s.find(q)
	return isNew
}

func TestWrongPasswordHasAnAnswerDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Lookups
		s.Doubt(aQuestion) // nobody has asked
		s.find(aQuestion)
		s.Doubt(aQuestion) // nobody has answered
		s.put(aQuestion, func(l *Lookup) { l.found.Known = true })
		time.Sleep(doubtAfter - 1)
		if s.Doubt(aQuestion); isNewNow(&s, aQuestion) {
			t.Error("a very new answer was doubted")
		}
		time.Sleep(time.Nanosecond)
		if s.Doubt(aQuestion); !isNewNow(&s, aQuestion) {
			t.Error("an older answer was not")
		}
	})
}

func TestAnswersAreForgottenAndBounded(t *testing.T) {
	var s Lookups
	s.find(aQuestion)
	if s.Forget(); !isNewNow(&s, aQuestion) {
		t.Error("an answer under way is given to those who ask after it was to be forgotten")
	}
	other := aQuestion
	other.Query.Statement = "SELECT $1, 2"
	if !isNewNow(&s, other) {
		t.Error("another query has the same answer")
	}
	for n := range 2 * maxLookups {
		s.find(Question{aQuestion.Query, fmt.Sprint(n), ""})
		if len(s.all) > maxLookups {
			t.Fatalf("%d are kept", len(s.all))
		}
	}
}

// TestNullsOfAFunctionAreNoRole: PgBouncer's documentation has such a function.
func TestNullsOfAFunctionAreNoRole(t *testing.T) {
	for name, c := range map[string]struct {
		r    Reply
		text string
		ok   bool
	}{
		"no row":           {Reply{}, "", true},
		"a row of NULLs":   {Reply{1, []string{"", ""}}, "", true},
		"no password":      {Reply{1, []string{"app", ""}}, "", true},
		"a password":       {Reply{1, []string{"app", "x"}}, "x", true},
		"nobody's":         {Reply{1, []string{"", "x"}}, "", false},
		"somebody else's":  {Reply{1, []string{"postgres", "x"}}, "", false},
		"one of two":       {Reply{2, []string{"app", "x"}}, "", false},
		"and nothing more": {Reply{1, []string{"app"}}, "", false},
	} {
		if text, err := aQuestion.read(c.r); text != c.text || (err == nil) != c.ok {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
