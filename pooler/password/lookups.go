package password

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// How long the answers about a role's password hold: that there is one, and that there
// is none or one of no use.
const (
	foundFor   = 30 * time.Second
	missingFor = 5 * time.Second
	// doubtAfter is how old an answer must be for a wrong password to have it asked again,
	// so that who guesses does not make PostgreSQL work for each guess.
	doubtAfter = time.Second
	// maxLookups bounds the answers that are kept; grants name roles, so there are few.
	maxLookups = 4096
)

// Lookups are what a database's own query has said of the passwords of roles. A role is
// asked about by one question at a time, whoever waits for the answer. The zero value is
// ready, and its methods may be called from any goroutine.
type Lookups struct {
	mu  sync.Mutex // guards below; never held while another lock is
	all map[Question]*Lookup
}

// Question is what PostgreSQL is asked: another query is another question.
type Question struct {
	Query  armor.AuthQuery
	Role   string
	DBName string // of the database that the template was asked for; else empty
}

// Lookup is a question and, in time, its answer.
type Lookup struct {
	Question

	done  chan struct{} // closed when the rest is set
	at    time.Time     // of the answer
	found Found
	err   error // nobody has answered, or the answer is no verifier of ours
	unfit bool  // the latter: to be kept for a while all the same
}

// Reply is what the query has returned.
type Reply struct {
	Rows  int      // how many
	First []string // of them; a NULL is empty
}

// Find returns what is known of the question, or the cause with which ctx has ended.
// What nobody has asked yet, or what is out of date, ask is to have asked: it must not
// block, and Answer is to be called in time, since others may wait for the same.
func (s *Lookups) Find(ctx context.Context, q Question, ask func(*Lookup)) (Found, error) {
	l, isNew := s.find(q)
	if isNew {
		ask(l)
	}
	select {
	case <-l.done:
		return l.found, l.err
	case <-ctx.Done():
		return Found{}, context.Cause(ctx)
	}
}

// find returns the lookup of a question, and whether it is a new one.
func (s *Lookups) find(q Question) (l *Lookup, isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[q]; l != nil && l.holds(time.Now()) {
		return l, false
	}
	if s.all == nil || len(s.all) >= maxLookups {
		s.all = map[Question]*Lookup{}
	}
	l = &Lookup{Question: q, done: make(chan struct{})}
	s.all[q] = l
	return l, true
}

// Doubt has a question asked again if its answer is not a very new one: the password may
// have been changed since.
func (s *Lookups) Doubt(q Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[q]; l != nil && l.answered() && time.Since(l.at) >= doubtAfter {
		delete(s.all, q)
	}
}

// Forget drops all answers, and those that are under way are for those that wait for
// them alone.
func (s *Lookups) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = nil
}

// holds reports whether the answer is still to be had, or still good.
func (l *Lookup) holds(now time.Time) bool {
	if !l.answered() {
		return true
	}
	switch age := now.Sub(l.at); {
	case l.err != nil && !l.unfit:
		return false
	case l.found.Known:
		return age < foundFor
	default:
		return age < missingFor
	}
}

func (l *Lookup) answered() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Answer gives those that wait what the query has returned, or why there is nothing. Before
// that it calls tell, unless that is nil, with one word for metrics.
func (l *Lookup) Answer(r Reply, err error, tell func(result string)) {
	result := l.take(r, err)
	if tell != nil {
		tell(result)
	}
	l.at = time.Now()
	close(l.done)
}

func (l *Lookup) take(r Reply, err error) (result string) {
	text := ""
	if err == nil {
		text, err = l.read(r)
	}
	l.found = Found{Verifier: ordinary}
	switch {
	case err != nil:
		l.err = err
		return "failed"
	case text == "":
		return "none"
	}
	v, err := Parse(text)
	if err != nil {
		l.err, l.unfit = fmt.Errorf("the password of role %q: %w", l.Role, err), true
		return "unfit"
	}
	l.found = Found{v, true}
	return "found"
}

// read takes the password out of a reply; it is empty for a role that has none. Its errors
// repeat nothing of it.
func (q Question) read(r Reply) (string, error) {
	switch {
	case r.Rows == 0:
		return "", nil
	case r.Rows > 1:
		return "", fmt.Errorf("%w: the query for verifiers returns %d rows for one role", armor.ErrInvalid, r.Rows)
	case len(r.First) != 2:
		return "", fmt.Errorf("%w: the query for verifiers returns %d columns, which should be a role and its password",
			armor.ErrInvalid, len(r.First))
	case r.First[0] == "" && r.First[1] == "": // what a function returns that has found nothing
		return "", nil
	case r.First[0] != q.Role:
		return "", fmt.Errorf("%w: the query for verifiers returns another role than it was asked about", armor.ErrInvalid)
	}
	return r.First[1], nil
}
