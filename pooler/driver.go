package pooler

import (
	"errors"
	"net"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Driver moves the bytes of authenticated sessions: it feeds a core.Session with
// what it reads and does what the Session asks for. Nothing else in this package
// knows which driver runs.
type Driver interface {
	// Drive serves one session until it has ended, closes its client connection, gives
	// the server connection back, and returns when nothing that it started for the
	// session is running any more. Or it returns at once and calls what Handover.GoOn
	// gave it then.
	Drive(h *Handover)
}

// Handover is an authenticated session as a driver gets it.
type Handover struct {
	Client  net.Conn
	Session *core.Session // nil at the console, which has a driver of its own
	Guest   Guest
	// Server is the server connection lent at login, in session mode, else nil. The
	// driver tells the Session of it by Granted.
	Server *ServerConn

	client *client
	driver Driver
	goesOn bool // when Drive returns
	watch  stopwatch
}

// GoOn lets the session live on when Drive returns; see Guest.GoOn.
func (h *Handover) GoOn() (end func(panicked any)) {
	h.goesOn = true
	left := h.Guest.GoOn()
	return func(panicked any) {
		h.client.home.forget(h.client)
		left(panicked)
	}
}

// AcquireNow returns a server connection for the session if one lies idle and nobody
// waits for it, else nil. It is for drivers whose connections know without a system
// call whether something has arrived (Readable), and allocates nothing.
func (h *Handover) AcquireNow() *ServerConn { return h.client.pool.lendAtOnce(&h.client.borrower) }

// Acquire gets a server connection for the session: ready is called once, perhaps
// before Acquire returns, from any goroutine, and must not block. The error, when
// there is no connection, is for Session.Refuse. abandon gives up; when it returns
// false ready was or will be called all the same.
func (h *Handover) Acquire(ready func(*ServerConn, *pgwire.Error)) (abandon func() bool) {
	return h.client.pool.acquire(&h.client.borrower, func(c *ServerConn, err error) {
		if err != nil {
			ready(nil, h.client.refusal(err))
			return
		}
		ready(c, nil)
	})
}

// OnDrain registers what is called, at most once, from any goroutine, when the
// session is to end at its next idle boundary with the error given. It must not
// block.
func (h *Handover) OnDrain(drain func(*pgwire.Error)) { h.client.onDrain(drain) }

// OnQueued registers what is called, from any goroutine, when the session has waited for
// a server connection for so long that its client is to be told, once in each wait. It
// must not block. By the time the driver comes to it the wait may be over.
func (h *Handover) OnQueued(tell func(*pgwire.Error)) {
	h.client.pool.mu.Lock()
	defer h.client.pool.mu.Unlock()
	h.client.queued = tell
}

// OnCancel registers what a cancel request does to a session that borrows nothing: there
// is nothing to cancel in PostgreSQL. It is called from any goroutine and must not block.
func (h *Handover) OnCancel(cancel func()) {
	h.client.mu.Lock()
	defer h.client.mu.Unlock()
	h.client.canceled = cancel
}

// Drops reports whether what the session has sent and PostgreSQL has not taken is dropped when it
// is cut for this cause, before the cut is confirmed: see ServerConn.DropUnsent.
func (h *Handover) Drops(cause error) bool {
	return errors.Is(cause, armor.ErrRevoked) || errors.Is(cause, armor.ErrStale)
}

// CutError is what Session.Cut gets for the cause of a cut, or for Overdue's.
func (h *Handover) CutError(cause error) *pgwire.Error {
	if late, ok := errors.AsType[*overdue](cause); ok {
		return h.client.refusal(late.Denial)
	}
	return wireError(cause)
}
