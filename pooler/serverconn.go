package pooler

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/core"
)

// ServerConn is a connection to PostgreSQL in its pool.
//
//	(place taken)
//	     │ dial, log in
//	     ▼         grant                 Release
//	   idle ─────────────▶ lent ───────────────────────┐
//	     ▲                  │ Discard, Lost            ▼
//	     │   clean          │              held while a cancel is under way
//	     ├──────────────────┼──────────────────────────┤
//	     │   reset, ping    │                          │ dirty, session mode,
//	     └──── refreshed ◀──┼──────────────────────────┘ after a cancel
//	     │         │        │
//	     └─────────┴────────┴──▶ ending: cancel, Terminate, half-close, read to the end
//	                                │
//	                                ▼ (place free)
//
// A driver that was lent one reads and writes Conn, and then calls exactly one of
// Release, Discard and Lost, with no goroutine of its own on it any more.
type ServerConn struct {
	wire *backend.Conn // whoever has the connection has it

	pool       *pool // immutable, as is all down to spread
	sub        *subpool
	generation int
	id         uint64    // unique in the process, as clients' are
	born       time.Time // when it had logged in
	spread     float64   // of its life: see lifeSpread

	loan // guarded by pool.mu
}

// loan is what a pool keeps of a server connection to lend it.
type loan struct {
	lentTo    *borrower    // nil: nobody has it
	owner     string       // of the borrower that had it last; empty: none had
	idleSince time.Time    // when it last came back
	cancels   int          // cancel requests under way
	parked    bool         // it came back while one was
	mustPing  bool         // one was sent for it since it was last refreshed
	aged      bool         // it has lived long enough
	used      bool         // it was lent
	replaced  bool         // there is a login for the connection that comes after it
	spent     bool         // it may not be lent again
	noted     *core.Params // what it reports when nothing is set, as the part knows it
	prepared  int          // statements, when it last came back
}

// newServerConn puts a connection that has just logged in into its pool.
func newServerConn(w *backend.Conn, p *pool, sub *subpool, generation int) *ServerConn {
	return &ServerConn{
		wire: w, pool: p, sub: sub, generation: generation,
		id: p.node.nextID.Add(1), born: time.Now(), spread: rand.Float64(), loan: loan{noted: w.State().Params()},
	}
}

// Conn is the connection, without deadlines.
func (c *ServerConn) Conn() net.Conn { return c.wire.Stream() }

// Raw is the connection below TLS, as Config.Dial has made it.
func (c *ServerConn) Raw() net.Conn { return c.wire.Raw() }

// State is the protocol state that travels with the connection.
func (c *ServerConn) State() *core.Server { return c.wire.State() }

// Release gives the connection back when the Session has asked for it. rest are bytes
// that were read from it and not consumed.
func (c *ServerConn) Release(rest []byte) {
	c.pool.locked(func() []func() {
		c.unlendLocked()
		c.pool.countLocked(c)
		c.noteLocked()
		c.spent = c.sub.terms.once()
		c.wire.Unread(rest)
		return c.pool.returnLocked(c)
	})
}

// noteLocked tells new clients of a change of the server's configuration that the connection
// has heard of.
func (c *ServerConn) noteLocked() {
	if base := c.State().Base(); base != c.noted && c.generation == c.pool.generation {
		c.noted = base
		c.sub.reports.note(base)
	}
}

// Discard gives the connection back to be ended: it is in an unknown state.
func (c *ServerConn) Discard() { c.giveUp(nil) }

// DropUnsent resets the connection if PostgreSQL has not taken all that was sent: what a session
// has left there that is cut for good must not arrive later. Discard comes next.
func (c *ServerConn) DropUnsent() {
	if mutant != UnsentKept {
		c.wire.DropUnsent()
	}
}

// Lost gives the connection back after reading from it failed with err.
func (c *ServerConn) Lost(err error) { c.giveUp(err) }

func (c *ServerConn) giveUp(err error) {
	c.pool.locked(func() []func() {
		c.unlendLocked()
		c.pool.countLocked(c)
		c.wire.Doubt(err)
		return append([]func(){c.pool.endLocked(c)}, c.pool.settleLocked()...)
	})
}

func (c *ServerConn) unlendLocked() {
	if c.lentTo.lent == c { // else it has been lent the next one already
		c.lentTo.lent = nil
	}
	c.lentTo = nil
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
	case !p.fitLocked() || p.switches.paused || c.outlivedLocked() || c.spent || p.misfitLocked(c) || c.generation != p.generation:
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

// soiledFor reports whether the pool has to reset a connection before a borrower has it. Mostly
// the borrower's fence does that, in its first write; but what the pool's connectQuery has set
// goes with the reset, and that may be several statements, which a fence cannot hold.
func (c *ServerConn) soiledFor(by *borrower) bool {
	state := c.State()
	return state.Gifted() && state.MustReset(by.owner, by.id, by.isolation)
}

// renewLocked resets an idle connection, so that anybody may have it.
func (p *pool) renewLocked(c *ServerConn) []func() {
	c.sub.removeIdle(c)
	c.owner = ""
	c.State().Soil()
	return p.refreshLocked(c)
}

// refreshLocked makes a connection fit for the next client, in an errand.
func (p *pool) refreshLocked(c *ServerConn) []func() {
	c.sub.coming++
	ping := c.mustPing
	c.mustPing = false
	return []func(){func() {
		p.node.errands.add(func(context.Context) { p.refresh(c, ping) })
	}}
}

func (p *pool) refresh(c *ServerConn, ping bool) {
	err := c.wire.Refresh(ping)
	if err != nil {
		p.node.cfg.Logger.Debug("server connection is not fit to be lent again",
			armor.KeyPool, p.key, armor.KeyRole, c.sub.role, armor.KeyErr, err)
	}
	p.locked(func() []func() {
		c.sub.coming--
		if err != nil {
			return append([]func(){p.endLocked(c)}, p.settleLocked()...)
		}
		return p.readyLocked(c)
	})
}

// lookAtIdle inspects the idle connections that PostgreSQL has sent something on.
func (p *pool) lookAtIdle() {
	for _, c := range p.idleConns() {
		if !c.wire.Quiet() {
			p.inspectIdle(c)
		}
	}
}

func (p *pool) idleConns() []*ServerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*ServerConn
	for _, sub := range p.subs {
		all = append(all, sub.idle...)
	}
	return all
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
