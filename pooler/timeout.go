package pooler

import (
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

// A session's time-outs are measured by looking at it now and then: a driver asks
// LookEvery how often, and Overdue whether it has to end. So a query costs no timer and
// no reading of a clock, and a session whose pool has no time-outs costs nothing. The
// price is that a time-out comes up to two looks late, and never early.

// How often sessions are looked at: an eighth of the shortest time-out, within bounds.
const (
	looksPerTimeOut = 8
	oftenest        = 10 * time.Millisecond
	rarest          = 5 * time.Second
)

// LookEvery returns how often Overdue is to be asked; 0: there are no time-outs. A
// replication connection has none: to stream for days is what it is for.
func (h *Handover) LookEvery() time.Duration {
	if h.client.terms.kind() != armor.NoReplication {
		return 0
	}
	return lookEvery(h.client.pool.config())
}

func lookEvery(p armor.Pool) time.Duration {
	shortest := time.Duration(0)
	for _, t := range []time.Duration{p.ClientIdle, p.IdleInTransaction, p.QueryTimeout, p.TransactionTimeout} {
		if t > 0 && (shortest == 0 || t < shortest) {
			shortest = t
		}
	}
	if shortest == 0 {
		return 0
	}
	return min(max(shortest/looksPerTimeOut, oftenest), rarest)
}

// OnTimeOuts registers what is called, from any goroutine, when the pool's time-outs
// have changed: LookEvery may say something else. It must not block.
func (h *Handover) OnTimeOuts(changed func()) {
	h.client.mu.Lock()
	defer h.client.mu.Unlock()
	h.client.timeOuts = changed
}

// Overdue returns the cause with which the session has to end now, given what it is
// doing, or nil. Calls must not overlap.
func (h *Handover) Overdue(now time.Time, a core.Activity) error {
	if d := h.watch.overdue(now, a, h.client.pool.config()); d != nil {
		return &overdue{d}
	}
	return nil
}

// overdue is the cause with which a session is cut by a time-out. It is recorded once
// the session is told.
type overdue struct{ *armor.Denial }

// Unwrap leads to the denial.
func (o *overdue) Unwrap() error { return o.Denial }

// stopwatch knows since when a session has been doing what it does.
type stopwatch struct {
	seen        core.Activity
	phase       time.Time // when this phase was first seen
	transaction time.Time // when this transaction was first seen
}

func (w *stopwatch) overdue(now time.Time, a core.Activity, p armor.Pool) *armor.Denial {
	if w.phase.IsZero() || a.Phase != w.seen.Phase || a.Turn != w.seen.Turn {
		w.phase = now
	}
	if w.transaction.IsZero() || a.Open != w.seen.Open || a.Transaction != w.seen.Transaction {
		w.transaction = now
	}
	w.seen = a
	over := func(since time.Time, limit time.Duration) bool { return limit > 0 && now.Sub(since) >= limit }
	switch {
	case a.Phase == core.Between && over(w.phase, p.ClientIdle):
		return timeOutDenial(armor.ReasonClientIdle, "idle-session", p.ClientIdle)
	case a.Phase == core.Holding && over(w.phase, p.IdleInTransaction):
		return timeOutDenial(armor.ReasonIdleInTransaction, "idle-in-transaction", p.IdleInTransaction)
	case a.Phase == core.Running && over(w.phase, p.QueryTimeout):
		return timeOutDenial(armor.ReasonQueryTimeout, "query", p.QueryTimeout)
	case a.Open && over(w.transaction, p.TransactionTimeout):
		return timeOutDenial(armor.ReasonTransactionTimeout, "transaction", p.TransactionTimeout)
	}
	return nil
}

// timeOutDenial is in PostgreSQL's words, where it has such a time-out.
func timeOutDenial(reason armor.Reason, what string, limit time.Duration) *armor.Denial {
	return &armor.Denial{
		Reason: reason, Message: fmt.Sprintf("terminating connection due to %s timeout", what),
		Detail: fmt.Sprintf("The pool allows %s.", limit),
	}
}

// tellTimeOuts tells the sessions of a pool that its time-outs have changed.
func (p *Pooler) tellTimeOuts(pl *pool) {
	for _, c := range p.roster.of(pl) {
		c.mu.Lock()
		changed := c.timeOuts
		c.mu.Unlock()
		if changed != nil {
			changed()
		}
	}
}
