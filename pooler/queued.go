package pooler

import (
	"time"

	"github.com/armordb/armordb/pooler/pgwire"
)

// OnQueued registers what is called, from any goroutine, when the session has waited for
// a server connection for so long that its client is to be told. It must not block. By
// the time the driver comes to it the wait may be over.
func (h *Handover) OnQueued(tell func(*pgwire.Error)) {
	h.client.mu.Lock()
	defer h.client.mu.Unlock()
	h.client.queued = tell
}

// startNoticeLocked has the client told, once in each wait, that it waits.
func (p *pool) startNoticeLocked(w *waiter) {
	after := p.cfg.QueryWaitNotify
	if after <= 0 || w.notice != nil {
		return
	}
	w.notice = time.AfterFunc(max(after-time.Since(w.since), 0), func() { p.tellQueued(w) })
}

func (p *pool) tellQueued(w *waiter) {
	if !p.waits(w) {
		return
	}
	w.client.mu.Lock()
	tell := w.client.queued
	w.client.mu.Unlock()
	if tell != nil {
		tell(queuedNotice())
	}
}

func (p *pool) waits(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.place != nil
}

func queuedNotice() *pgwire.Error {
	return &pgwire.Error{
		Severity: pgwire.SeverityNotice, Code: "00000", Message: "no server connection is available, the client is queued",
		Hint: "It goes on as soon as one becomes free.",
	}
}
