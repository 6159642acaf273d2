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
		todo = append(todo, p.endUnusedLocked(now)...)
		return append(todo, p.keepWarmLocked()...)
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

// endUnusedLocked ends idle connections that are aged, and those that were not used for
// too long, down to the pool's minimum for each role.
func (p *pool) endUnusedLocked(now time.Time) (todo []func()) {
	for _, sub := range p.subs {
		for i := 0; i < len(sub.idle); {
			c := sub.idle[i]
			unused := p.cfg.ServerIdle > 0 && now.Sub(c.idleSince) >= p.cfg.ServerIdle && (sub.live > p.cfg.MinSize || sub.terms != nil)
			if !c.aged && !unused {
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
