package rpc

import (
	"fmt"
	"sync"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
)

// A node carries this many cancel requests to another: what it lets in from all of its
// clients.
const (
	cancelRate  = 200 // a second
	cancelBurst = 400
)

// cancelLimits bounds the cancel requests of each node: with the key of one, too, somebody
// may not guess without end.
type cancelLimits struct {
	mu    sync.Mutex // guards nodes
	nodes map[string]*rate.Limiter
}

func newCancelLimits() *cancelLimits { return &cancelLimits{nodes: map[string]*rate.Limiter{}} }

// admit is ErrExhausted for a member that asks too often.
func (l *cancelLimits) admit(node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.nodes[node]
	if limiter == nil {
		limiter = rate.NewLimiter(cancelRate, cancelBurst)
		l.nodes[node] = limiter
	}
	if !limiter.Allow() {
		return fmt.Errorf("%w: node %q passes on more than %d cancel requests a second", armor.ErrExhausted, node, cancelRate)
	}
	return nil
}
