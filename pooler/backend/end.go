package backend

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// goodbyeFor bounds the writing of Terminate, which a server that is busy writing to
// us may not read.
const goodbyeFor = time.Second

// End ends the connection and returns when PostgreSQL has no backend for it any more:
// closing our side does not end a backend that is running a query, so the end must be
// read. A connection that was ended can be ended again. ctx ends when the process does.
func (c *Conn) End(ctx context.Context) {
	defer c.stream.Close()
	defer c.raw.Close()
	if c.ended = c.ended || c.readEnd(ctx); c.ended {
		c.home.cfg.Register.Strike(c.entry.ID)
	}
}

// readEnd reports whether PostgreSQL has no backend for the connection any more; else ctx has
// ended.
func (c *Conn) readEnd(ctx context.Context) bool {
	for attempt := 1; ; attempt++ {
		if c.busy || attempt > 1 {
			c.stopQuery(ctx)
		}
		c.sayGoodbye()
		switch err := readToEnd(c.raw, c.home.cfg.EndTimeout); {
		case isEnd(err):
			return true
		case ctx.Err() != nil:
			return false
		case c.broken || !errors.Is(err, os.ErrDeadlineExceeded):
			c.vanished(ctx, err)
			return ctx.Err() == nil
		}
		if attempt&(attempt-1) == 0 {
			c.log.Warn("server connection does not end and keeps its place", armor.KeyAddress, c.to.address, armor.KeyCount, attempt)
		}
	}
}

// vanished waits until PostgreSQL must have noticed by itself that a connection,
// whose end we cannot read any more, is dead.
func (c *Conn) vanished(ctx context.Context, cause error) {
	c.log.Warn("server connection broke without an end and keeps its place for a while",
		armor.KeyAddress, c.to.address, armor.KeyErr, cause, armor.KeyTook, c.home.cfg.VanishedFor)
	sleep(ctx, c.home.cfg.VanishedFor)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// stopQuery asks PostgreSQL to cancel what runs on the connection. Whether it did
// shows in the connection's end.
func (c *Conn) stopQuery(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, c.home.cfg.EndTimeout)
	defer stop()
	if err := c.Cancel(ctx); err != nil {
		c.log.Debug("cancel request failed", armor.KeyErr, err)
	}
}

// sayGoodbye tells PostgreSQL by Terminate and by a half-close: in the middle of a
// message only the latter is understood.
func (c *Conn) sayGoodbye() {
	_ = c.stream.SetWriteDeadline(time.Now().Add(goodbyeFor)) // the end is read, whatever becomes of this
	_, _ = c.stream.Write(pgwire.AppendTerminate(nil))
	closeWrite(c.stream)
	closeWrite(c.raw)
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other side sees an end, or was gone before
	}
}

// readToEnd reads and drops bytes until there are no more.
func readToEnd(c net.Conn, patience time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		if _, err := c.Read(buf); err != nil {
			return err
		}
	}
}

// endAttempt ends a connection whose login has failed, and reports whether its end
// was read.
func (d *Dialer) endAttempt(c *dialed) bool {
	closeWrite(c.Conn)
	err := readToEnd(c, d.cfg.EndTimeout)
	if !isEnd(err) {
		return false
	}
	c.Conn.Close()
	d.cfg.Register.Strike(c.entry.ID)
	return true
}

// Leftover is the connection of a login that has failed. PostgreSQL may still have a
// backend for it. A nil Leftover is none.
type Leftover struct {
	home  *Dialer
	conn  net.Conn
	entry Entry
}

func (d *Dialer) leftover(failed *dialed) *Leftover {
	if !failed.isOpen() {
		return nil
	}
	return &Leftover{d, failed.Conn, failed.entry}
}

// End returns when PostgreSQL has closed the connection, or must have noticed by itself
// that it is dead.
func (l *Leftover) End(ctx context.Context) {
	if l == nil {
		return
	}
	defer l.conn.Close()
	closeWrite(l.conn)
	if l.readEnd(ctx) {
		l.home.cfg.Register.Strike(l.entry.ID)
	}
}

func (l *Leftover) readEnd(ctx context.Context) bool {
	for ctx.Err() == nil {
		err := readToEnd(l.conn, l.home.cfg.EndTimeout)
		if isEnd(err) {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			sleep(ctx, l.home.cfg.VanishedFor)
			return ctx.Err() == nil
		}
	}
	return false
}
