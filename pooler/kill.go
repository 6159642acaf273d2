package pooler

import (
	"sync"

	"github.com/armordb/armordb/armor"
)

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

func killedDenial() *armor.Denial {
	return &armor.Denial{Reason: armor.ReasonKilled, Message: "admin forced disconnect", Detail: "An operator has ended this session."}
}

// killClients ends all sessions of a pool.
func (p *Pooler) killClients(pl *pool) {
	for _, c := range p.allClients() {
		if c.pool == pl {
			c.kill(killedDenial())
		}
	}
}

func (p *Pooler) allClients() []*client {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*client, 0, len(p.clients))
	for c := range p.clients {
		all = append(all, c)
	}
	return all
}

// lastLeft does what was to be done when the last client has left.
func (p *Pooler) lastLeft() {
	if then := p.takeLeaving(); then != nil {
		then()
	}
}

func (p *Pooler) takeLeaving() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leaving == nil {
		return nil
	}
	for c := range p.clients {
		if c.borrows() {
			return nil
		}
	}
	then := p.leaving
	p.leaving = nil
	return then
}
