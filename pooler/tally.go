package pooler

import (
	"cmp"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// Tally is what a node knows of one of its pools: for metrics and the admin console.
type Tally struct {
	Config   armor.Pool
	Database armor.Database
	Status   armor.PoolStatus
	Totals   Totals
	Rates    Rates
	Roles    []RoleTally // in the order of their databases and names
}

// RoleTally is the part of a pool that logs in as one role and, in the template's pools,
// to one database. Each of its clients and server connections is counted once.
type RoleTally struct {
	Database       string // as clients ask for it
	Role           string
	ClientsActive  int // all that do not wait
	ClientsWaiting int
	MaxWait        time.Duration // how long the first in the queue has waited
	Active         int           // server connections that are lent
	Idle           int
	Tested         int // being reset or ended
	Canceled       int // kept back while a cancel request is under way
	Login          int // being opened
}

// Tally returns all pools there are, in the order of their keys.
func (p *Pooler) Tally() []Tally {
	now := time.Now()
	clients := map[*pool]map[part]int{}
	for _, c := range p.allClients() {
		if clients[c.pool] == nil {
			clients[c.pool] = map[part]int{}
		}
		clients[c.pool][c.part]++
	}
	var all []Tally
	for _, pl := range p.allPools() {
		status, ok := p.status(pl)
		if !ok {
			continue
		}
		t := pl.tally(clients[pl], now)
		t.Status = status
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Tally) int { return cmp.Compare(a.Status.Pool, b.Status.Pool) })
	return all
}

// tally counts; clients are how many there are of each part.
func (p *pool) tally(clients map[part]int, now time.Time) Tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := Tally{Config: p.cfg, Database: p.database, Totals: p.totalsLocked(), Rates: p.counted.rates}
	if p.counted.rates == (Rates{}) && now.Sub(p.counted.since) > time.Second && !p.counted.since.IsZero() {
		t.Rates = ratesOf(p.counted.base, t.Totals, now.Sub(p.counted.since)) // the first period is not over
	}
	roles := map[part]*RoleTally{}
	of := func(k part) *RoleTally {
		k.words = ""
		if roles[k] == nil {
			roles[k] = &RoleTally{Database: k.database(p.cfg), Role: k.role}
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
		of(c.sub.part).countServer(c)
	}
	for _, r := range roles {
		r.Tested -= r.Idle // they are in conns too
		t.Roles = append(t.Roles, *r)
	}
	slices.SortFunc(t.Roles, func(a, b RoleTally) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Role, b.Role))
	})
	return t
}

// countServer counts a connection that may lie idle as tested.
func (r *RoleTally) countServer(c *ServerConn) {
	switch {
	case c.lentTo != nil:
		r.Active++
	case c.parked:
		r.Canceled++
	default:
		r.Tested++
	}
}
