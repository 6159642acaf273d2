package console

import (
	"time"

	"github.com/armordb/armordb/pooler/core"
)

// Totals are what a pool has done on this node since it is there. What was done over a
// server connection that is lent now is in it once that comes back: counting costs
// sessions nothing.
type Totals struct {
	core.Counts
	Assignments uint64        // of a server connection to a client, those in force included
	Logins      uint64        // of clients
	Waited      time.Duration // clients, for a server connection
	// Lent is how long server connections were lent, all together. It is sampled: no
	// clock is read for a transaction.
	Lent time.Duration
}

// Rates are Totals by the second, of the latest StatsPeriod that is over; Waited and
// Lent are by the second too.
type Rates struct {
	Totals
	Transaction time.Duration // the mean time that a server connection was lent for a transaction
	Query       time.Duration // the same divided by queries
}

// StatsPeriod is what rates are the mean of (PgBouncer's stats_period).
const StatsPeriod = time.Minute

// RatesOf is what has happened between two totals, by the second.
func RatesOf(from, to Totals, took time.Duration) Rates {
	per := func(a, b uint64) uint64 { return uint64(float64(b-a) / took.Seconds()) }
	perTime := func(a, b time.Duration) time.Duration { return time.Duration(float64(b-a) / took.Seconds()) }
	r := Rates{Totals: Totals{
		Counts: core.Counts{
			Queries: per(from.Queries, to.Queries), Transactions: per(from.Transactions, to.Transactions),
			Received: per(from.Received, to.Received), Sent: per(from.Sent, to.Sent),
			ClientParses: per(from.ClientParses, to.ClientParses), ServerParses: per(from.ServerParses, to.ServerParses),
			Binds: per(from.Binds, to.Binds),
		},
		Assignments: per(from.Assignments, to.Assignments), Logins: per(from.Logins, to.Logins),
		Waited: perTime(from.Waited, to.Waited), Lent: perTime(from.Lent, to.Lent),
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
	t.Logins += o.Logins
	t.Waited += o.Waited
	t.Lent += o.Lent
}

// Add sums up rates; the means are those of the busier one.
func (r *Rates) Add(o Rates) {
	if o.Transactions > r.Transactions {
		r.Transaction, r.Query = o.Transaction, o.Query
	}
	r.Totals.Add(o.Totals)
}
