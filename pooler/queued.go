package pooler

import (
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// alarm goes off when something is due for a client in a pool's queue. One timer serves
// all of them: most waits are over long before anything is due, and set no timer.
type alarm struct {
	timer *time.Timer
	at    time.Time // when it goes off; zero when it is not set
}

// alarmLocked sees to it that the queue is looked at when something is due, or earlier.
func (p *pool) alarmLocked(due time.Time) {
	switch a := &p.alarm; {
	case p.switches.paused: // resume looks again
	case !a.at.IsZero() && !due.Before(a.at):
	case a.timer == nil:
		a.at, a.timer = due, time.AfterFunc(time.Until(due), p.lookAtQueue)
	default:
		a.at = due
		a.timer.Reset(time.Until(due))
	}
}

// lookAgainLocked has the queue looked at now: what is due may have changed.
func (p *pool) lookAgainLocked() {
	if p.waiters.Len() > 0 {
		p.alarmLocked(time.Now())
	}
}

// dueLocked returns when something is next to be done for a waiter, after now.
func (p *pool) dueLocked(w *waiter, now time.Time) time.Time {
	due := w.from.Add(p.queryWaitLocked())
	sooner := func(after time.Duration) {
		if at := w.since.Add(after); at.Before(due) {
			due = at
		}
	}
	if p.cfg.QueryWaitNotify > 0 && !w.told {
		sooner(p.cfg.QueryWaitNotify)
	}
	if p.cfg.Reserve > 0 && now.Sub(w.since) < p.cfg.ReserveAfter {
		sooner(p.cfg.ReserveAfter)
	}
	return due
}

func (p *pool) queryWaitLocked() time.Duration {
	if p.cfg.QueryWait > 0 {
		return p.cfg.QueryWait
	}
	return armor.DefaultQueryWait
}

// lookAtQueue refuses those that have waited too long, tells those that have waited
// for a while, and serves those from the reserve that may have it by now.
func (p *pool) lookAtQueue() {
	p.locked(func() (todo []func()) {
		p.alarm.at = time.Time{}
		if p.switches.paused {
			return nil
		}
		now := time.Now()
		for e := p.waiters.Front(); e != nil; {
			w, next := e.Value.(*waiter), e.Next()
			todo = append(todo, p.whatIsDueLocked(w, now)...)
			if w.place != nil {
				p.alarmLocked(p.dueLocked(w, now))
			}
			e = next
		}
		return append(todo, p.settleLocked()...)
	})
}

func (p *pool) whatIsDueLocked(w *waiter, now time.Time) []func() {
	waited, wait := now.Sub(w.since), p.queryWaitLocked()
	switch after := p.cfg.QueryWaitNotify; {
	case now.Before(w.from.Add(wait)) && after > 0 && !w.told && waited >= after:
		w.told = true
		if tell, notice := w.by.queued, queuedNotice(); tell != nil {
			notice.Detail = p.shortLocked()
			return []func(){func() { tell(notice) }}
		}
		return nil
	case now.Before(w.from.Add(wait)):
		return nil
	default:
		return p.failLocked(w, w.sub.endOfWaitLocked(p, wait))
	}
}

func queuedNotice() *pgwire.Error {
	return &pgwire.Error{
		Severity: pgwire.SeverityNotice, Code: "00000", Message: "no server connection is available, the client is queued",
		Hint: "It goes on as soon as one becomes free.",
	}
}
