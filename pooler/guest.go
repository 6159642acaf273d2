package pooler

import (
	"context"
	"sync"

	"github.com/armordb/armordb/armor"
)

// Guest is a client as the edge vouches for it.
type Guest interface {
	// Peer is who the client proved to be.
	Peer() armor.Peer
	// Admit asks for what the startup packet wants; from then on every revision judges
	// the session by it. The error is a *armor.Denial.
	Admit(database, role string, replication armor.Replication) (armor.Access, error)
	// EndPoint is the channel binding tls-server-end-point (RFC 5929) of the client's
	// connection; nil when its server certificate has none.
	EndPoint() []byte
	// Proved ends the login: factor is what was proved of what Access asks for. The error
	// is the cause, if the session has ended or more was to be proved.
	Proved(factor armor.SecondFactor) error
	// Live is asked before bytes are forwarded: nil, or the cause with which the session
	// is cut.
	Live() error
	// Moment is the first step of Live, for a driver that looks at the clocks once for a
	// batch of sessions: after it has waited, before it forwards anything.
	Moment() armor.Moment
	// LiveAt is the second step of Live, for each session of the batch.
	LiveAt(m armor.Moment) error
	// HandOver gives the session's end to the driver: cut is called at most once, from
	// any goroutine, must not block, and the driver calls confirm once no further byte
	// will be forwarded. It returns the cause if the session has already ended.
	HandOver(cut func(cause error, confirm func())) error
	// GoOn lets the session live on when ServeConn returns: it ends when end is called,
	// once, from any goroutine. panicked is what it has ended with, or nil.
	GoOn() (end func(panicked any))
	// Cancel takes a cancel request that the client sent instead of a startup packet, and
	// carries it to the session that holds the key, on whatever node, if the client may.
	Cancel(ctx context.Context, key armor.CancelKey)
	// Refuse records a denial made by the pooler and returns it with its id.
	Refuse(d *armor.Denial) *armor.Denial
	// SetState is for `armorctl session list`.
	SetState(state string)
}

// ending lets the pooler end a session as the edge does: it stands between the edge
// and the driver, so that the driver is told once, by whoever is first.
type ending struct {
	Guest

	mu      sync.Mutex // guards below; never held while calling
	tell    func(cause error, confirm func())
	cause   error    // of the first to end the session
	quiet   bool     // the driver has confirmed
	waiting []func() // to be called when it does
}

// HandOver passes a cut on that is called at most once, whoever ends the session.
func (e *ending) HandOver(cut func(error, func())) error {
	e.mu.Lock()
	cause := e.cause
	if cause == nil {
		e.tell = cut
	}
	e.mu.Unlock()
	if cause != nil {
		return cause
	}
	return e.Guest.HandOver(e.end)
}

// end ends the session, unless it is ending already; confirm is called when nothing is
// forwarded any more.
func (e *ending) end(cause error, confirm func()) {
	e.mu.Lock()
	first, quiet, tell := e.cause == nil, e.quiet, e.tell
	if first {
		e.cause = cause
	}
	if !quiet {
		e.waiting = append(e.waiting, confirm)
	}
	e.mu.Unlock()
	switch {
	case quiet:
		confirm()
	case first && tell != nil:
		tell(cause, e.confirm)
	}
}

func (e *ending) confirm() {
	e.mu.Lock()
	waiting := e.waiting
	e.quiet, e.waiting = true, nil
	e.mu.Unlock()
	for _, confirm := range waiting {
		confirm()
	}
}
