package portable

import (
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
)

// lent is a server connection while it is lent to a session.
type lent struct {
	server *pooler.ServerConn
	line   line
	in     *buffer     // from the server; only serve uses it, as it does out
	out    core.Output // of the events that the server brings about
	done   chan struct{}
	deaf   atomic.Bool     // a write to it has failed
	err    error           // how reading from it has failed; read when done is closed
	wish   core.ServerWish // what becomes of it; guarded by session.mu
}

func newLent(c *pooler.ServerConn) *lent {
	return &lent{server: c, line: line{conn: c.Conn()}, in: takeServerBuffer(), done: make(chan struct{})}
}

// lastWords is how long a server connection is still read when it does not take
// what is written to it any more.
const lastWords = time.Second

// writeFailed lets serve read what PostgreSQL has said before it stopped listening.
func (l *lent) writeFailed() {
	l.line.mu.Lock()
	defer l.line.mu.Unlock()
	if l.deaf.Store(true); !l.line.halted {
		_ = l.line.conn.SetReadDeadline(time.Now().Add(lastWords)) // a closed connection ends reading anyway
	}
}

// serve reads the server until the connection is given back, is lost, or the session
// is over.
func (s *session) serve(l *lent) {
	defer close(l.done)
	defer s.recovered()
	for {
		n, err := l.line.conn.Read(l.in.room(minServerChunk, l.out.Need))
		l.in.filled(n)
		if n > 0 && !s.serverEvent(l, func() { l.in.consume(s.core.FromServer(l.in.held(), &l.out)) }) {
			return
		}
		if err == nil {
			continue
		}
		if !isTimeout(err) || l.deaf.Load() && !s.ended() {
			l.err = err
			s.serverEvent(l, func() { s.core.ServerLost(&l.out) })
		}
		return
	}
}

// recovered keeps a panic for end, which ends the session with it.
func (s *session) recovered() {
	if cause := recover(); cause != nil {
		s.mu.Lock()
		s.panicked = cause
		s.mu.Unlock()
		s.stop(nil)
	}
}

// serverEvent has the core do something that the server is the reason for, and does
// what comes of it. It returns false when serve is to leave the connection.
func (s *session) serverEvent(l *lent, do func()) bool {
	goOn, handBack := s.decideServer(l, do)
	if handBack != nil {
		handBack()
	}
	s.report()
	select {
	case s.progress <- struct{}{}:
	default:
	}
	if s.draining.Load() != nil {
		s.client.wake() // run looks whether the session is idle
	}
	return goOn
}

// decideServer is the part of a server's event that happens under the lock. It
// returns what gives the connection back, unless run does that after its write.
func (s *session) decideServer(l *lent, do func()) (goOn bool, handBack func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent != l || s.wish != core.GoOn || !s.live() {
		return false, nil
	}
	do()
	s.settleLocked(&l.out)
	if l.out.Server == core.Ask {
		s.asks = true
		s.client.wake()
	}
	if !givesBack(l.out.Server) {
		return !s.ended(), nil
	}
	if l.out.Server == core.Retry {
		s.again = append(make([]byte, 0, len(l.out.Again)), l.out.Again...)
		s.client.wake()
	}
	s.lent, l.wish = nil, l.out.Server
	handBack = func() { s.giveBack(l) }
	if s.writing {
		s.handBack, handBack = handBack, nil
	}
	return false, handBack
}

// givesBack reports whether the core is done with the server connection.
func givesBack(w core.ServerWish) bool {
	return w == core.Release || w == core.Discard || w == core.Retry
}

// takeBack ends serve's use of a connection and gives it back.
func (s *session) takeBack(l *lent) {
	l.line.halt()
	<-l.done
	s.giveBack(l)
}

// giveBack gives a connection that nobody uses any more back to its pool.
func (s *session) giveBack(l *lent) {
	s.stopping.Lock()
	if s.serving == l { // the session may have been lent another one already
		s.serving = nil
	}
	s.stopping.Unlock()
	l.line.resume(0)
	switch rest := l.in.held(); {
	case l.err != nil:
		l.server.Lost(l.err)
	case l.wish == core.Release:
		l.server.Release(rest)
	default:
		l.server.Discard()
	}
	putServerBuffer(l.in)
}
