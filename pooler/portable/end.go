package portable

import (
	"io"
	"time"

	"github.com/armordb/armordb/pooler/core"
)

// farewell bounds the last write to a client, and the wait for it to have been read.
const farewell = time.Second

// end is what comes when run has nothing more to do, or has panicked: no byte is
// forwarded from here on.
func (s *session) end() {
	cause := recover()
	s.stop(nil)
	s.unwatch()
	s.serves.Wait()
	s.dropUnsent()
	cut := s.nowQuiet()
	if cause == nil {
		cause = s.panicked
	}
	if cause != nil {
		s.broken = true
	} else {
		s.lastEvent(cut)
	}
	if s.lent != nil {
		s.giveBack(s.lent)
	}
	s.closeClient()
	if cause != nil {
		panic(cause) // the edge counts it
	}
}

// dropUnsent sees to it, before the edge is told, that nothing of a session that is cut for good
// arrives at PostgreSQL later.
func (s *session) dropUnsent() {
	s.stopping.Lock()
	drops := s.cause != nil && s.h.Drops(s.cause)
	s.stopping.Unlock()
	if drops && s.lent != nil {
		s.lent.server.DropUnsent()
	}
}

// lastEvent has the core end the session, if it has not done so by itself. Nobody
// else uses the session any more.
func (s *session) lastEvent(cut error) {
	s.client.resume(farewell)
	if s.wish != core.GoOn {
		return
	}
	if cut != nil {
		s.core.Cut(s.h.CutError(cut), &s.out)
	} else {
		s.core.ClientGone(&s.out)
	}
	s.settleLocked(&s.out)
	if s.lent != nil {
		s.lent.wish = s.out.Server
	}
}

// closeClient closes the client's connection: by a reset if it would be left in the
// middle of a message. A client that was told something is given the time to read
// it, since closing with its bytes unread would destroy what is on the way.
func (s *session) closeClient() {
	conn := s.client.conn
	switch {
	case s.broken || s.wish == core.Reset:
		abort(conn)
		return
	case s.said:
		closeWrite(conn)
		_, _ = io.Copy(io.Discard, conn) // until it has closed too, or farewell is over
	}
	conn.Close()
}
