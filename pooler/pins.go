package pooler

import (
	"sync/atomic"

	"github.com/armordb/armordb/armor"
)

// pinning is a client's core.Pins: how it comes to keep a server connection for what cannot
// follow it, and what the pool knows of that.
type pinning struct {
	c      *client
	what   atomic.Pointer[string] // it keeps one for; nil: it keeps none
	logged bool                   // that it does; only the session's events use it
}

// Take asks the pool for room. Its share may have become smaller since: then nobody more gets in.
func (p *pinning) Take() bool {
	pl := p.c.pool
	pl.mu.Lock()
	room := pl.pinned < pl.cfg.PinsOf(pl.limit)
	if room {
		pl.pinned++
	}
	pl.mu.Unlock()
	if hook := pl.node.cfg.Hooks.Pin; hook != nil {
		hook(pl.key, room)
	}
	return room
}

// Give gives it back.
func (p *pinning) Give() {
	pl := p.c.pool
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.pinned--
}

// Holds notes for what it is.
func (p *pinning) Holds(what string) {
	if what == "" {
		p.what.Store(nil)
		return
	}
	p.what.Store(&what)
	if !p.logged {
		p.logged = true
		p.c.pool.node.cfg.Logger.Info("a client keeps its server connection between transactions", armor.KeyPool, p.c.pool.key,
			"owner", p.c.owner, "source", p.c.guest.Peer().Source.String(), "for", what)
	}
}

// words are those of SHOW CLIENTS.
func (p *pinning) words() string {
	if what := p.what.Load(); what != nil {
		return *what
	}
	return ""
}
