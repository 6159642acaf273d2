package pooler

import (
	"context"
	"maps"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
)

// A place is what a limit counts. It is taken before a server connection is dialled, and
// free once its end was read.

// maxLogins bounds the logins under way at once, of one part of a pool.
const maxLogins = 8

// openLocked takes a place and logs in.
func (p *pool) openLocked(sub *subpool) func() {
	p.open++
	sub.opening++
	sub.coming++
	t := backend.Target{Pool: p.key, Database: p.database, Role: sub.role, Parameters: sub.terms.startup(), First: p.firstHost}
	if !sub.terms.once() { // a connection that replicates may not know SQL
		t.Connect = backend.Connect{Query: p.cfg.ConnectQuery, Keep: p.cfg.KeepSettings, Settings: t.Parameters}
	}
	if sub.dbname != "" {
		t.Database.DBName = sub.dbname
	}
	generation := p.generation
	return func() {
		t.Log = p.node.cfg.Logger.With(armor.KeyPool, p.key, armor.KeyRole, sub.role)
		p.node.errands.add(func(ctx context.Context) { p.login(ctx, sub, t, generation) })
	}
}

// login opens one connection, in the place that openLocked has taken.
func (p *pool) login(ctx context.Context, sub *subpool, t backend.Target, generation int) {
	began := time.Now()
	wire, left, err := p.node.servers.Open(ctx, t)
	if hook := p.node.cfg.Hooks.ServerLogin; hook != nil {
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
		p.node.cfg.Logger.Warn("login to PostgreSQL failed",
			armor.KeyPool, p.key, armor.KeyRole, sub.role, armor.KeyErr, err, armor.KeyTook, wait)
		p.node.errands.add(func(ctx context.Context) {
			left.End(ctx)
			p.locked(p.endedLocked)
		})
		time.AfterFunc(wait, p.settle)
	}}
	return append(todo, p.settleLocked()...)
}

// shrinkLocked ends idle connections that are above the limit or of no use any more.
func (p *pool) shrinkLocked() (todo []func()) {
	for _, sub := range p.subs {
		for i := 0; i < len(sub.idle); {
			c, unwanted := sub.idle[i], sub.terms.once() && !p.awaitedByLocked(sub)
			if p.retired || p.switches.paused || c.generation != p.generation || unwanted {
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

// endLocked ends a connection that is lent to nobody; its place is free when its end
// was read.
func (p *pool) endLocked(c *ServerConn) func() {
	c.sub.live--
	p.closing++
	return func() {
		p.node.errands.add(func(ctx context.Context) {
			if orphan, reset := c.wire.Orphan(); reset {
				p.locked(func() []func() { return p.orphanLocked(c, orphan) })
				return
			}
			c.wire.End(ctx)
			p.locked(func() []func() {
				delete(p.conns, c)
				return p.endedLocked()
			})
			if hook := p.node.cfg.Hooks.ServerEnd; hook != nil {
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

// freeLocked gives n places back.
func (p *pool) freeLocked(n int) {
	if p.open -= n; p.open < 0 {
		panic("pooler: a place was freed twice in pool " + p.key)
	}
	if p.open == len(p.former) && p.empty != nil {
		select {
		case <-p.empty:
		default:
			close(p.empty)
		}
	}
	p.checkAwaitedLocked()
}

// whenEmpty returns a channel that is closed once no place is taken but those that are held
// back for a former life.
func (p *pool) whenEmpty() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.empty == nil {
		p.empty = make(chan struct{})
		p.freeLocked(0)
	}
	return p.empty
}

// closeAll closes the sockets of all connections; nobody waits for them any more.
func (p *pool) closeAll() {
	p.mu.Lock()
	all := maps.Clone(p.conns)
	p.mu.Unlock()
	for c := range all {
		c.wire.Close()
	}
}
