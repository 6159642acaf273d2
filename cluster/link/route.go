package link

import (
	"context"
	"net"
	"slices"
	"sync"
)

// The protocols of the port.
const (
	Raft = "armor-raft/1"
	API  = "h2" // gRPC
	// Join is for a node that has no certificate yet. Nothing else may come without
	// one.
	Join = "armor-join/1"
)

var (
	// certified are the protocols for who has a certificate, the preferred one first.
	certified = []string{Raft, API}
	// forNodes are those of them that operators may not speak.
	forNodes = []string{Raft}
)

// joins reports whether a client offers the join protocol and no other.
func joins(offered []string) bool {
	return len(offered) > 0 && !slices.ContainsFunc(offered, func(alpn string) bool { return alpn != Join })
}

// Route returns the listener of one protocol: it accepts *tls.Conn whose handshake is
// over and whose peer is proven. Each protocol has one listener; until it is asked
// for, connections of that protocol are closed.
func (l *Link) Route(alpn string) net.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.routes[alpn]
	if r == nil {
		r = &route{addr: l.listener.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
		l.routes[alpn] = r
		if l.ended {
			r.Close()
		}
	}
	return r
}

func (l *Link) routeOf(alpn string) *route {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routes[alpn]
}

// route is one protocol's listener.
type route struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (r *route) deliver(ctx context.Context, c net.Conn) bool {
	select {
	case r.conns <- c:
		return true
	case <-r.done:
		return false
	case <-ctx.Done():
		return false
	}
}

// Accept returns the next connection of the protocol.
func (r *route) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

// Close ends the route; the port stays open for the others.
func (r *route) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

// Addr is the port's address.
func (r *route) Addr() net.Addr { return r.addr }
