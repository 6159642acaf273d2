package pooler

import (
	"cmp"
	"fmt"
	"maps"
	"time"

	"github.com/armordb/armordb/armor"
)

// The template's pools have a part for each database that clients ask for. What a
// client can make, it can make many of: parts that are of no use are forgotten, and
// there is a bound.

// maxParts is how many parts a template's pool has on one node before new ones are
// refused.
const maxParts = 1000

// part names what server connections of a pool can be lent for one another.
type part struct {
	role   string
	dbname string // of the database that the template was asked for, or of the console; else empty
	words  string // of the login, where they are not everybody's
}

// database is the part's name in tables for people.
func (p part) database(cfg armor.Pool) string {
	if p.dbname != "" {
		return p.dbname
	}
	return cfg.Database
}

// partOf is the part of a pool that a grant and a login's terms lead to.
func partOf(a armor.Access, role string, t *terms) part {
	p := part{role: role, words: t.words()}
	switch {
	case armor.IsTemplate(a.Database.Name):
		p.dbname = a.Database.DBName
	case armor.IsConsole(a.Database.Name):
		p.dbname = a.Database.Name
	}
	return p
}

// subpool is one part of a pool. Its pool's lock guards it.
type subpool struct {
	part
	terms   *terms        // of its logins; nil: those of everybody
	idle    []*ServerConn // the longest unused first
	live    int           // connections that are logged in and not being ended
	opening int           // logins under way
	coming  int           // connections that will be idle soon: logins, resets, and those held for a cancel

	promised int  // in a round: of those that are coming, how many are meant for waiters seen before
	stuck    bool // in a round: nothing more can be done for its waiters

	known   bool      // it has logged in before, or is to be warm from the start
	lends   uint64    // how often it has lent
	lendsAt uint64    // lends when it was last tended
	usedAt  time.Time // when that was last seen to change

	backoff // of logins that fail
	reports reports
}

// partLocked returns the part of the pool that a borrower is lent from.
func (p *pool) partLocked(by *borrower) *subpool {
	if sub := p.subs[by.part]; sub != nil {
		return sub
	}
	if by.terms != nil {
		p.forgetTermsLocked()
	}
	sub := p.subLocked(by.part)
	sub.terms = by.terms
	return sub
}

// subLocked returns a part of the pool.
func (p *pool) subLocked(of part) *subpool {
	sub := p.subs[of]
	if sub == nil {
		sub = &subpool{part: of}
		p.subs[of] = sub
	}
	return sub
}

// tooManyPartsLocked refuses a client that would need one part too many.
func (p *pool) tooManyPartsLocked(of part) *armor.Denial {
	if of.dbname == "" || p.subs[of] != nil || len(p.subs) < maxParts {
		return nil
	}
	return &armor.Denial{
		Reason:  armor.ReasonLimit,
		Message: fmt.Sprintf("too many databases of pool %q on this node", p.cfg.Name),
		Detail: fmt.Sprintf("The template serves %d at once on each node. Those that nobody uses are forgotten after %s.",
			maxParts, p.partIdleLocked()),
	}
}

// partIdleLocked is how long a database of the template is served that nobody uses.
func (p *pool) partIdleLocked() time.Duration { return cmp.Or(p.cfg.PoolIdle, armor.DefaultPoolIdle) }

// forgetPartsLocked ends what is idle in those parts of the template that nobody has
// used for so long, and forgets those that have nothing.
func (p *pool) forgetPartsLocked(now time.Time) (todo []func()) {
	if !armor.IsTemplate(p.cfg.Database) {
		return nil
	}
	for _, sub := range p.subs {
		if sub.usedAt.IsZero() || sub.lends != sub.lendsAt || sub.live > len(sub.idle) {
			sub.usedAt, sub.lendsAt = now, sub.lends
		}
		if unused := now.Sub(sub.usedAt) >= p.partIdleLocked(); unused {
			sub.known = false
			for len(sub.idle) > 0 {
				todo = append(todo, p.endIdleLocked(sub.idle[0]))
			}
			p.forgetLocked(sub)
		} else if !sub.known && !sub.backingOff() {
			p.forgetLocked(sub)
		}
	}
	return todo
}

// forgetLocked forgets a part that has no connection and that nobody waits for.
func (p *pool) forgetLocked(sub *subpool) {
	if sub.live+sub.opening+sub.coming == 0 && !p.awaitedByLocked(sub) {
		delete(p.subs, sub.part)
	}
}

// forgetTermsLocked drops the parts with terms of their own that nobody uses, so that
// there are never many more than there are clients.
func (p *pool) forgetTermsLocked() {
	maps.DeleteFunc(p.subs, func(_ part, s *subpool) bool {
		return s.terms != nil && s.live+s.opening+s.coming == 0 && !s.backingOff() && !p.awaitedByLocked(s)
	})
}

// awaitedByLocked reports whether a client waits for a connection of the part.
func (p *pool) awaitedByLocked(sub *subpool) bool {
	for e := p.waiters.Front(); e != nil; e = e.Next() {
		if e.Value.(*waiter).sub == sub {
			return true
		}
	}
	return false
}

// removeIdle reports whether the connection lay idle.
func (s *subpool) removeIdle(c *ServerConn) bool {
	for i, other := range s.idle {
		if other == c {
			copy(s.idle[i:], s.idle[i+1:])
			s.idle[len(s.idle)-1] = nil
			s.idle = s.idle[:len(s.idle)-1]
			return true
		}
	}
	return false
}
