//go:build linux

package loop

import (
	"crypto/tls"
	"fmt"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
)

// server is a server connection as a loop knows it: it stays registered while it lies
// idle in the pool, so that lending it costs no system call.
type server struct {
	line
	c       *pooler.ServerConn
	session *session // nil while it is not lent
	pending []byte   // received and not consumed by core
	writing bool     // registered for EPOLLOUT
}

// take makes a granted connection this loop's and lends it to a session.
func (w *worker) take(c *pooler.ServerConn, s *session) (*server, error) {
	conn, ok := c.Raw().(*Conn)
	if !ok {
		return nil, fmt.Errorf("server connection of type %T", c.Raw())
	}
	v, err := w.adopt(c, conn)
	if err != nil {
		return nil, err
	}
	if err := v.begin(); err != nil {
		return nil, err
	}
	v.session = s
	v.ready = v.ready || conn.arrived.Load()
	return v, nil
}

// adopt registers a connection that this loop does not have yet.
func (w *worker) adopt(c *pooler.ServerConn, conn *Conn) (*server, error) {
	home := conn.home.Load()
	if home == w {
		if v, ok := w.owners[conn.fd].(*server); ok && v.conn == conn {
			return v, nil
		}
	}
	if home != nil {
		_ = home.poller.remove(conn.fd) // that loop forgets the rest when it meets the number again
	}
	if err := conn.Detach(); err != nil {
		return nil, fmt.Errorf("take over a server connection: %w", err)
	}
	v := &server{line: line{w: w, conn: conn}, c: c}
	if t, ok := c.Conn().(*tls.Conn); ok {
		v.tls = t
		conn.records = true
	}
	conn.home.Store(w)
	if err := w.own(conn.fd, fromServer, v); err != nil {
		return nil, err
	}
	return v, nil
}

// happened is called for every event on the socket. While the connection lies idle,
// the pool looks after it.
func (v *server) happened(events uint32) {
	writable := v.noted(events)
	s := v.session
	if s == nil {
		v.conn.arrived.Store(true)
		return
	}
	if writable {
		v.flush()
	}
	if v.session == s {
		v.receive()
	}
}

// receive takes what PostgreSQL has sent, unless the client has not taken what came
// before.
func (v *server) receive() {
	s := v.session
	for turn := 0; s != nil && v.session == s && (v.ready || v.failed != nil) && len(s.unsent) == 0; turn++ {
		if turn == receiveTurns {
			s.post(func() {
				if v.session == s {
					v.receive()
				}
			})
			return
		}
		b, err := v.next()
		switch {
		case err == errAgain: //nolint:errorlint // next returns it as it is
			return
		case err != nil:
			v.lost(err)
			return
		}
		if mutantSwap == nil || !mutantSwap(v, b) {
			v.feed(b)
		}
	}
}

// feed gives bytes to core. What it does not consume is the beginning of a message,
// or comes after the end of the loan.
func (v *server) feed(b []byte) {
	s := v.session
	if cause := s.w.live(s.h.Guest); cause != nil {
		s.cut(cause, nil)
		return
	}
	if len(v.pending) > 0 {
		v.pending = append(v.pending, b...)
		b = v.pending
	}
	n := s.core.FromServer(b, &v.w.out)
	v.pending = nil
	if rest := b[n:]; len(rest) > 0 {
		v.pending = exact(rest, v.w.out.Need)
	}
	s.act()
	if s.held && !s.over {
		s.held = false
		s.feed(s.pending)
		s.post(s.receive) // what has come since was left in the socket
	}
}

// write sends to PostgreSQL.
func (v *server) write(b []byte) {
	if err := v.line.write(b); err != nil {
		v.broken()
		return
	}
	v.watchWrites(len(v.unsent) > 0)
}

// flush goes on sending; then the client may go on, too.
func (v *server) flush() {
	if err := v.line.flush(); err != nil {
		v.broken()
		return
	}
	if len(v.unsent) == 0 {
		v.watchWrites(false)
		v.session.resume()
	}
}

func (v *server) watchWrites(on bool) {
	if v.writing == on {
		return
	}
	v.writing = on
	events := uint32(fromServer)
	if on {
		events = toServer
	}
	if err := v.w.poller.modify(v.conn.fd, events, v.w.tickets[v.conn.fd]); err != nil {
		v.broken()
	}
}

// broken is for a connection that cannot be written to: what PostgreSQL has still
// said is received before it counts as lost.
func (v *server) broken() {
	v.unsent, v.ready = nil, true
	s := v.session
	if s != nil {
		s.post(func() {
			if v.session == s {
				v.receive()
			}
		})
	}
}

// lost tells core that the connection has ended.
func (v *server) lost(err error) {
	s := v.session
	s.core.ServerLost(&v.w.out)
	v.w.out.Server = core.Keep // it is given back here
	v.give(func() { v.c.Lost(err) })
	s.act()
}

// release gives the connection back to its pool.
func (v *server) release() {
	if len(v.unsent) > 0 { // PostgreSQL has answered before it has read everything
		s := v.session
		v.discard()
		s.post(s.resume) // which was not read while there was something unsent, and no event may come any more
		return
	}
	rest := v.pending
	v.give(func() { v.c.Release(rest) })
}

// discard gives the connection back to be ended.
func (v *server) discard() {
	drops := v.session != nil && v.session.drops
	v.give(func() {
		if drops {
			v.c.DropUnsent()
		}
		v.c.Discard()
	})
}

// give ends the loan.
func (v *server) give(back func()) {
	if v.session == nil {
		return
	}
	v.session.server, v.session = nil, nil
	v.pending = nil
	v.conn.arrived.Store(v.ready)
	v.watchWrites(false) // while the descriptor's number is still ours
	v.end()
	back()
}
