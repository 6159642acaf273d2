package tlsedge

import (
	"context"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
)

// cancelPlain passes a cancel request on that came without TLS. PostgreSQL answers none,
// and closes when it is done.
func (e *Edge) cancelPlain(ctx context.Context, key armor.CancelKey, source netip.AddrPort) Outcome {
	if e.cancel(ctx, key, source, true) == CancelLimited {
		return OutcomeLimited
	}
	return OutcomeCancel
}

// Cancel passes a cancel request on that the client has sent instead of a startup packet.
// Who would be refused a session is refused this, and learns as little as from PostgreSQL:
// the connection is closed, whatever became of it.
func (s *Session) Cancel(ctx context.Context, key armor.CancelKey) {
	if denial := s.mayCancel(); denial != nil {
		s.edge.canceled(CancelRefused)
		if s.edge.failures.Allow() {
			s.edge.cfg.Logger.Info("cancel request refused", armor.KeyPeer, s.peer, armor.KeySource, s.peer.Source.String(),
				armor.KeyReason, denial.Reason, armor.KeyErr, denial.Message)
		}
		return
	}
	s.edge.cancel(ctx, key, s.peer.Source, false)
}

// mayCancel returns why the client would be refused a session, if it would.
func (s *Session) mayCancel() *armor.Denial {
	if cause := s.cause.Load(); cause != nil {
		return cause
	}
	if s.edge.cfg.Lease.AdmitNew(s.boundTo()) != nil {
		return staleDenial()
	}
	state, _ := s.edge.cfg.Trust.Current()
	access, denial := state.DecideAny(s.peer, s.edge.cfg.Lease.Now())
	if denial == nil && access.Environment != s.boundTo() {
		denial = movedEnvironment()
	}
	return denial
}

// cancel is the one way of all cancel requests: within the limits, and on.
func (e *Edge) cancel(ctx context.Context, key armor.CancelKey, source netip.AddrPort, plaintext bool) (result string) {
	if !e.cancels.allow(source.Addr()) {
		e.canceled(CancelLimited)
		return CancelLimited
	}
	e.canceled(CancelCarried)
	ctx, stop := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer stop()
	e.cfg.Canceler.Cancel(ctx, key, source, plaintext)
	return CancelCarried
}

func (e *Edge) canceled(result string) {
	if e.cfg.Hooks.Cancel != nil {
		e.cfg.Hooks.Cancel(result)
	}
}

const (
	// maxCancelSources bounds the memory spent on rate limits of cancel requests.
	maxCancelSources = 4096
	// cancelsOfAll is how many sources together may use up their allowance.
	cancelsOfAll = 4
)

// cancels limits the rate of cancel requests, of each source and of all: their keys are
// short enough to be guessed by somebody who may try without end. The node that holds a
// session limits those with its key.
type cancels struct {
	limit rate.Limit
	burst int
	all   *rate.Limiter

	mu      sync.Mutex // guards below
	sources map[netip.Addr]*rate.Limiter
}

func newCancels(perSecond float64) *cancels {
	limit, burst := rate.Limit(perSecond), max(1, int(2*perSecond))
	return &cancels{
		limit: limit, burst: burst, all: rate.NewLimiter(cancelsOfAll*limit, cancelsOfAll*burst),
		sources: map[netip.Addr]*rate.Limiter{},
	}
}

// allow reports whether a source may send one more now. Who has no allowance left uses up
// nothing of the others'.
func (c *cancels) allow(source netip.Addr) bool {
	source = armor.SourceOf(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	limiter := c.sources[source]
	if limiter == nil {
		if len(c.sources) >= maxCancelSources && !c.forgetLocked() {
			return false
		}
		limiter = rate.NewLimiter(c.limit, c.burst)
		c.sources[source] = limiter
	}
	return limiter.Allow() && c.all.Allow()
}

// forgetLocked drops the sources that have all of their allowance back, about
// which there is nothing to remember.
func (c *cancels) forgetLocked() bool {
	for source, limiter := range c.sources {
		if limiter.Tokens() >= float64(c.burst) {
			delete(c.sources, source)
		}
	}
	return len(c.sources) < maxCancelSources
}
