//go:build linux && mutant

package loop

import (
	"bytes"
	"os"
	"sync"
	"time"

	"github.com/armordb/armordb/pooler/pgwire"
)

// mutantSwap is a planted fault, in force when ARMOR_MUTANT=swapped: now and then a reply
// is kept until another session of the loop has one, and each gets the other's. The
// chaos harness must catch it; nothing else uses it.
var mutantSwap func(v *server, b []byte) (kept bool)

func init() {
	if os.Getenv("ARMOR_MUTANT") == "swapped" {
		mutantSwap = new(swapper).swap
	}
}

const (
	swapEvery = 100                   // replies pass for each that is kept
	keptFor   = 50 * time.Millisecond // then it is given to whom it belongs
)

type swapper struct {
	mu   sync.Mutex // guards all below; never held while a reply is fed
	seen int
	kept *keptReply
}

type keptReply struct {
	server  *server
	session *session
	bytes   []byte
}

func (w *swapper) swap(v *server, b []byte) (kept bool) {
	if !isWhole(b) {
		return false
	}
	mine := &keptReply{v, v.session, bytes.Clone(b)}
	other := w.exchange(mine)
	switch {
	case other == nil:
		return false
	case other == mine:
		time.AfterFunc(keptFor, func() { mine.session.post(func() { w.giveBack(mine) }) })
		return true
	}
	v.feed(other.bytes)
	other.server.feed(mine.bytes)
	return true
}

// exchange returns what is to be swapped with mine: mine, if it is to be kept for another,
// and nil if it is to pass.
func (w *swapper) exchange(mine *keptReply) *keptReply {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	if k := w.kept; k != nil && k.server != mine.server && k.server.w == mine.server.w && k.server.session == k.session {
		w.kept = nil
		return k
	}
	if w.kept != nil || w.seen%swapEvery != 0 {
		return nil
	}
	w.kept = mine
	return mine
}

func (w *swapper) giveBack(k *keptReply) {
	w.mu.Lock()
	mine := w.kept == k
	if mine {
		w.kept = nil
	}
	w.mu.Unlock()
	if mine && k.server.session == k.session {
		k.server.feed(k.bytes)
	}
}

// isWhole reports whether b is the reply to one query that returns rows, and no more.
func isWhole(b []byte) bool {
	if b[0] != pgwire.RowDescription {
		return false
	}
	for len(b) >= pgwire.HeaderSize {
		h, err := pgwire.ServerHeader(b)
		if err != nil || h.Size() > len(b) || h.Type == pgwire.ErrorResponse {
			return false
		}
		if h.Type == pgwire.ReadyForQuery {
			return h.Size() == len(b) && b[pgwire.HeaderSize] == 'I'
		}
		b = b[h.Size():]
	}
	return false
}
