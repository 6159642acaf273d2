package pooler

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/core"
)

// How long a part waits after a failed login before the next one.
const (
	firstBackoff = time.Second
	maxBackoff   = 15 * time.Second
)

// backoff is what failed logins of a part mean for the next ones.
type backoff struct {
	failures int       // in a row
	failure  error     // the last one's; nil without
	retryAt  time.Time // no login before
}

// backingOff reports whether it is too early for the next login.
func (b *backoff) backingOff() bool { return b.failures > 0 && time.Now().Before(b.retryAt) }

// mayPass reports whether the waiters of a role whose logins fail go on waiting.
func (b *backoff) mayPass() bool { return backend.Passing(b.failure) }

// loginFailedLocked notes a failed login: the next one waits, longer each time. One that
// was under way when another failed has failed for the same reason, and says nothing new.
func (s *subpool) loginFailedLocked(err error) (wait time.Duration) {
	s.failure = err
	if s.backingOff() {
		return time.Until(s.retryAt)
	}
	s.known = s.known && !s.isClients()
	if wait = firstBackoff; !s.mayPass() {
		wait = min(firstBackoff<<min(s.failures, 10), maxBackoff)
	}
	wait -= rand.N(wait / 4) // so that nodes do not ask in step
	s.failures++
	s.retryAt = time.Now().Add(wait)
	return wait
}

// loggedInLocked notes a login and what the connection reports.
func (s *subpool) loggedInLocked(params *core.Params) {
	s.live++
	s.known = s.terms == nil // else nobody may come again
	s.backoff = backoff{}
	s.reports.note(params)
}

// explain makes PostgreSQL's answer to a name that the client has chosen the client's
// own error.
func (s *subpool) explain(err error) error {
	refused := backend.Refusal(err)
	if s.dbname == "" || refused == nil || refused.Code != stateNoDatabase || backend.Passing(err) {
		return err
	}
	return &backend.LoginError{Cause: err, Denial: &armor.Denial{Reason: armor.ReasonNoDatabase, Message: refused.Message}}
}

// isClients reports whether the last login has failed because of the name that a
// client chose: there is no such database, or the role may not enter it, or nobody may.
func (s *subpool) isClients() bool {
	refused := backend.Refusal(s.failure)
	return refused != nil && s.dbname != "" && slices.Contains([]string{stateNoDatabase, stateNotAllowed, stateNotInState}, refused.Code)
}

// endOfWaitLocked is the refusal of a waiter who has waited as long as the pool allows.
func (s *subpool) endOfWaitLocked(p *pool, wait time.Duration) error {
	if s.live+s.coming == 0 && backend.Away(s.failure) {
		return s.failure
	}
	return &armor.Denial{
		Reason: armor.ReasonQueryWait, Message: fmt.Sprintf("no server connection became free within %s", wait), Detail: s.whyNoneLocked(p),
	}
}

// shortLocked says why the node has less of the pool than it might have; nothing if it has all.
func (p *pool) shortLocked() string {
	words := p.node.withheldOf(p.key)
	switch {
	case p.limit == 0:
		words = p.noShare()
	case words != "":
		words = "of the pool's budget " + words
	default:
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:] + "."
}

// whyNoneLocked is the detail of a waiter's refusal.
func (s *subpool) whyNoneLocked(p *pool) string {
	if failed, ok := errors.AsType[*backend.LoginError](s.failure); ok && failed.Passing && failed.Detail != "" {
		return failed.Detail
	}
	words := p.shortLocked()
	if p.limit == 0 {
		return words
	}
	return strings.TrimSpace("All server connections of the pool are in use. " + words)
}
