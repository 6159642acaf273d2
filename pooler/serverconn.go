package pooler

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// ServerConn is one connection to PostgreSQL.
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
	conn       net.Conn // with TLS, if there is
	raw        net.Conn // below TLS
	state      *core.Server
	pid        uint32
	secret     uint32
	address    address
	tls        *tls.Config // nil: no TLS; also for cancel requests
	pool       *pool       // immutable once logged in, as are sub and generation
	sub        *subpool
	generation int
	id         uint64    // unique in the process, as clients' are
	host       string    // of the database's
	standby    string    // in_hot_standby, when it had logged in
	born       time.Time // when that was
	spread     float64   // of its life: see lifeSpread

	// Guarded by pool.mu while nobody else can have the connection, or always:
	lentTo    *client
	idleSince time.Time
	cancels   int          // cancel requests under way; always
	parked    bool         // came back while one was
	mustPing  bool         // a cancel request was sent for it
	ended     bool         // its end was read
	broken    bool         // it broke without an end
	busy      bool         // something may run on it when it is ended
	aged      bool         // it has lived long enough; always
	spent     bool         // it may not be lent again
	judged    *core.Params // what misfitLocked has last looked at
	rest      []byte       // read and not consumed
	prepared  int          // statements, when it was last given back
}

// Conn is the connection, without deadlines.
func (c *ServerConn) Conn() net.Conn { return c.conn }

// Raw is the connection below TLS, as Config.Dial has made it.
func (c *ServerConn) Raw() net.Conn { return c.raw }

// State is the protocol state that travels with the connection.
func (c *ServerConn) State() *core.Server { return c.state }

// Release gives the connection back when the Session has asked for it. rest are bytes
// that were read from it and not consumed.
func (c *ServerConn) Release(rest []byte) {
	c.pool.locked(func() []func() {
		c.unlendLocked()
		c.pool.countLocked(c)
		c.spent = c.sub.terms.once()
		c.rest = append(c.rest, rest...)
		return c.pool.returnLocked(c)
	})
}

// Discard gives the connection back to be ended: it is in an unknown state.
func (c *ServerConn) Discard() { c.giveUp(nil) }

// Lost gives the connection back after reading from it failed with err.
func (c *ServerConn) Lost(err error) { c.giveUp(err) }

func (c *ServerConn) giveUp(err error) {
	c.pool.locked(func() []func() {
		c.unlendLocked()
		c.pool.countLocked(c)
		c.failedLocked(err)
		c.busy = true
		return append([]func(){c.pool.endLocked(c)}, c.pool.settleLocked()...)
	})
}

// failedLocked notes how reading has failed, if it has.
func (c *ServerConn) failedLocked(err error) {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
	case isEnd(err):
		c.ended = true
	default:
		c.broken = true
	}
}

func (c *ServerConn) unlendLocked() {
	if c.lentTo.lent == c { // else it has been lent the next one already
		c.lentTo.lent = nil
	}
	c.lentTo = nil
}

// isEnd reports whether an error of reading says that the other side's process has
// closed its socket: an end, or a reset.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// quiet reports whether nothing has arrived on the connection.
func (c *ServerConn) quiet() bool { return !readable(c.raw) }

// inspectFor is how long an idle connection on which something has arrived is read:
// what has arrived may be a TLS record without content, or half a message.
const inspectFor = 200 * time.Millisecond

// refresh makes the connection fit for the next client: it takes what PostgreSQL has
// said meanwhile, makes sure that a cancel request has had its effect, and resets.
func (c *ServerConn) refresh(reset, ping bool, patience time.Duration) error {
	defer c.conn.SetDeadline(time.Time{}) //nolint:errcheck // a broken connection shows at the next use
	if !c.quiet() || len(c.rest) > 0 {
		if err := c.inspect(); err != nil {
			return fmt.Errorf("read from an idle server connection: %w", err)
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if ping {
		if _, err := c.exchange(""); err != nil {
			return fmt.Errorf("ask for an answer after a cancel request: %w", err)
		}
	}
	if !reset {
		return nil
	}
	refused, err := c.exchange(resetQuery)
	if err == nil && refused != nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("reset a server connection: %w", err)
	}
	c.state.WasReset()
	return nil
}

// inspect reads what has arrived on an idle connection.
func (c *ServerConn) inspect() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(inspectFor)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.state.FromIdle(c.rest)
		if err != nil {
			return err
		}
		c.rest = append([]byte(nil), c.rest[n:]...)
		if len(c.rest) == 0 && c.quiet() {
			return nil
		}
		n, err = c.conn.Read(buf)
		c.rest = append(c.rest, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && len(c.rest) == 0:
			return nil
		default:
			c.note(err)
			return err
		}
	}
}

// note keeps how reading has failed for the end of the connection.
func (c *ServerConn) note(err error) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.failedLocked(err)
}

// exchange runs a query of our own on a connection that is idle, and returns
// PostgreSQL's error if it answers one. The caller sets the deadline.
func (c *ServerConn) exchange(sql string) (refused *pgwire.Error, err error) {
	var x core.Exchange
	err = c.converse(pgwire.AppendQuery(nil, sql), &x)
	return x.Err, err
}

// converse sends a request of our own and collects its answer.
func (c *ServerConn) converse(request []byte, x *core.Exchange) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.state.FromExchange(c.rest, x)
		if err != nil {
			return err
		}
		if c.rest = append([]byte(nil), c.rest[n:]...); x.Done {
			return nil
		}
		n, err = c.conn.Read(buf)
		c.rest = append(c.rest, buf[:n]...)
		if err != nil && n == 0 {
			c.note(err)
			return err
		}
	}
}
