package pooler

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// borrower is who is lent a pool's server connections: a client, or the pooler itself when
// it asks PostgreSQL something.
type borrower struct {
	part        part   // of the pool, that it is lent from; immutable, as is all down to isolation
	terms       *terms // of the logins there; nil: those of everybody
	id          uint64 // unique in the process
	owner       string // who the client is: see ownerOf
	application string // the client's name for itself
	isolation   armor.Isolation

	// Guarded by the pool's lock:
	waiting *waiter             // nil: it does not
	lent    *ServerConn         // nil: it has none
	queued  func(*pgwire.Error) // tells it that it has waited for long; nil: it is not told
}

// waiter is a borrower that waits for a server connection. Its pool's lock guards it.
type waiter struct {
	by    *borrower
	sub   *subpool
	since time.Time     // it has waited
	from  time.Time     // when its query wait began: since, or when the pool was resumed
	told  bool          // that it waits
	place *list.Element // nil once it is out of the queue
	gone  bool          // nobody wants the connection any more
	// grant is called exactly once unless abandon took the waiter out of the queue
	// first. It must not block.
	grant func(*ServerConn, error)
}

// acquire lends a server connection of the borrower's part: at once, or when it is its
// turn. It returns a function that takes the borrower out of the queue, and reports
// false if grant was or is being called.
func (p *pool) acquire(by *borrower, grant func(*ServerConn, error)) (abandon func() bool) {
	now := time.Now()
	w := &waiter{by: by, since: now, from: now, grant: grant}
	p.locked(func() []func() {
		w.sub = p.partLocked(by)
		if p.lendsAtOnceLocked(w.sub) && !w.sub.best(by).soiledFor(by) {
			return p.lendLocked(w)
		}
		w.place = p.waiters.PushBack(w)
		by.waiting = w
		todo := p.settleLocked()
		if w.place != nil {
			p.alarmLocked(p.dueLocked(w, now))
		}
		return todo
	})
	return func() bool { return p.abandon(w) }
}

// await lends a server connection, or returns why there is none, or the cause with
// which ctx has ended meanwhile.
func (p *pool) await(ctx context.Context, by *borrower) (*ServerConn, error) {
	type answer struct {
		server *ServerConn
		err    error
	}
	got := make(chan answer, 1)
	abandon := p.acquire(by, func(s *ServerConn, err error) { got <- answer{s, err} })
	select {
	case a := <-got:
		if a.err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return a.server, a.err
	case <-ctx.Done():
		if !abandon() {
			if a := <-got; a.server != nil {
				a.server.Release(nil)
			}
		}
		return nil, context.Cause(ctx)
	}
}

// lendAtOnce lends an idle server connection if there is one and nobody waits; else it
// returns nil, and the borrower may acquire. It allocates nothing.
func (p *pool) lendAtOnce(by *borrower) *ServerConn {
	c := p.takeIdle(by)
	if c != nil && p.waited != nil {
		p.waited(0)
	}
	return c
}

func (p *pool) takeIdle(by *borrower) *ServerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub := p.subs[by.part]
	if sub == nil || !p.lendsAtOnceLocked(sub) {
		return nil
	}
	i := sub.choose(by)
	if c := sub.idle[i]; !c.wire.Quiet() || c.soiledFor(by) {
		return nil // acquire looks at what has arrived, and resets
	}
	return sub.takeLocked(i, by)
}

// choose returns which of the idle connections is the best for a borrower: the one that was
// used last of those that its owner has used last, since nothing needs to be reset there; else
// one that nobody has used; else the one that another owner is least likely to ask for again,
// which is the longest unused. There must be an idle one.
func (s *subpool) choose(by *borrower) int {
	unused := -1
	for i := len(s.idle) - 1; i >= 0; i-- {
		switch s.idle[i].owner {
		case by.owner:
			return i
		case "":
			unused = max(unused, i)
		}
	}
	return max(unused, 0)
}

// best is the idle connection that choose chooses.
func (s *subpool) best(by *borrower) *ServerConn { return s.idle[s.choose(by)] }

// takeLocked lends an idle connection.
func (s *subpool) takeLocked(i int, by *borrower) *ServerConn {
	c := s.idle[i]
	s.idle = slices.Delete(s.idle, i, i+1)
	c.lentTo, by.lent, c.owner, c.used = by, c, by.owner, true
	c.State().KeepPrepared(cmp.Or(c.pool.cfg.MaxPreparedStatements, armor.DefaultPreparedStatements))
	s.lends++
	return c
}

// lendsAtOnceLocked reports whether a borrower that comes now need not wait its turn.
func (p *pool) lendsAtOnceLocked(sub *subpool) bool {
	return p.waiters.Len() == 0 && len(sub.idle) > 0 && p.fitLocked()
}

// fitLocked reports whether all idle connections may be lent.
func (p *pool) fitLocked() bool { return !p.retired && p.open-p.closing <= p.limit }

