package console

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// session is one visitor. One goroutine reads, acts and answers.
type session struct {
	Visitor // immutable, as is all down to reader
	console *Console
	admin   bool // may act; else it may only look
	legacy  bool // some old columns beside those of compatible
	reader  *bufio.Reader

	// Only the session's goroutine uses these.
	out        []byte // answers that are not written yet
	statements map[string]*statement
	portals    map[string]*portal
	skipping   bool // until Sync

	mu      sync.Mutex // guards below, and the deadlines of Conn
	over    bool       // no further byte is written but why
	cause   error      // why it ends; nil when it ends by itself
	quiet   bool       // nothing is written any more
	confirm func()

	wake        chan struct{} // closed when over
	interrupted chan struct{} // holds a token when a cancel request has come
}

// maxMessage bounds what the console reads at once, in bytes.
const maxMessage = 16 << 10

// writePatience is how long a client of the console may take to read an answer.
const writePatience = 30 * time.Second

// farewell bounds the writing of a last message.
const farewell = time.Second

func newSession(c *Console, v Visitor) *session {
	return &session{
		Visitor: v, console: c, admin: v.Role == armor.ConsoleAdmin, legacy: v.Settings["armor.columns"] == "legacy",
		reader: bufio.NewReader(v.Conn), statements: map[string]*statement{}, portals: map[string]*portal{},
		wake: make(chan struct{}), interrupted: make(chan struct{}, 1),
	}
}

func (s *session) pooler() Pooler { return s.console.cfg.Pooler }

// visitors is how many clients of the environment are at the console.
func (s *session) visitors() int { return s.console.visitorsOf(s.Environment) }

// run serves the client until it leaves or its session is ended.
func (s *session) run() {
	defer s.ended()
	s.OnCancel(s.interrupt)
	if err := s.HandOver(s.end); err != nil {
		s.end(err, nil)
	}
	s.OnDrain(func(e *pgwire.Error) { s.end(e, nil) })
	for {
		kind, body, err := s.read()
		if err != nil {
			s.farewell(err)
			return
		}
		if !s.handle(kind, body) {
			return
		}
	}
}

// read reads one message. ErrInvalid is about what the client has sent.
func (s *session) read() (kind byte, body []byte, err error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(s.reader, head[:]); err != nil {
		return 0, nil, err
	}
	h, err := pgwire.ClientHeader(head[:])
	if err == nil && h.Body > maxMessage {
		err = fmt.Errorf("%w: message of %d bytes is too long for the admin console", armor.ErrInvalid, h.Body)
	}
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, h.Body)
	_, err = io.ReadFull(s.reader, body)
	return h.Type, body, err
}

// farewell tells the client why its session ends, unless it has left.
func (s *session) farewell(err error) {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	switch {
	case cause != nil:
		s.refuse(s.CutError(cause))
	case errors.Is(err, armor.ErrInvalid):
		s.refuse(fatal(strings.TrimPrefix(err.Error(), armor.ErrInvalid.Error()+": ")))
	}
}

func (s *session) refuse(e *pgwire.Error) {
	_ = s.Conn.SetWriteDeadline(time.Now().Add(farewell)) // a dead connection needs none
	_, _ = s.Conn.Write(pgwire.AppendError(nil, e))       // the session ends whether that is read or not
}

// fatal is about what the client has sent.
func fatal(message string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateProtocol, Message: message}
}

// flush writes the answers so far. It returns false when the session is over.
func (s *session) flush() bool {
	if cause := s.Live(); cause != nil {
		s.end(cause, nil)
	}
	s.mu.Lock()
	over := s.over
	if !over {
		_ = s.Conn.SetWriteDeadline(time.Now().Add(writePatience)) // a dead connection fails at the write
	}
	s.mu.Unlock()
	if over {
		s.farewell(nil)
		return false
	}
	_, err := s.Conn.Write(s.out)
	s.out = s.out[:0]
	return err == nil
}

// end has the session's goroutine stop, wherever it is; see Session.HandOver.
func (s *session) end(cause error, confirm func()) {
	s.mu.Lock()
	first, quiet := !s.over, s.quiet
	if first {
		s.over, s.cause = true, cause
		close(s.wake)
		_ = s.Conn.SetReadDeadline(time.Unix(1, 0))           // a dead connection needs none,
		_ = s.Conn.SetWriteDeadline(time.Now().Add(farewell)) // nor here
	}
	if confirm != nil && !quiet {
		s.confirm = confirm
	}
	s.mu.Unlock()
	if confirm != nil && quiet {
		confirm()
	}
}

// ended closes the connection and tells the edge, if it waits, that nothing is written
// any more.
func (s *session) ended() {
	s.Conn.Close()
	s.mu.Lock()
	s.quiet = true
	confirm := s.confirm
	s.mu.Unlock()
	if confirm != nil {
		confirm()
	}
}

// interrupt is what a cancel request does.
func (s *session) interrupt() {
	select {
	case s.interrupted <- struct{}{}:
	default:
	}
}

// How waiting for something has ended.
var (
	errInterrupted = errors.New("interrupted")
	errGone        = errors.New("gone")
)

// await waits for what a command is about: until it is done, a cancel request comes,
// or the client leaves or is ended.
func (s *session) await(done <-chan struct{}) error {
	select { // a token of an earlier command is not for this one
	case <-s.interrupted:
	default:
	}
	gone := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, err := s.reader.Peek(1); err != nil && !isTimeout(err) {
			close(gone)
		}
	}()
	defer func() {
		s.readDeadline(time.Unix(1, 0))
		<-watched
		s.readDeadline(time.Time{})
	}()
	select {
	case <-done:
		return nil
	case <-s.interrupted:
		return errInterrupted
	case <-gone:
	case <-s.wake:
	}
	return errGone
}

// readDeadline sets one, unless the end of the session has set its own.
func (s *session) readDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = s.Conn.SetReadDeadline(t) // a dead connection shows at the next use
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
