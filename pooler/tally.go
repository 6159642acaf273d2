package pooler

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/core"
)

// counted is what is counted of a pool. The pool's lock guards all but waited and logins.
type counted struct {
	done   core.Counts // over server connections that have come back
	loans  uint64      // that have ended
	lent   time.Duration
	waited atomic.Int64 // nanoseconds
	logins atomic.Uint64

	rates console.Rates  // of the last period
	base  console.Totals // when this one began
	since time.Time
}

// countLocked takes what was done over a connection that comes back.
func (p *pool) countLocked(c *ServerConn) {
	p.counted.done.Add(c.State().TakeCounts())
	p.counted.loans++
	c.prepared = c.State().Prepared()
}

// totalsLocked adds up what is known now.
func (p *pool) totalsLocked() console.Totals {
	return console.Totals{
		Counts: p.counted.done, Assignments: p.counted.loans + uint64(p.lentLocked()), Logins: p.counted.logins.Load(),
		Waited: time.Duration(p.counted.waited.Load()), Lent: p.counted.lent,
	}
}

func (p *pool) lentLocked() (n int) {
	for c := range p.conns {
		if c.lentTo != nil {
			n++
		}
	}
	return n
}

// sample notes how many connections are lent, for the time since the last sample, and
// ends a period that is over.
func (p *pool) sample(now time.Time, passed time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counted.lent += time.Duration(p.lentLocked()) * passed
	switch {
	case p.counted.since.IsZero():
		p.counted.since = now
	case now.Sub(p.counted.since) >= console.StatsPeriod:
		total := p.totalsLocked()
		p.counted.rates = console.RatesOf(p.counted.base, total, now.Sub(p.counted.since))
		p.counted.base, p.counted.since = total, now
	}
}

// Tally returns all pools there are, in the order of their keys.
func (p *Pooler) Tally() []console.Tally {
	now := time.Now()
	clients := map[*pool]map[part]int{}
	for _, c := range p.roster.all() {
		if clients[c.pool] == nil {
			clients[c.pool] = map[part]int{}
		}
		clients[c.pool][c.part]++
	}
	var all []console.Tally
	for _, pl := range p.allPools() {
		status, ok := p.status(pl)
		if !ok {
			continue
		}
		t := pl.tally(clients[pl], now)
		t.Status = status
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b console.Tally) int { return cmp.Compare(a.Status.Pool, b.Status.Pool) })
	return all
}

// tally counts; clients are how many there are of each part.
func (p *pool) tally(clients map[part]int, now time.Time) console.Tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := console.Tally{Config: p.cfg, Database: p.database, Totals: p.totalsLocked(), Rates: p.counted.rates}
	if p.counted.rates == (console.Rates{}) && now.Sub(p.counted.since) > time.Second && !p.counted.since.IsZero() {
		t.Rates = console.RatesOf(p.counted.base, t.Totals, now.Sub(p.counted.since)) // the first period is not over
	}
	roles := map[part]*console.RoleTally{}
	of := func(k part) *console.RoleTally {
		k.words = ""
		if roles[k] == nil {
			roles[k] = &console.RoleTally{Database: k.database(p.cfg), Role: k.role}
		}
		return roles[k]
	}
	for k, n := range clients {
		of(k).ClientsActive += n
	}
	for k, sub := range p.subs {
		r := of(k)
		r.Idle, r.Login = r.Idle+len(sub.idle), r.Login+sub.opening
	}
	for e := p.waiters.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		r := of(w.by.part)
		r.ClientsWaiting++
		r.ClientsActive = max(0, r.ClientsActive-1) // it may have come after the clients were counted
		r.MaxWait = max(r.MaxWait, now.Sub(w.since))
	}
	for c := range p.conns {
		countServer(of(c.sub.part), c)
	}
	for _, r := range roles {
		r.Tested -= r.Idle // they are in conns too
		t.Roles = append(t.Roles, *r)
	}
	slices.SortFunc(t.Roles, func(a, b console.RoleTally) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Role, b.Role))
	})
	return t
}

// countServer counts a connection that may lie idle as tested.
func countServer(r *console.RoleTally, c *ServerConn) {
	switch {
	case c.lentTo != nil:
		r.Active++
	case c.parked:
		r.Canceled++
	default:
		r.Tested++
	}
}
