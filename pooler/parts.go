package pooler

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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

// tooManyPartsLocked refuses a client that would need one part too many.
func (p *pool) tooManyPartsLocked(of part) *armor.Denial {
	if of.dbname == "" || p.subs[of] != nil || len(p.subs) < maxParts {
		return nil
	}
	return &armor.Denial{
		Reason:  armor.ReasonLimit,
		Message: fmt.Sprintf("too many databases of pool %q on this node", p.cfg.Name),
		Detail:  fmt.Sprintf("The template serves %d at once on each node. Those that nobody uses are forgotten after %s.", maxParts, p.home.cfg.AutoIdle),
	}
}

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
		if unused := now.Sub(sub.usedAt) >= p.home.cfg.AutoIdle; unused {
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

// explain makes PostgreSQL's answer to a name that the client has chosen the client's
// own error.
func (s *subpool) explain(err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if s.dbname == "" || !ok || refused.Code != stateNoDatabase || worthWaiting(err) {
		return err
	}
	return &failedLogin{cause: err, Denial: &armor.Denial{Reason: armor.ReasonNoDatabase, Message: refused.Message}}
}

// isClients reports whether the last login has failed because of the name that a
// client chose: there is no such database, or the role may not enter it, or nobody may.
func (s *subpool) isClients() bool {
	refused, ok := errors.AsType[*pgconn.PgError](s.failure)
	return ok && s.dbname != "" && slices.Contains([]string{stateNoDatabase, stateNotAllowed, stateNotInState}, refused.Code)
}