func (p *pool) abandon(w *waiter) (abandoned bool) {
	p.locked(func() []func() {
		w.gone = true
		if w.place == nil {
			return nil
		}
		abandoned = true
		p.leaveLocked(w)
		return p.settleLocked()
	})
	return abandoned
}

// leaveLocked takes a waiter out of the queue if it is in it.
func (p *pool) leaveLocked(w *waiter) {
	if w.place == nil {
		return
	}
	p.waiters.Remove(w.place)
	w.place, w.by.waiting = nil, nil
}

// refuse takes a waiter out of the queue with an error. It reports false if it was
// not there any more.
func (p *pool) refuse(w *waiter, err error) (refused bool) {
	p.locked(func() []func() {
		if w.place == nil {
			return nil
		}
		refused = true
		p.leaveLocked(w)
		return append(p.settleLocked(), func() { w.grant(nil, err) })
	})
	return refused
}

// settleLocked serves whom it can, and starts what is needed to serve the others:
// logins while the limit allows, and the end of other roles' idle connections when
// it does not. It is called after every change.
func (p *pool) settleLocked() (todo []func()) {
	todo = p.shrinkLocked()
	if p.waiters.Len() == 0 || p.switches.paused && !p.retired {
		return todo
	}
	r := round{pool: p, room: p.limit - (p.open - p.closing), reserve: p.cfg.ReserveOf(p.limit)}
	for _, sub := range p.subs {
		sub.promised, sub.stuck = 0, false
	}
	for e := p.waiters.Front(); e != nil && r.stuck < len(p.subs); {
		w, next := e.Value.(*waiter), e.Next()
		if !w.sub.stuck {
			todo = append(todo, r.serve(w)...)
		}
		e = next
	}
	return todo
}

// round is one walk over the waiters, first come first served.
type round struct {
	pool    *pool
	room    int // places that are free, or will be when what is closing has closed
	reserve int // of the limit, for those who have waited
	stuck   int // subpools for which nothing more can be done now
}

func (r *round) serve(w *waiter) []func() {
	p, sub := r.pool, w.sub
	switch {
	case p.retired:
		return p.failLocked(w, retiredDenial())
	case len(sub.idle) > 0 && sub.best(w.by).soiledFor(w.by):
		sub.promised++
		return p.renewLocked(sub.best(w.by))
	case len(sub.idle) > 0:
		return p.lendLocked(w)
	case sub.promised < sub.coming:
		sub.promised++
		return nil
	case sub.backingOff() && sub.live+sub.coming == 0 && !sub.mayPass():
		return p.failLocked(w, sub.failure)
	case sub.backingOff() || sub.opening >= maxLogins || sub.failures > 0 && sub.opening > 0:
		r.giveUp(sub)
		return nil
	}
	return r.open(w)
}

func (r *round) giveUp(sub *subpool) {
	sub.stuck = true
	r.stuck++
}

// open begins a login for a waiter, or makes room for one.
func (r *round) open(w *waiter) (todo []func()) {
	p, sub, kept := r.pool, w.sub, r.reserve
	if kept > 0 && time.Since(w.since) >= p.cfg.ReserveAfter {
		kept = 0
	}
	if r.room <= kept {
		if todo = p.closeOtherIdleLocked(sub); todo == nil {
			r.giveUp(sub)
			return nil
		}
		r.room++
	}
	r.room--
	if p.open < p.limit-kept {
		sub.promised++
		todo = append(todo, p.openLocked(sub))
	}
	return todo
}

func retiredDenial() *armor.Denial {
	return &armor.Denial{Reason: armor.ReasonDraining, Message: "the pool of this session is closed on this node", Detail: "Connect again."}
}

func (p *pool) failLocked(w *waiter, err error) []func() {
	p.leaveLocked(w)
	return []func(){func() { w.grant(nil, err) }}
}

// lendLocked lends the best idle connection.
func (p *pool) lendLocked(w *waiter) []func() {
	c := w.sub.takeLocked(w.sub.choose(w.by), w.by)
	p.leaveLocked(w)
	return []func(){func() { p.deliver(w, c) }}
}

// deliver grants a connection, unless PostgreSQL has sent something on it while it
// lay idle: its end, most likely. Then the waiter goes back to the head of the queue.
func (p *pool) deliver(w *waiter, c *ServerConn) {
	if c.wire.Quiet() {
		took := time.Since(w.since)
		p.counted.waited.Add(int64(took))
		if p.waited != nil {
			p.waited(took)
		}
		w.grant(c, nil)
		return
	}
	p.locked(func() []func() {
		c.unlendLocked()
		todo := p.refreshLocked(c)
		if w.gone {
			return append(todo, func() { w.grant(nil, context.Canceled) })
		}
		w.place = p.waiters.PushFront(w)
		w.by.waiting = w
		p.alarmLocked(p.dueLocked(w, time.Now()))
		return append(todo, p.settleLocked()...)
	})
}
