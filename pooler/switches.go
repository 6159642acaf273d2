package pooler

import (
	"fmt"
	"maps"
	"slices"
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

// reconnect lends no server connection again that there is now, and forgets what they have
// said of the server.
func (p *pool) reconnect() {
	p.lookups.Forget()
	p.locked(func() []func() {
		p.generation++
		for _, sub := range p.subs {
			sub.reports.forget()
		}
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

// Reload is the console's RELOAD, for every environment: logins that had failed are tried
// again at once, with the secrets as they are now, and verifiers that were looked up are
// forgotten. The errors say which databases lack a secret here, or have one that will not do.
func (p *Pooler) Reload() []error {
	faults := map[string]error{}
	for _, pl := range p.allPools() {
		pl.retryLogins()
		_, database, serves := pl.status()
		if missing := p.missingSecret(database); serves && missing != "" {
			key := armor.ObjectKey(database.Environment, database.Name)
			faults[key] = fmt.Errorf("database %s: %s", key, missing)
		}
	}
	var all []error
	for _, key := range slices.Sorted(maps.Keys(faults)) {
		all = append(all, faults[key])
	}
	return all
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
