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

// end ends the connection and returns when PostgreSQL has no backend for it any more:
// closing our side does not end a backend that is running a query, so the end must be
// read. ctx ends when the process does.
func (w *wire) end(ctx context.Context) {
	defer w.stream.Close()
	defer w.raw.Close()
	if w.ended {
		return
	}
	for attempt := 1; ; attempt++ {
		if w.busy || attempt > 1 {
			w.stopQuery(ctx)
		}
		w.sayGoodbye()
		switch err := readToEnd(w.raw, w.home.EndTimeout); {
		case isEnd(err) || ctx.Err() != nil:
			return
		case w.broken || !errors.Is(err, os.ErrDeadlineExceeded):
			w.vanished(ctx, err)
			return
		}
		if attempt&(attempt-1) == 0 {
			w.log.Warn("server connection does not end and keeps its place", armor.KeyAddress, w.to.address, armor.KeyCount, attempt)
		}
	}
}

// vanished waits until PostgreSQL must have noticed by itself that a connection,
// whose end we cannot read any more, is dead.
func (w *wire) vanished(ctx context.Context, cause error) {
	w.log.Warn("server connection broke without an end and keeps its place for a while",
		armor.KeyAddress, w.to.address, armor.KeyErr, cause, armor.KeyTook, w.home.VanishedFor)
	sleep(ctx, w.home.VanishedFor)
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
func (w *wire) stopQuery(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, w.home.EndTimeout)
	defer stop()
	if err := w.cancel(ctx); err != nil {
		w.log.Debug("cancel request failed", armor.KeyErr, err)
	}
}

// sayGoodbye tells PostgreSQL by Terminate and by a half-close: in the middle of a
// message only the latter is understood.
func (w *wire) sayGoodbye() {
	_ = w.stream.SetWriteDeadline(time.Now().Add(goodbyeFor)) // the end is read, whatever becomes of this
	_, _ = w.stream.Write(pgwire.AppendTerminate(nil))
	closeWrite(w.stream)
	closeWrite(w.raw)
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
func (d *dialer) endAttempt(c net.Conn) bool {
	closeWrite(c)
	err := readToEnd(c, d.EndTimeout)
	if !isEnd(err) {
		return false
	}
	c.Close()
	return true
}

// leftover is the connection of a login that has failed. PostgreSQL may still have a
// backend for it. A nil leftover is none.
type leftover struct {
	home *dialer
	conn net.Conn
}

func (d *dialer) leftover(failed *dialed) *leftover {
	if !failed.isOpen() {
		return nil
	}
	return &leftover{d, failed.Conn}
}

// end returns when PostgreSQL has closed the connection, or must have noticed by itself
// that it is dead.
func (l *leftover) end(ctx context.Context) {
	if l == nil {
		return
	}
	defer l.conn.Close()
	closeWrite(l.conn)
	for ctx.Err() == nil {
		err := readToEnd(l.conn, l.home.EndTimeout)
		if isEnd(err) {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			sleep(ctx, l.home.VanishedFor)
			return
		}
	}
}
