package pooler

import (
	"container/list"
	"context"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgwire"
)

// borrower is who is lent a pool's server connections: a client, or the pooler itself when
// it asks PostgreSQL something.
type borrower struct {
	part        part   // of the pool, that it is lent from; immutable, as is all down to application
	terms       *terms // of the logins there; nil: those of everybody
	id          uint64 // unique in the process
	application string // the client's name for itself

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
		if p.lendsAtOnceLocked(w.sub) {
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
	if sub == nil || !p.lendsAtOnceLocked(sub) || !sub.idle[len(sub.idle)-1].wire.Quiet() {
		return nil // acquire looks at what has arrived
	}
	return sub.popLocked(by)
}

// popLocked lends the idle connection that was used last. There must be one.
func (s *subpool) popLocked(by *borrower) *ServerConn {
	last := len(s.idle) - 1
	c := s.idle[last]
	s.idle[last] = nil
	s.idle = s.idle[:last]
	c.lentTo, by.lent = by, c
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

// lendLocked lends the idle connection that was used last.
func (p *pool) lendLocked(w *waiter) []func() {
	c := w.sub.popLocked(w.by)
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

// shrinkLocked ends idle connections that are above the limit or of no use any more.
func (p *pool) shrinkLocked() (todo []func()) {
	for _, sub := range p.subs {
		for i := 0; i < len(sub.idle); {
			if c := sub.idle[i]; p.retired || p.switches.paused || c.generation != p.generation || sub.terms.once() && !p.awaitedByLocked(sub) {
				todo = append(todo, p.endIdleLocked(c))
				continue
			}
			i++
		}
	}
	for p.open-p.closing > p.limit {
		c := p.longestIdleLocked(nil)
		if c == nil {
			break
		}
		todo = append(todo, p.endIdleLocked(c))
	}
	return todo
}

// closeOtherIdleLocked ends another role's idle connection to make room.
func (p *pool) closeOtherIdleLocked(sub *subpool) []func() {
	c := p.longestIdleLocked(sub)
	if c == nil {
		return nil
	}
	return []func(){p.endIdleLocked(c)}
}

// longestIdleLocked returns the connection that was unused for the longest time and
// is not of the given role.
func (p *pool) longestIdleLocked(except *subpool) (longest *ServerConn) {
	for _, sub := range p.subs {
		if sub == except || len(sub.idle) == 0 {
			continue
		}
		if c := sub.idle[0]; longest == nil || c.idleSince.Before(longest.idleSince) {
			longest = c
		}
	}
	return longest
}

// endIdleLocked ends a connection that lies idle.
func (p *pool) endIdleLocked(c *ServerConn) func() {
	c.sub.removeIdle(c)
	return p.endLocked(c)
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

// openLocked takes a place and logs in.
func (p *pool) openLocked(sub *subpool) func() {
	p.open++
	sub.opening++
	sub.coming++
	t := backend.Target{Database: p.database, Role: sub.role, Parameters: sub.terms.startup(), First: p.firstHost}
	if sub.dbname != "" {
		t.Database.DBName = sub.dbname
	}
	generation := p.generation
	return func() {
		t.Log = p.home.cfg.Logger.With(armor.KeyPool, p.key, armor.KeyRole, sub.role)
		p.home.errands.add(func(ctx context.Context) { p.login(ctx, sub, t, generation) })
	}
}

// login opens one connection, in the place that openLocked has taken.
func (p *pool) login(ctx context.Context, sub *subpool, t backend.Target, generation int) {
	began := time.Now()
	wire, left, err := p.home.servers.Open(ctx, t)
	if hook := p.home.cfg.Hooks.ServerLogin; hook != nil {
		hook(p.key, time.Since(began), err)
	}
	p.locked(func() []func() {
		sub.opening--
		sub.coming--
		if err != nil {
			return p.loginFailedLocked(sub, left, sub.explain(err))
		}
		if generation == p.generation {
			p.firstHost = wire.First()
		}
		sub.loggedInLocked(wire.State().Params())
		c := newServerConn(wire, p, sub, generation)
		p.conns[c] = struct{}{}
		return p.readyLocked(c)
	})
}

// loginFailedLocked keeps the place until PostgreSQL has closed the connection too,
// makes further logins wait, and tells the waiters that have nothing else to wait for.
func (p *pool) loginFailedLocked(sub *subpool, left *backend.Leftover, err error) []func() {
	if refused := sub.terms.refused(err); refused != nil {
		err = refused
	}
	wait := sub.loginFailedLocked(err)
	p.closing++
	todo := []func(){func() {
		p.home.cfg.Logger.Warn("login to PostgreSQL failed", armor.KeyPool, p.key, armor.KeyRole, sub.role, armor.KeyErr, err, armor.KeyTook, wait)
		p.home.errands.add(func(ctx context.Context) {
			left.End(ctx)
			p.locked(p.endedLocked)
		})
		time.AfterFunc(wait, p.settle)
	}}
	return append(todo, p.settleLocked()...)
}

// returnLocked takes a connection back from its session. One that a cancel request
// is under way for is held, so that it cannot hit the next client.
func (p *pool) returnLocked(c *ServerConn) []func() {
	if c.cancels > 0 {
		c.parked = true
		c.sub.coming++
		return nil
	}
	return p.readyLocked(c)
}

// cancelDoneLocked ends one cancel request's hold on a connection.
func (p *pool) cancelDoneLocked(c *ServerConn) []func() {
	c.cancels--
	c.mustPing = true
	if c.cancels > 0 || !c.parked {
		return nil
	}
	c.parked = false
	c.sub.coming--
	return p.readyLocked(c)
}

// readyLocked does with a connection what it needs before it can be lent again.
func (p *pool) readyLocked(c *ServerConn) []func() {
	switch {
	case p.retired || p.switches.paused || c.aged || c.spent || p.misfitLocked(c) || c.generation != p.generation || p.open-p.closing > p.limit:
		return append([]func(){p.endLocked(c)}, p.settleLocked()...)
	case c.mustPing || !c.wire.Clean():
		return append(p.refreshLocked(c), p.settleLocked()...)
	}
	c.idleSince = time.Now()
	c.sub.idle = append(c.sub.idle, c)
	return p.settleLocked()
}

// misfitLocked reports whether a server connection that comes back leads to a server
// that is not what it was when somebody chose it.
func (p *pool) misfitLocked(c *ServerConn) bool {
	return p.database.TargetSessionAttrs != armor.AnySession && c.wire.Changed()
}

// refreshLocked makes a connection fit for the next client, in an errand.
func (p *pool) refreshLocked(c *ServerConn) []func() {
	c.sub.coming++
	ping := c.mustPing
	c.mustPing = false
	return []func(){func() {
		p.home.errands.add(func(context.Context) { p.refresh(c, ping) })
	}}
}

func (p *pool) refresh(c *ServerConn, ping bool) {
	err := c.wire.Refresh(ping)
	if err != nil {
		p.home.cfg.Logger.Debug("server connection is not fit to be lent again", armor.KeyPool, p.key, armor.KeyRole, c.sub.role, armor.KeyErr, err)
	}
	p.locked(func() []func() {
		c.sub.coming--
		if err != nil {
			return append([]func(){p.endLocked(c)}, p.settleLocked()...)
		}
		return p.readyLocked(c)
	})
}

// inspectIdle takes a connection out of the idle ones to read what PostgreSQL has
// sent.
func (p *pool) inspectIdle(c *ServerConn) {
	p.locked(func() []func() {
		if !c.sub.removeIdle(c) {
			return nil
		}
		return p.refreshLocked(c)
	})
}

// endLocked ends a connection that is lent to nobody; its place is free when its end
// was read.
func (p *pool) endLocked(c *ServerConn) func() {
	c.sub.live--
	p.closing++
	return func() {
		p.home.errands.add(func(ctx context.Context) {
			c.wire.End(ctx)
			p.locked(func() []func() {
				delete(p.conns, c)
				return p.endedLocked()
			})
			if hook := p.home.cfg.Hooks.ServerEnd; hook != nil {
				hook(p.key)
			}
		})
	}
}

func (p *pool) endedLocked() []func() {
	p.closing--
	p.freeLocked(1)
	return p.settleLocked()
}
