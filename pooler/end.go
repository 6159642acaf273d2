package pooler

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

// end ends a server connection and returns when its place is free: closing our side
// does not end a backend that is running a query, so the end must be read. ctx ends
// when the process does.
func (p *Pooler) end(ctx context.Context, c *ServerConn) {
	defer c.conn.Close()
	defer c.raw.Close()
	if c.ended {
		return
	}
	for attempt := 1; ; attempt++ {
		if c.busy || attempt > 1 {
			p.stopQuery(ctx, c)
		}
		c.sayGoodbye()
		switch err := readToEnd(c.raw, p.cfg.EndTimeout); {
		case isEnd(err) || ctx.Err() != nil:
			return
		case c.broken || !errors.Is(err, os.ErrDeadlineExceeded):
			p.vanished(ctx, c, err)
			return
		}
		if attempt&(attempt-1) == 0 {
			p.cfg.Logger.Warn("server connection does not end and keeps its place", armor.KeyPool, c.pool.key, armor.KeyRole, c.sub.role, armor.KeyAddress, c.address.address, armor.KeyCount, attempt)
		}
	}
}

// vanished waits until PostgreSQL must have noticed by itself that a connection,
// whose end we cannot read any more, is dead.
func (p *Pooler) vanished(ctx context.Context, c *ServerConn, cause error) {
	p.cfg.Logger.Warn("server connection broke without an end and keeps its place for a while",
		armor.KeyPool, c.pool.key, armor.KeyRole, c.sub.role, armor.KeyAddress, c.address.address, armor.KeyErr, cause, armor.KeyTook, p.cfg.VanishedFor)
	sleep(ctx, p.cfg.VanishedFor)
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
func (p *Pooler) stopQuery(ctx context.Context, c *ServerConn) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.EndTimeout)
	defer cancel()
	if err := p.cancelQuery(ctx, c); err != nil {
		p.cfg.Logger.Debug("cancel request failed", armor.KeyPool, c.pool.key, armor.KeyErr, err)
	}
}

// sayGoodbye tells PostgreSQL by Terminate and by a half-close: in the middle of a
// message only the latter is understood.
func (c *ServerConn) sayGoodbye() {
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeFor)) // the end is read, whatever becomes of this
	_, _ = c.conn.Write(pgwire.AppendTerminate(nil))
	closeWrite(c.conn)
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
func (p *Pooler) endAttempt(c net.Conn) bool {
	closeWrite(c)
	err := readToEnd(c, p.cfg.EndTimeout)
	if !isEnd(err) {
		return false
	}
	c.Close()
	return true
}

// endFailed returns when the place of a failed login is free.
func (p *Pooler) endFailed(ctx context.Context, failed *dialed) {
	if !failed.isOpen() {
		return
	}
	defer failed.Conn.Close()
	closeWrite(failed.Conn)
	for ctx.Err() == nil {
		err := readToEnd(failed.Conn, p.cfg.EndTimeout)
		if isEnd(err) {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			sleep(ctx, p.cfg.VanishedFor)
			return
		}
	}
}
