package pooler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
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

// lookups are what a database's own query has said of the passwords of roles. A role is
// asked about by one question at a time, whoever waits for the answer.
type lookups struct {
	mu  sync.Mutex // guards below; never held while another lock is
	all map[question]*lookup
}

// question is what PostgreSQL is asked: another query is another question.
type question struct {
	query  armor.AuthQuery
	role   string
	dbname string // of the database that the template was asked for; else empty
}

// questionOf is what is to be asked of a client.
func (c *client) questionOf(d armor.Database) question {
	return question{d.Query, c.part.role, c.part.dbname}
}

// lookup is one question and its answer, which is set once done is closed.
type lookup struct {
	question
	done     chan struct{}
	at       time.Time // of the answer
	verifier verifier
	known    bool
	unfit    error // what PostgreSQL has is no verifier of ours
	failed   error // nobody has answered
}

// find returns the lookup of a question, and whether it is a new one, which the caller
// is to have answered.
func (s *lookups) find(q question) (l *lookup, isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[q]; l != nil && l.holds(time.Now()) {
		return l, false
	}
	if s.all == nil || len(s.all) >= maxLookups {
		s.all = map[question]*lookup{}
	}
	l = &lookup{question: q, done: make(chan struct{})}
	s.all[q] = l
	return l, true
}

// holds reports whether the answer is still to be had, or still good.
func (l *lookup) holds(now time.Time) bool {
	if !l.answered() {
		return true
	}
	switch age := now.Sub(l.at); {
	case l.failed != nil:
		return false
	case l.known:
		return age < foundFor
	default:
		return age < missingFor
	}
}

// doubt has a role asked about again if its answer is not a very new one: its password
// may have been changed since.
func (s *lookups) doubt(q question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[q]; l != nil && l.answered() && time.Since(l.at) >= doubtAfter {
		delete(s.all, q)
	}
}

func (l *lookup) answered() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// forget drops all answers, and those that are under way are for those that wait for
// them alone.
func (s *lookups) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = nil
}

// lookUp returns what PostgreSQL says of the password of a role, or the cause with which
// ctx has ended.
func (p *pool) lookUp(ctx context.Context, q question) (*lookup, error) {
	l, isNew := p.lookups.find(q)
	if isNew {
		p.home.errands.add(func(ctx context.Context) { p.answer(ctx, l) })
	}
	select {
	case <-l.done:
		return l, errors.Join(l.failed, l.unfit)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answer asks PostgreSQL.
func (p *pool) answer(ctx context.Context, l *lookup) {
	text, err := p.askFor(ctx, l.question)
	result := "none"
	switch {
	case err != nil:
		l.failed, result = err, "failed"
	case text != "":
		result = "found"
		if l.verifier, l.unfit = parseVerifier(text); l.unfit != nil {
			l.unfit, result = fmt.Errorf("the password of role %q: %w", l.role, l.unfit), "unfit"
		}
		l.known = l.unfit == nil
	}
	if hook := p.home.cfg.Hooks.Lookup; hook != nil {
		hook(result)
	}
	l.at = time.Now()
	close(l.done)
}

// askFor runs the query on a server connection of the query's own role, in a place of
// the pool like any other. It returns nothing for a role that has no password.
func (p *pool) askFor(ctx context.Context, q question) (text string, err error) {
	asker := &client{home: p.home, pool: p, part: part{role: q.query.Role, dbname: q.dbname}, id: p.home.nextID.Add(1), application: "armor"}
	server, err := p.await(ctx, asker)
	if err != nil {
		return "", err
	}
	x := core.Exchange{Keep: 1}
	err = server.wire.Ask(ctx, pgwire.AppendQueryWith(nil, q.query.Statement, q.role), &x, p.home.cfg.LookupTimeout)
	if err != nil {
		server.Discard()
		return "", fmt.Errorf("ask PostgreSQL for a verifier: %w", err)
	}
	server.Release(nil)
	if x.Err != nil {
		return "", fmt.Errorf("ask PostgreSQL for a verifier: %w", x.Err)
	}
	return q.read(x)
}

// read takes the password out of the answer. Its errors repeat nothing of it.
func (q question) read(x core.Exchange) (string, error) {
	switch {
	case x.Seen == 0:
		return "", nil
	case x.Seen > 1:
		return "", fmt.Errorf("%w: the query for verifiers returns %d rows for one role", armor.ErrInvalid, x.Seen)
	case len(x.Rows[0]) != 2:
		return "", fmt.Errorf("%w: the query for verifiers returns %d columns, which should be a role and its password", armor.ErrInvalid, len(x.Rows[0]))
	case x.Rows[0][0] == "" && x.Rows[0][1] == "": // what a function returns that has found nothing
		return "", nil
	case x.Rows[0][0] != q.role:
		return "", fmt.Errorf("%w: the query for verifiers returns another role than it was asked about", armor.ErrInvalid)
	}
	return x.Rows[0][1], nil
}

// ordinary is what PostgreSQL makes of a password, for decoys to look like.
var ordinary = verifier{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: "sixteen bytes of", Iters: minIterations}}}

// verifierFor returns what the password of a client is checked by, wherever the
// database has it from; see verifierOf.
func (p *Pooler) verifierFor(ctx context.Context, c *client, d armor.Database) (v verifier, known bool, err error) {
	if d.Query == (armor.AuthQuery{}) {
		return p.verifierOf(d.Verifiers, c.part.role)
	}
	l, err := c.pool.lookUp(ctx, c.questionOf(d))
	if err != nil {
		return verifier{}, false, err
	}
	if decoy := p.decoy(c.part.role, ordinary); !l.known {
		return decoy, false, nil
	}
	return l.verifier, true, nil
}
