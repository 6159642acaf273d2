package portable

import (
	"sync"
	"sync/atomic"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Driver drives each session with one goroutine while it is idle, and two while a
// server connection is lent to it.
type Driver struct{}

// New returns the driver.
func New() Driver { return Driver{} }

// Drive serves one session until it has ended.
func (Driver) Drive(h *pooler.Handover) {
	s := &session{
		h: h, client: line{conn: h.Client}, core: h.Session,
		stopped: make(chan struct{}), progress: make(chan struct{}, 1), queued: make(chan *pgwire.Error, 1),
	}
	defer s.end()
	s.run()
}

// session is one client and, while one is lent, its server connection.
//
// Two goroutines serve it. The client's (run) reads the client, and alone writes to
// the server; the server's (serve) lives as long as a connection is lent, and reads
// that. Each feeds the core what it has read, and writes to the client what comes of
// it, under mu. Writing to the server happens outside of mu: while PostgreSQL does
// not read because its client does not, serve still runs, and nobody waits in a
// circle.
type session struct {
	h       *pooler.Handover
	client  line
	in      buffer      // from the client; only run uses it, as it does out and scratch
	out     core.Output // of the events that run brings about
	scratch []byte      // for joining writes to the server
	clock   clock

	mu        sync.Mutex // guards the core, writes to the client, and below; never held while writing to a server
	core      *core.Session
	lent      *lent           // nil while no server connection is
	wish      core.ClientWish // how the core wants the session to end; no event after that
	said      bool            // the core's last word was written to the client
	broken    bool            // a write to the client has failed or was cut short
	writing   bool            // run is writing to the server
	handBack  func()          // what is to be done once it has written
	again     []byte          // of the client's, to be fed again before anything else; nil: nothing is
	asks      bool            // PostgreSQL is to be asked for the core
	joint     []byte          // for joining writes to the client
	panicked  any             // what serve has died of
	state     string          // of the core, after the last event
	reported  string          // what the edge was told
	reporting bool            // a goroutine tells the edge, and looks again when it has

	progress chan struct{} // holds a token when the server has said something since the client's last event
	draining atomic.Pointer[pgwire.Error]
	queued   chan *pgwire.Error // what a client is told that waits for long
	serves   sync.WaitGroup

	stopping sync.Mutex // guards below; never held while reading or writing
	stopped  chan struct{}
	over     bool   // stopped is closed: by a cut, or because the session has ended
	cause    error  // why the session is cut; nil when it has ended by itself
	confirm  func() // the edge's, to be called once nothing is forwarded any more
	quiet    bool   // nothing is
	serving  *lent  // whose reads and writes stop ends
}

// stop makes the session end: because of a cut when cause is not nil. It ends every
// read and write that is blocked, and does not block itself.
func (s *session) stop(cause error) {
	s.stopping.Lock()
	defer s.stopping.Unlock()
	if s.over {
		return
	}
	s.over, s.cause = true, cause
	close(s.stopped)
	s.client.halt()
	if s.serving != nil {
		s.serving.line.halt()
	}
}

// cut is what the edge calls: see pooler.Guest.
func (s *session) cut(cause error, confirm func()) {
	s.stop(cause)
	s.stopping.Lock()
	quiet := s.quiet
	s.confirm = confirm
	s.stopping.Unlock()
	if quiet {
		confirm()
	}
}

// nowQuiet tells the edge, if it has asked, that nothing is forwarded any more.
func (s *session) nowQuiet() (cause error) {
	s.stopping.Lock()
	s.quiet = true
	confirm, cause := s.confirm, s.cause
	s.stopping.Unlock()
	if confirm != nil {
		confirm()
	}
	return cause
}

func (s *session) ended() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// live reports whether bytes may be forwarded, and stops the session if not.
func (s *session) live() bool {
	if s.ended() {
		return false
	}
	if err := s.h.Guest.Live(); err != nil {
		s.stop(err)
		return false
	}
	return true
}

// settleLocked writes to the client what an event asks for, and stops the session if
// it ends with that.
func (s *session) settleLocked(out *core.Output) {
	if out.ToClient.Len() > 0 && !s.broken {
		s.broken = write(s.client.conn, &out.ToClient, &s.joint) != nil
	}
	s.clock.note(s.core)
	s.state = s.core.State()
	if out.Client != core.GoOn {
		s.wish, s.said = out.Client, out.ToClient.Len() > 0
	}
	if s.wish != core.GoOn || s.broken {
		s.stop(nil)
	}
}

// report tells the edge the session's state when it has changed. One goroutine at a
// time does so, for the others too.
func (s *session) report() {
	for {
		state, news := s.news()
		if !news {
			return
		}
		s.h.Guest.SetState(state)
		s.mu.Lock()
		s.reported, s.reporting = state, false
		s.mu.Unlock()
	}
}

func (s *session) news() (state string, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reporting || s.state == s.reported {
		return "", false
	}
	s.reporting = true
	return s.state, true
}
