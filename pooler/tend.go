package pooler

import "time"

// tend does to a pool's unused server connections what time asks for. It is called
// every Watch, so that neither lending nor giving back looks at a clock for it.
func (p *pool) tend(now time.Time) {
	p.locked(func() []func() {
		if p.retired || p.switches.paused {
			return nil
		}
		p.markAgedLocked(now)
		todo := p.forgetPartsLocked(now)
		todo = append(todo, p.replaceAgedLocked(now)...)
		todo = append(todo, p.endUnusedLocked(now)...)
		todo = append(todo, p.keepWarmLocked()...)
		return append(todo, p.tryAgainLocked()...)
	})
}

// lifeSpread is the part of a server connection's life that chance takes away, so that
// connections made at once do not end at once.
const lifeSpread = 10

// markAgedLocked marks the connections that have lived long enough: they end when
// nobody uses them.
func (p *pool) markAgedLocked(now time.Time) {
	life := p.cfg.ServerLifetime
	if life <= 0 {
		return
	}
	for c := range p.conns {
		c.aged = now.Sub(c.born) >= life-time.Duration(c.spread*float64(life)/lifeSpread)
	}
}

// inUseFor is how recently a server connection was used that somebody is likely to need again.
const inUseFor = time.Minute

// replaceAgedLocked logs in ahead of the end of aged connections that are in use, so that nobody
// waits for it: where there is room, and everybody is served.
func (p *pool) replaceAgedLocked(now time.Time) (todo []func()) {
	if p.waiters.Len() > 0 {
		return nil
	}
	most := p.limit - p.cfg.ReserveOf(p.limit)
	for c := range p.conns {
		if c.aged && !c.replaced && c.inUseLocked(now) && p.open < most && c.sub.opening < maxLogins && c.sub.failures == 0 {
			c.replaced = true
			todo = append(todo, p.openLocked(c.sub))
		}
	}
	return todo
}

// inUseLocked reports whether others come for the connection, or the one after it. Those that
// are one client's are nobody else's.
func (c *ServerConn) inUseLocked(now time.Time) bool {
	return c.sub.terms == nil && (c.lentTo != nil || c.used && now.Sub(c.idleSince) < inUseFor)
}

// outlivedLocked reports whether a connection is to end as soon as nobody uses it: it is aged,
// and the one that comes after it is not still on its way.
func (c *ServerConn) outlivedLocked() bool { return c.aged && !(c.replaced && c.sub.opening > 0) }

// endUnusedLocked ends idle connections that are aged, and those that were not used for
// too long, down to the pool's minimum for each role.
func (p *pool) endUnusedLocked(now time.Time) (todo []func()) {
	for _, sub := range p.subs {
		for i := 0; i < len(sub.idle); {
			c := sub.idle[i]
			unused := p.cfg.ServerIdle > 0 && now.Sub(c.idleSince) >= p.cfg.ServerIdle && (sub.live > p.cfg.MinSize || sub.terms != nil)
			if !c.outlivedLocked() && !unused {
				i++
				continue
			}
			todo = append(todo, p.endIdleLocked(c))
		}
	}
	return todo
}

// warmUpLocked has the roles of a pool that is to be warm from the start logged in for.
func (p *pool) warmUpLocked() {
	if !p.cfg.WarmUp {
		return
	}
	for _, auth := range p.database.Roles {
		p.subLocked(part{role: auth.Role}).known = true
	}
}

// tryAgainLocked logs in where logins fail and nobody comes who would try: a load balancer may
// send nobody for as long as the pool is not ready.
func (p *pool) tryAgainLocked() (todo []func()) {
	if p.waiters.Len() > 0 {
		return nil
	}
	for _, sub := range p.subs {
		failing := sub.failures > 0 && !sub.backingOff() && sub.terms == nil && !sub.isClients()
		if failing && sub.live+sub.opening == 0 && p.open < p.limit {
			todo = append(todo, p.openLocked(sub))
		}
	}
	return todo
}

// keepWarmLocked logs in until each role that has logged in here before has the pool's
// minimum, as far as the limit allows and nobody waits.
func (p *pool) keepWarmLocked() (todo []func()) {
	if p.cfg.MinSize <= 0 || p.waiters.Len() > 0 {
		return nil
	}
	most := p.limit - p.cfg.ReserveOf(p.limit)
	for _, sub := range p.subs {
		if !sub.known || sub.role == p.database.Query.Role || sub.failures > 0 && (sub.backingOff() || sub.opening > 0) {
			continue
		}
		for sub.live+sub.opening < p.cfg.MinSize && sub.opening < maxLogins && p.open < most {
			todo = append(todo, p.openLocked(sub))
			if sub.failures > 0 {
				break // one attempt at a time
			}
		}
	}
	return todo
}
