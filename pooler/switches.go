package pooler

import (
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// switches are what operators have switched at a pool of this node. Nothing of it is
// replicated, and a restart forgets it. The pool's lock guards them.
type switches struct {
	paused   bool
	disabled bool
}

// awaited is somebody who waits until something holds of the pool.
type awaited struct {
	holds func() bool // called under the pool's lock
	done  chan struct{}
}

// Order carries out what an operator wants of one pool, and returns what has become of
// it. It does not wait for sessions: after a pause, PoolStatus.Open falls to zero as
// server connections come back. It returns ErrNotFound for a pool that there is not.
func (p *Pooler) Order(o armor.PoolOrder) (armor.PoolStatus, error) {
	if err := o.Validate(); err != nil {
		return armor.PoolStatus{}, err
	}
	p.mu.Lock()
	pl := p.pools[o.Key()]
	p.mu.Unlock()
	if pl == nil || !pl.serves() {
		return armor.PoolStatus{}, fmt.Errorf("%w: pool %s is not on this node", armor.ErrNotFound, o.Key())
	}
	if o.Verb == armor.ResumePool {
		p.dissolvePause(o.Environment)
	}
	p.obey(pl, o.Verb)
	p.cfg.Logger.Info("order carried out", armor.KeyMethod, string(o.Verb), armor.KeyPool, o.Key())
	s, _ := p.status(pl)
	return s, nil
}

// obey does one thing to one pool.
func (p *Pooler) obey(pl *pool, verb armor.PoolVerb) {
	switch verb {
	case armor.PausePool:
		pl.pause()
	case armor.ResumePool:
		pl.resume()
	case armor.ReconnectPool:
		pl.reconnect()
	case armor.KillPool:
		pl.pause()
		p.killClients(pl)
	case armor.DisablePool:
		pl.disable(true)
	case armor.EnablePool:
		pl.disable(false)
	}
}

// dissolvePause makes a pause of a whole environment one of each of its pools, so that
// they can be resumed one by one. It reports whether there was such a pause.
func (p *Pooler) dissolvePause(environment string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.paused[environment]
	delete(p.paused, environment)
	return before
}

// environmentOf is the environment in a pool's key.
func environmentOf(key string) string {
	environment, _, _ := strings.Cut(key, "/")
	return environment
}

// pause stops lending. Waiters go on waiting, and their query wait does not run out;
// idle server connections end now and lent ones when they come back.
func (p *pool) pause() {
	p.locked(func() []func() {
		p.switches.paused = true
		return p.settleLocked()
	})
}

// resume lends again. Whoever waits has its whole query wait before it.
func (p *pool) resume() {
	p.locked(func() []func() {
		if !p.switches.paused {
			return nil
		}
		p.switches.paused = false
		now := time.Now()
		for e := p.waiters.Front(); e != nil; e = e.Next() {
			e.Value.(*waiter).from = now
		}
		p.lookAgainLocked()
		p.checkAwaitedLocked()
		return p.settleLocked()
	})
}

// reconnect lends no server connection again that there is now.
func (p *pool) reconnect() {
	p.lookups.Forget()
	p.locked(func() []func() {
		p.generation++
		return p.settleLocked()
	})
}

func (p *pool) disable(disabled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switches.disabled = disabled
}

// retryLogins forgets that logins have failed, and which verifiers were looked up: the
// next one is tried at once, with the secrets as they are then.
func (p *pool) retryLogins() {
	p.lookups.Forget()
	p.locked(func() []func() {
		for _, sub := range p.subs {
			sub.backoff = backoff{}
		}
		return p.settleLocked()
	})
}

// whenPaused is closed once no server connection is open, or the pool was resumed.
func (p *pool) whenPaused() <-chan struct{} {
	return p.when(func() bool { return p.open == 0 || !p.switches.paused })
}

// whenReconnected is closed once every server connection has ended that may not be
// lent again.
func (p *pool) whenReconnected() <-chan struct{} {
	return p.when(func() bool {
		for c := range p.conns {
			if c.generation != p.generation {
				return false
			}
		}
		return true
	})
}

// when returns a channel that is closed once holds is true. It is asked whenever a
// place becomes free.
func (p *pool) when(holds func() bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := awaited{holds, make(chan struct{})}
	p.awaited = append(p.awaited, a)
	p.checkAwaitedLocked()
	return a.done
}

func (p *pool) checkAwaitedLocked() {
	var rest []awaited
	for _, a := range p.awaited {
		if a.holds() {
			close(a.done)
			continue
		}
		rest = append(rest, a)
	}
	p.awaited = rest
}

// closedToNew returns why the pool takes no new clients, if it does not.
func (p *pool) closedToNew(of part) *armor.Denial {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.switches.disabled {
		return p.tooManyPartsLocked(of)
	}
	return &armor.Denial{
		Reason:  armor.ReasonDisabled,
		Message: fmt.Sprintf("database %q is disabled", of.database(p.cfg)),
		Detail:  "An operator has disabled its pool on this node. Connect again later, or to another node.",
	}
}
