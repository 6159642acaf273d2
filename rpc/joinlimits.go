package rpc

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"

	"github.com/armordb/armordb/armor"
)

// Strangers may ask this much: a joiner asks a few times and then once a second.
const (
	joinRate        = 5  // calls a second from one address
	joinBurst       = 20 // and this many at once
	joinRateOverall = 50 // calls a second from all
	maxJoinSources  = 1024
)

// joinLimits bounds what callers without a certificate can cost.
type joinLimits struct {
	overall *rate.Limiter

	mu      sync.Mutex // guards sources
	sources map[netip.Addr]*rate.Limiter
}

func newJoinLimits() *joinLimits {
	return &joinLimits{
		overall: rate.NewLimiter(joinRateOverall, joinRateOverall),
		sources: map[netip.Addr]*rate.Limiter{},
	}
}

// admit is the authorizer of the join service: ErrExhausted for who asks too often.
func (l *joinLimits) admit(ctx context.Context, _ string) error {
	var source netip.Addr
	if p, ok := peer.FromContext(ctx); ok {
		if at, err := netip.ParseAddrPort(p.Addr.String()); err == nil {
			source = armor.SourceOf(at.Addr())
		}
	}
	if !l.of(source).Allow() || !l.overall.Allow() {
		return fmt.Errorf("%w: too many requests to join: try again in a minute", armor.ErrExhausted)
	}
	return nil
}

// of returns the source's limiter. When there are too many sources all are forgotten;
// the overall limit holds all the same.
func (l *joinLimits) of(source netip.Addr) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.sources[source]
	if limiter == nil {
		if len(l.sources) >= maxJoinSources {
			clear(l.sources)
		}
		limiter = rate.NewLimiter(joinRate, joinBurst)
		l.sources[source] = limiter
	}
	return limiter
}
