//go:build linux

package loop

import (
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// session is one client in a loop. All of it belongs to the loop.
type session struct {
	line
	h       *pooler.Handover
	core    *core.Session
	pending []byte // plaintext that core has not consumed

	server  *server
	waiting bool        // for a server connection
	abandon func() bool // gives the waiting up
	held    bool        // until the next event from the server

	begun bool
	early error         // why the session was cut before begin
	drain *pgwire.Error // ends the session at its next idle boundary
	told  string        // the state that the edge knows
	drops bool          // what PostgreSQL has not taken: see pooler.Handover.Drops
	over  bool          // nothing is forwarded any more; the last words may still be on their way
	ended bool

	leave    func(panicked any) // to be called at the end; not on the loop, it may take its time
	panicked any                // what the session ends with
}

// post leaves work of the session's for the loop. It reports false when the loop has
// ended.
func (s *session) post(work func()) bool {
	return s.w.post(func() {
		defer s.w.rescue(s)
		work()
	})
}

// begin takes the client's socket over.
func (s *session) begin() {
	s.begun = true
	if err := s.line.begin(); err != nil { // closed under us
		s.over = true
		if s.h.Server != nil {
			s.h.Server.Discard()
		}
		s.ended = true
		go s.leave(nil)
		return
	}
	if err := s.w.own(s.conn.fd, fromClient, s); err != nil {
		s.w.log.Error("register a client connection", armor.KeyErr, err)
		s.gone()
	}
	if s.h.Server != nil {
		s.granted(s.h.Server, nil)
	}
	if s.early != nil {
		s.cut(s.early, nil)
	}
	for b := s.leftover(); len(b) > 0 && !s.over; b = s.leftover() {
		s.fromClient(b)
	}
	s.receive()
	if s.drain != nil {
		s.drainSoon(s.drain)
	}
}

// happened is called for every event on the client's socket.
func (s *session) happened(events uint32) {
	if s.noted(events) {
		s.flush()
	}
	if s.waiting && events&left != 0 { // nothing is read while it waits
		s.gone()
		return
	}
	s.receive()
}

// blocked reports whether the client must wait: for its server connection, or until
// PostgreSQL takes what was sent before.
func (s *session) blocked() bool {
	return s.waiting || s.held || s.server != nil && len(s.server.unsent) > 0
}

// receiveTurns bounds how much one side may send before the others get their turn.
const receiveTurns = 16

// receive takes what the client has sent, while it may be forwarded.
func (s *session) receive() {
	for turn := 0; (s.ready || s.failed != nil) && !s.over && !s.blocked(); turn++ {
		if turn == receiveTurns {
			s.post(s.receive)
			return
		}
		b, err := s.next()
		switch {
		case err == errAgain: //nolint:errorlint // next returns it as it is
			return
		case err != nil:
			s.gone()
			return
		}
		s.fromClient(b)
	}
}

// fromClient feeds core with new plaintext.
func (s *session) fromClient(b []byte) {
	if len(b) == 0 {
		return
	}
	if len(s.pending) > 0 {
		s.pending = append(s.pending, b...)
		b = s.pending
	}
	if s.waiting || s.held {
		s.keep(b, 0)
		return
	}
	s.feed(b)
}

// keep stores what was not consumed, in an array of its size or of what is needed.
func (s *session) keep(b []byte, need int) {
	switch {
	case len(b) == 0:
		s.pending = nil
	case isTail(s.pending, b) && need <= cap(b):
		s.pending = b
	default:
		s.pending = exact(b, need)
	}
}

// maxNeed bounds what is allocated ahead for a message that is announced.
const maxNeed = 1 << 20

// exact copies b into an array of its size, or of what will be needed.
func exact(b []byte, need int) []byte {
	return append(make([]byte, 0, max(len(b), min(need, maxNeed))), b...)
}

// isTail reports whether b lies at the end of a's array.
func isTail(a, b []byte) bool {
	return cap(a) > 0 && cap(b) > 0 && &a[:cap(a)][cap(a)-1] == &b[:cap(b)][cap(b)-1]
}

// feed gives bytes to core as far as it takes them.
func (s *session) feed(b []byte) {
	if cause := s.w.live(s.h.Guest); cause != nil {
		s.cut(cause, nil)
		return
	}
	for {
		n := s.core.FromClient(b, &s.w.out)
		wish, need := s.w.out.Server, s.w.out.Need
		b = b[n:]
		if wish != core.Want {
			s.held = wish == core.Wait
			s.keep(b, need)
			s.act()
			return
		}
		s.act()
		if s.over {
			return
		}
		c := s.h.AcquireNow()
		if c == nil {
			s.keep(b, 0)
			s.acquire()
			return
		}
		if !s.lend(c) {
			return
		}
	}
}

// act does what core wished after an event, but for Want and Wait.
func (s *session) act() {
	out := &s.w.out
	server, wish, end := s.server, out.Server, out.Client
	lost := wish == core.Discard || wish == core.Retry
	if server != nil && !lost {
		server.write(s.w.joined(&out.ToServer))
	}
	if end != core.Reset {
		s.write(s.w.joined(&out.ToClient))
	}
	switch wish {
	case core.Release:
		server.release()
	case core.Discard:
		server.discard()
	case core.Retry:
		s.pending, s.held = slices.Concat(out.Again, s.pending), true
		server.discard()
	case core.Ask:
		s.core.Ask(out)
		server.write(s.w.joined(&out.ToServer))
	}
	switch end {
	case core.Hangup:
		s.hangup()
	case core.Reset:
		s.reset()
	}
	if s.over {
		return
	}
	if s.drain != nil && s.idle() {
		s.drained()
		return
	}
	if state := s.core.State(); state != s.told {
		s.told = state
		s.h.Guest.SetState(state)
	}
}

// write sends to the client.
func (s *session) write(b []byte) {
	if err := s.line.write(b); err != nil {
		s.failed = err // the next look at the socket ends the session
		s.unsent = nil
		s.post(s.receive)
	}
}

// flush goes on sending what the socket did not take; then the server may go on, too.
func (s *session) flush() {
	if err := s.line.flush(); err != nil {
		s.finish()
		return
	}
	switch {
	case len(s.unsent) > 0:
	case s.over:
		s.finish()
	case s.server != nil:
		s.server.receive()
	}
}

// acquire waits for a server connection.
func (s *session) acquire() {
	s.waiting = true
	s.abandon = s.h.Acquire(func(c *pooler.ServerConn, refused *pgwire.Error) {
		if !s.post(func() { s.granted(c, refused) }) && c != nil {
			c.Discard()
		}
	})
}

// queued tells a client that still waits that it does.
func (s *session) queued(e *pgwire.Error) {
	if s.waiting && !s.over {
		s.core.Notice(e, &s.w.out)
		s.act()
	}
}

// granted is the answer to acquire.
func (s *session) granted(c *pooler.ServerConn, refused *pgwire.Error) {
	s.waiting, s.abandon = false, nil
	switch {
	case s.over:
		if c != nil {
			c.Release(nil)
		}
		return
	case refused != nil:
		s.core.Refuse(refused, &s.w.out)
		s.act()
	case !s.lend(c):
		return
	}
	s.resume()
}

// lend takes a server connection over for the session. It reports false if that has
// ended the session.
func (s *session) lend(c *pooler.ServerConn) bool {
	sv, err := s.w.take(c, s)
	if err != nil {
		s.w.log.Error("take over a server connection", armor.KeyErr, err)
		c.Lost(err)
		s.cut(err, nil)
		return false
	}
	s.server = sv
	s.core.Granted(c.State(), &s.w.out)
	s.act()
	return !s.over
}

// resume goes on with what had to wait.
func (s *session) resume() {
	if s.over || s.blocked() {
		return
	}
	if b := s.pending; len(b) > 0 {
		s.feed(b)
	}
	if s.server != nil {
		s.server.receive()
	}
	s.receive()
}

// gone tells core that the client has left.
func (s *session) gone() {
	if !s.over {
		s.core.ClientGone(&s.w.out)
		s.act()
	}
	s.finish()
}

// cut ends the session because the node says so. confirm is called once no further
// byte will be forwarded.
func (s *session) cut(cause error, confirm func()) {
	if !s.over {
		s.drops = s.h.Drops(cause)
		interrupted := len(s.unsent) > 0
		s.core.Cut(s.h.CutError(cause), &s.w.out)
		if interrupted {
			s.w.out.Client = core.Reset // it has been sent half of something
		}
		s.act()
	}
	if confirm != nil {
		confirm()
	}
}

// cutSoon is cut for a session that may not have begun: then nothing was forwarded.
func (s *session) cutSoon(cause error, confirm func()) {
	if s.begun {
		s.cut(cause, confirm)
		return
	}
	s.early = cause
	confirm()
}

// idle reports whether the session may be ended without losing anything.
func (s *session) idle() bool {
	return s.begun && !s.over && !s.waiting && s.core.Idle() && len(s.pending) == 0 && len(s.unsent) == 0
}

// drainSoon ends the session when it is idle.
func (s *session) drainSoon(e *pgwire.Error) {
	s.drain = e
	if s.idle() {
		s.drained()
	}
}

func (s *session) drained() {
	e := s.drain
	s.drain = nil
	s.core.Cut(e, &s.w.out)
	s.act()
}

// lastWords is how long a client may take to receive its last message.
const lastWords = 5 * time.Second

// hangup closes the connection once everything is sent.
func (s *session) hangup() {
	if s.over {
		return
	}
	s.stopForwarding()
	if s.tls != nil {
		_ = s.tls.CloseWrite() // close_notify goes into memory
		_ = s.sendCipher()     // a client that is gone needs none
	}
	if len(s.unsent) == 0 {
		s.finish()
		return
	}
	s.w.closing[s] = time.Now().Add(lastWords)
}

// reset closes the connection so that the client sees it was cut off.
func (s *session) reset() {
	s.stopForwarding()
	s.unsent = nil
	_ = setLinger(s.conn.fd, 0) // then it is an end instead
	s.finish()
}

func (s *session) stopForwarding() {
	s.over, s.ready = true, false
	s.pending, s.partial = nil, nil
	if s.abandon != nil {
		s.abandon() // should it come too late, granted gives the connection back
		s.abandon = nil
	}
}

// finish closes the socket and ends the session.
func (s *session) finish() {
	if s.ended {
		return
	}
	s.ended = true
	s.stopForwarding()
	if s.server != nil {
		s.server.discard()
	}
	delete(s.w.closing, s)
	delete(s.w.watched, s)
	s.w.disown(s.conn.fd)
	s.end()
	_ = s.conn.Close() // may have been closed under us
	go s.leave(s.panicked)
}
