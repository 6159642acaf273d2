package portable

import (
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// run serves the client until the session is over.
func (s *session) run() {
	if err := s.h.Guest.HandOver(s.cut); err != nil {
		s.stop(err)
	}
	s.h.OnDrain(s.drain)
	s.h.OnQueued(s.isQueued)
	s.h.OnTimeOuts(s.keepTime)
	s.keepTime()
	if s.h.Server != nil {
		s.granted(s.h.Server)
	}
	for !s.ended() && s.feed() && s.read() {
	}
}

// drain asks for the session's end, with e, at its next idle boundary.
func (s *session) drain(e *pgwire.Error) {
	s.draining.Store(e)
	s.client.wake()
}

// drainIfIdle ends a session that is to be drained and is between transactions.
func (s *session) drainIfIdle() {
	if e := s.draining.Load(); e != nil && s.idle() {
		s.event(func() { s.core.Cut(e, &s.out) })
	}
}

// idle is the core's Idle. It stays true while run brings about no event.
func (s *session) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wish == core.GoOn && s.core.Idle()
}

// read waits for bytes of the client. It returns false when there will be none.
func (s *session) read() bool {
	if s.drainIfIdle(); s.ended() {
		return false
	}
	n, err := s.client.conn.Read(s.in.room(clientChunk, s.out.Need))
	s.in.filled(n)
	switch {
	case n > 0 || err == nil:
		return true
	case isTimeout(err): // woken to drain, or halted
		s.client.rest()
		return true
	}
	return false
}

// feed gives the core the client's bytes until it needs more of them. It returns
// false when the session is over.
func (s *session) feed() bool {
	for s.retry(); len(s.in.held()) > 0; s.retry() {
		n := 0
		s.event(func() {
			if s.again == nil {
				n = s.core.FromClient(s.in.held(), &s.out)
			}
		})
		s.in.consume(n)
		switch {
		case s.ended():
			return false
		case s.out.Server == core.Want:
			s.acquire()
		case s.out.Server == core.Wait:
			s.awaitProgress()
		case (n == 0 || s.out.Need > 0) && !s.retries():
			return true
		}
	}
	return true
}

// retries reports whether bytes of the client's are to be fed again.
func (s *session) retries() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again != nil
}

// retry does what the server's events have left to run: it puts what is to be fed again in
// front of what has come since, and asks PostgreSQL for the core, as only run may write to it.
func (s *session) retry() {
	s.mu.Lock()
	again, asks := s.again, s.asks
	s.again, s.asks = nil, false
	s.mu.Unlock()
	if len(again) > 0 {
		s.in.prepend(again)
	}
	if asks {
		s.event(func() { s.core.Ask(&s.out) })
	}
}

// event has the core do something that the client is the reason for, unless the
// session is over, and does what comes of it.
func (s *session) event(do func()) {
	l, server := s.decide(do)
	s.report()
	if l == nil {
		return
	}
	if s.out.ToServer.Len() > 0 {
		s.toServer(l)
	}
	if server {
		s.takeBack(l)
	}
}

// decide is the part of an event that happens under the lock. It returns the server
// connection, if there is something to be done with it, and whether it is to be
// given back.
func (s *session) decide(do func()) (l *lent, back bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.progress: // what was said before this event is no news after it
	default:
	}
	s.out.Server, s.out.Client = core.Keep, core.GoOn
	if s.wish != core.GoOn || !s.live() {
		return nil, false
	}
	do()
	s.settleLocked(&s.out)
	l, back = s.lent, givesBack(s.out.Server)
	if l == nil {
		return nil, false
	}
	if back {
		s.lent, l.wish = nil, s.out.Server
	}
	s.writing = s.out.ToServer.Len() > 0
	return l, back
}

// toServer writes to the server, and then gives the connection back if serve has
// found meanwhile that it is to be.
func (s *session) toServer(l *lent) {
	if err := write(l.line.conn, &s.out.ToServer, &s.scratch); err != nil {
		l.writeFailed()
	}
	s.mu.Lock()
	s.writing = false
	handBack := s.handBack
	s.handBack = nil
	s.mu.Unlock()
	if handBack != nil {
		handBack()
	}
}

// awaitProgress waits until the server has said something.
func (s *session) awaitProgress() {
	select {
	case <-s.progress:
	case <-s.stopped:
	}
}

// grant is how the waiting for a server connection ended.
type grant struct {
	server  *pooler.ServerConn
	refusal *pgwire.Error
}

// acquire waits for a server connection and tells the core what came of it.
func (s *session) acquire() {
	got := make(chan grant, 1)
	abandon := s.h.Acquire(func(c *pooler.ServerConn, e *pgwire.Error) { got <- grant{c, e} })
	select {
	case g := <-got:
		s.take(g)
		return
	default:
	}
	g, ok := s.await(got)
	if !ok {
		if abandon() {
			return
		}
		if g = <-got; g.server != nil {
			g.server.Release(nil)
		}
		return
	}
	s.take(g)
}

func (s *session) take(g grant) {
	if g.refusal != nil {
		s.event(func() { s.core.Refuse(g.refusal, &s.out) })
		return
	}
	s.granted(g.server)
}

// await waits for a grant, and watches the client meanwhile: one that has gone shall
// not be given what others wait for. It returns false when the session is over.
func (s *session) await(got <-chan grant) (g grant, ok bool) {
	select {
	case <-s.queued: // of a wait that was over by then
	default:
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch()
	}()
	if g, ok = s.inQueue(got); ok {
		s.client.wake()
	}
	<-watched
	s.client.rest()
	return g, ok
}

// inQueue is the wait itself.
func (s *session) inQueue(got <-chan grant) (g grant, ok bool) {
	for {
		select {
		case g = <-got:
			return g, true
		case e := <-s.queued:
			s.event(func() { s.core.Notice(e, &s.out) })
		case <-s.stopped:
			return g, false
		}
	}
}

// isQueued has the client told that it waits.
func (s *session) isQueued(e *pgwire.Error) {
	select {
	case s.queued <- e:
	default:
	}
}

// watch reads from the client while run waits for a server connection, until it is
// woken, or has read enough for now. The client's end ends the session.
func (s *session) watch() {
	for enough := len(s.in.held()) + clientChunk; len(s.in.held()) < enough; {
		n, err := s.client.conn.Read(s.in.room(clientChunk, 0))
		s.in.filled(n)
		if n == 0 && err != nil {
			if !isTimeout(err) {
				s.stop(nil)
			}
			return
		}
	}
}

// granted begins to serve a server connection that was lent.
func (s *session) granted(c *pooler.ServerConn) {
	l := newLent(c)
	if !s.begin(l) {
		c.Release(nil)
		return
	}
	served := false
	defer func() { // also when the event panics
		if !served {
			l.wish = core.Release // it is as it was
			s.giveBack(l)
		}
	}()
	s.event(func() {
		served, s.lent = true, l
		s.core.Granted(c.State(), &s.out)
		s.serves.Go(func() { s.serve(l) })
	})
}

// begin makes stop end what is blocked on the server connection too.
func (s *session) begin(l *lent) bool {
	s.stopping.Lock()
	defer s.stopping.Unlock()
	if s.over {
		return false
	}
	s.serving = l
	return true
}
