package pooler

import (
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/pooler/core"
)

// Totals are what a pool has done on this node since it is there. What was done over a
// server connection that is lent now is in it once that comes back: counting costs
// sessions nothing.
type Totals struct {
	core.Counts
	Assignments uint64        // of a server connection to a client, those in force included
	Waited      time.Duration // clients, for a server connection
	// Lent is how long server connections were lent, all together. It is sampled: no
	// clock is read for a transaction.
	Lent time.Duration
}

// Rates are Totals by the second, of the latest statsPeriod that is over; Waited and
// Lent are by the second too.
type Rates struct {
	Totals
	Transaction time.Duration // the mean time that a server connection was lent for a transaction
	Query       time.Duration // the same divided by queries
}

// statsPeriod is what rates are the mean of (PgBouncer's stats_period).
const statsPeriod = time.Minute

// counted is what is counted of a pool. The pool's lock guards all but waited.
type counted struct {
	done   core.Counts // over server connections that have come back
	loans  uint64      // that have ended
	lent   time.Duration
	waited atomic.Int64 // nanoseconds

	rates Rates  // of the last period
	base  Totals // when this one began
	since time.Time
}

// countLocked takes what was done over a connection that comes back.
func (p *pool) countLocked(c *ServerConn) {
	p.counted.done.Add(c.wire.State().TakeCounts())
	p.counted.loans++
	c.prepared = c.wire.State().Prepared()
}

// totalsLocked adds up what is known now.
func (p *pool) totalsLocked() Totals {
	return Totals{
		Counts: p.counted.done, Assignments: p.counted.loans + uint64(p.lentLocked()),
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
	case now.Sub(p.counted.since) >= statsPeriod:
		total := p.totalsLocked()
		p.counted.rates = ratesOf(p.counted.base, total, now.Sub(p.counted.since))
		p.counted.base, p.counted.since = total, now
	}
}

// ratesOf is what has happened between two totals, by the second.
func ratesOf(from, to Totals, took time.Duration) Rates {
	per := func(a, b uint64) uint64 { return uint64(float64(b-a) / took.Seconds()) }
	perTime := func(a, b time.Duration) time.Duration { return time.Duration(float64(b-a) / took.Seconds()) }
	r := Rates{Totals: Totals{
		Counts: core.Counts{
			Queries: per(from.Queries, to.Queries), Transactions: per(from.Transactions, to.Transactions),
			Received: per(from.Received, to.Received), Sent: per(from.Sent, to.Sent),
			ClientParses: per(from.ClientParses, to.ClientParses), ServerParses: per(from.ServerParses, to.ServerParses),
			Binds: per(from.Binds, to.Binds),
		},
		Assignments: per(from.Assignments, to.Assignments),
		Waited:      perTime(from.Waited, to.Waited), Lent: perTime(from.Lent, to.Lent),
	}}
	r.Transaction = mean(to.Lent-from.Lent, to.Transactions-from.Transactions)
	r.Query = mean(to.Lent-from.Lent, to.Queries-from.Queries)
	return r
}

func mean(sum time.Duration, n uint64) time.Duration {
	if n == 0 {
		return 0
	}
	return sum / time.Duration(n)
}

// Add sums up two pools of one database.
func (t *Totals) Add(o Totals) {
	t.Counts.Add(o.Counts)
	t.Assignments += o.Assignments
	t.Waited += o.Waited
	t.Lent += o.Lent
}

// add sums up rates; the means are those of the busier one.
func (r *Rates) add(o Rates) {
	if o.Transactions > r.Transactions {
		r.Transaction, r.Query = o.Transaction, o.Query
	}
	r.Totals.Add(o.Totals)
}
