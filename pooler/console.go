package pooler

import (
	"net"
	"net/netip"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// welcomeToConsole answers the startup packet of a client that talks to the node itself.
// The grant has been checked; the role says what it may do.
func (p *Pooler) welcomeToConsole(conn net.Conn, c *client, r *request) (*Handover, error) {
	p.keys.give(c, r.startup, 0)
	_ = conn.SetReadDeadline(time.Time{}) // a dead connection shows at the next use
	if err := c.greet(r, core.NewParams(console.Parameters(r.application))); err != nil {
		return nil, err
	}
	return &Handover{Client: conn, Guest: c.ending, client: c, driver: visit{p.console, r.settings}}, nil
}

// visit drives a client of the console.
type visit struct {
	console  *console.Console
	settings map[string]string
}

// Drive serves the client until its session has ended.
func (v visit) Drive(h *Handover) {
	c := h.client
	v.console.Serve(console.Visitor{
		Session: visitor{h.Guest, h}, Conn: h.Client, ID: c.id, Environment: c.environment, Role: c.part.role, Settings: v.settings,
	})
}

// visitor is a session as the console knows it (console.Session).
type visitor struct {
	Guest
	handover *Handover
}

func (v visitor) OnDrain(drain func(*pgwire.Error))  { v.handover.OnDrain(drain) }
func (v visitor) OnCancel(cancel func())             { v.handover.OnCancel(cancel) }
func (v visitor) CutError(cause error) *pgwire.Error { return v.handover.CutError(cause) }

// desk is the pooler as the console knows it (console.Pooler).
type desk struct{ *Pooler }

// Pools returns the pools that are served.
func (d desk) Pools() []console.Pool {
	var all []console.Pool
	for _, pl := range d.allPools() {
		if pl.serves() {
			all = append(all, lever{pl, d.Pooler})
		}
	}
	return all
}

// Clients describes the sessions of an environment.
func (d desk) Clients(environment string) []console.Socket {
	now := time.Now()
	var all []console.Socket
	for _, c := range d.roster.all() {
		if c.environment == environment {
			all = append(all, c.socket(now))
		}
	}
	return all
}

// Servers describes the server connections of an environment's pools.
func (d desk) Servers(environment string) []console.Socket {
	var all []console.Socket
	for _, pl := range d.allPools() {
		if environmentOf(pl.key) == environment {
			all = append(all, pl.serverSockets()...)
		}
	}
	return all
}

// Count is how many sessions there are.
func (d desk) Count() int { return d.roster.count() }

// PauseAll pauses an environment: the pools to come, too.
func (d desk) PauseAll(environment string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.paused[environment]
	d.paused[environment] = true
	return !before
}

// DissolvePause makes that a pause of each pool.
func (d desk) DissolvePause(environment string) bool { return d.dissolvePause(environment) }

// AllPaused reports whether an environment is paused.
func (d desk) AllPaused(environment string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused[environment]
}

// Kill ends one session of an environment.
func (d desk) Kill(environment string, id uint64) bool {
	for _, c := range d.roster.all() {
		if c.id == id && c.environment == environment {
			c.kill(killedDenial())
			return true
		}
	}
	return false
}

// KillOthers ends every session but one.
func (d desk) KillOthers(than uint64) {
	for _, c := range d.roster.all() {
		if c.id != than {
			c.kill(armor.ShutdownDenial())
		}
	}
}

// CloseDoor takes no new clients any more, and calls then when the last borrower has left.
func (d desk) CloseDoor(then func()) { d.roster.closeDoor(then) }

// lever is a pool as the console moves it (console.Pool).
type lever struct {
	*pool
	home *Pooler
}

func (l lever) Config() armor.Pool               { return l.config() }
func (l lever) Obey(verb armor.PoolVerb)         { l.home.obey(l.pool, verb) }
func (l lever) RetryLogins()                     { l.retryLogins() }
func (l lever) WhenPaused() <-chan struct{}      { return l.whenPaused() }
func (l lever) WhenReconnected() <-chan struct{} { return l.whenReconnected() }

// Paused reports whether an operator has paused the pool.
func (l lever) Paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.switches.paused
}

// socket describes a client. Which statements it has prepared only its driver knows.
func (c *client) socket(now time.Time) console.Socket {
	s := console.Socket{
		ID: c.id, User: c.part.role, Replication: c.terms.kind(), State: console.Idle,
		Remote: c.guest.Peer().Source, Local: addrPort(c.conn.LocalAddr()),
		Connected: c.since, Active: c.since, TLS: console.TLSWords(c.conn), Application: c.application, Pinned: c.pinning.words(),
	}
	if !c.borrows() {
		s.Database, s.State = c.part.dbname, console.Active
		return s
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	s.Database = c.part.database(c.pool.cfg)
	switch {
	case c.waiting != nil:
		s.State, s.Active, s.Wait = console.Waiting, c.waiting.since, now.Sub(c.waiting.since)
	case c.lent != nil:
		s.State, s.Link = console.Active, c.lent.id
	}
	return s
}

func (p *pool) serverSockets() []console.Socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := map[*ServerConn]bool{}
	for _, sub := range p.subs {
		for _, c := range sub.idle {
			idle[c] = true
		}
	}
	var all []console.Socket
	for c := range p.conns {
		s := console.Socket{
			ID: c.id, User: c.sub.role, Replication: c.sub.terms.kind(), Database: c.sub.database(p.cfg), State: console.Tested,
			Remote: addrPort(c.wire.Raw().RemoteAddr()), Local: addrPort(c.wire.Raw().LocalAddr()), Connected: c.born, Active: c.idleSince,
			CloseNeeded: c.generation != p.generation, PID: c.wire.PID(), TLS: console.TLSWords(c.wire.Stream()), Prepared: c.prepared,
		}
		switch {
		case c.lentTo != nil:
			s.State, s.Link, s.Application = console.Active, c.lentTo.id, c.lentTo.application
		case idle[c]:
			s.State = console.Idle
		case c.parked:
			s.State = console.BeingCanceled
		}
		if s.Active.IsZero() {
			s.Active = s.Connected
		}
		all = append(all, s)
	}
	return all
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
