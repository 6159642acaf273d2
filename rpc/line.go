package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/armordb/armordb/armor"
)

const (
	// One try at connecting, handshakes included, takes this long at most: nodes are
	// near each other, operators and joiners may be far.
	nearConnect = time.Second
	farConnect  = 3 * time.Second
	// A connection that says nothing for pingAfter is asked, and given up when it
	// stays silent for pingTimeout. gRPC asks no earlier than after 10 s.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// maxMessage bounds one message, whoever sends it. Long lists come in chunks.
	maxMessage = 4 << 20
)

// line keeps one connection to one place. It connects when a call needs it and the
// last connection does not stand any more, at once and without gRPC's back-off: a
// peer that has restarted costs the next call one handshake. Whatever fails before a
// call is sent is told apart from a call that was lost.
type line struct {
	to          string                                      // for error texts
	dial        func(ctx context.Context) (net.Conn, error) // handshake included
	credentials credentials.TransportCredentials
	within      time.Duration // for one try at connecting
	dialing     chan struct{} // a slot: one caller connects, the others wait for it

	mu      sync.Mutex // guards all below; never held while dialing or calling
	current *strand
	closed  bool
}

// strand is one connection. A retired one is closed when its last call has ended.
type strand struct {
	conn    *grpc.ClientConn
	calls   int
	retired bool
}

func newLine(to string, within time.Duration, c credentials.TransportCredentials, dial func(context.Context) (net.Conn, error)) *line {
	return &line{to: to, dial: dial, credentials: c, within: within, dialing: make(chan struct{}, 1)}
}

// use makes a call on a connection that stands. An error in connecting is a
// transportError with unsent set: ErrUnavailable, beside what ctx ended with if it
// did.
func (l *line) use(ctx context.Context, call func(grpc.ClientConnInterface) error) error {
	w, err := l.connected(ctx)
	if err != nil {
		return &transportError{message: fmt.Sprintf("connect to %s: %v", l.to, err), kind: unavailable(ctx), unsent: true}
	}
	defer l.release(w)
	err = fromStatus(call(w.conn))
	if lost, ok := errors.AsType[*transportError](err); ok && errors.Is(lost, armor.ErrUnavailable) {
		l.abandon(w) // gRPC may not know yet that the connection is gone
	}
	return err
}

// reach connects within a time, if there is no connection that stands.
func (l *line) reach(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	w, err := l.connected(ctx)
	if err != nil {
		return &transportError{message: fmt.Sprintf("connect to %s: %v", l.to, err), kind: armor.ErrUnavailable, unsent: true}
	}
	l.release(w)
	return nil
}

// unavailable is ErrUnavailable, together with the end of ctx if that was why.
func unavailable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", armor.ErrUnavailable, err)
	}
	return armor.ErrUnavailable
}

func (l *line) connected(ctx context.Context) (*strand, error) {
	if w, err := l.standing(); w != nil || err != nil {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.within)
	defer cancel()
	select {
	case l.dialing <- struct{}{}:
		defer func() { <-l.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if w, err := l.standing(); w != nil || err != nil {
		return w, err
	}
	conn, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return l.adopt(conn)
}

// standing takes the current connection if it still stands.
func (l *line) standing() (*strand, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if l.current == nil || l.current.conn.GetState() != connectivity.Ready {
		return nil, nil
	}
	l.current.calls++
	return l.current, nil
}

func (l *line) adopt(conn *grpc.ClientConn) (*strand, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		conn.Close()
		return nil, net.ErrClosed
	}
	old := l.retireLocked()
	l.current = &strand{conn: conn, calls: 1}
	w := l.current
	l.mu.Unlock()
	closeConn(old)
	return w, nil
}

// retireLocked takes the current connection out of use and returns it if it is to be
// closed now.
func (l *line) retireLocked() *grpc.ClientConn {
	w := l.current
	l.current = nil
	if w == nil {
		return nil
	}
	w.retired = true
	if w.calls > 0 {
		return nil
	}
	return w.conn
}

func (l *line) release(w *strand) {
	l.mu.Lock()
	w.calls--
	over := w.retired && w.calls == 0
	l.mu.Unlock()
	if over {
		closeConn(w.conn)
	}
}

// abandon takes a connection out of use: the next call makes another. Calls in
// progress on it go on.
func (l *line) abandon(w *strand) {
	l.mu.Lock()
	var old *grpc.ClientConn
	if l.current == w {
		old = l.retireLocked()
	}
	l.mu.Unlock()
	closeConn(old)
}

// hangUp abandons the current connection.
func (l *line) hangUp() {
	l.mu.Lock()
	w := l.current
	l.mu.Unlock()
	l.abandon(w)
}

// close ends the line and every call on its connection.
func (l *line) close() {
	l.mu.Lock()
	w := l.current
	l.current, l.closed = nil, true
	l.mu.Unlock()
	if w != nil {
		closeConn(w.conn)
	}
}

// closeConn closes a connection, which may be closed already: that is not an error.
func closeConn(conn *grpc.ClientConn) {
	if conn != nil {
		conn.Close()
	}
}

// open dials, and waits until gRPC has greeted the other end.
func (l *line) open(ctx context.Context) (*grpc.ClientConn, error) {
	raw, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///armor",
		grpc.WithContextDialer(once(raw)),
		grpc.WithTransportCredentials(l.credentials),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		raw.Close()
		return nil, err
	}
	if err := awaitReady(ctx, conn); err != nil {
		conn.Close()
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// once hands one connection to gRPC, and no second.
func once(raw net.Conn) func(context.Context, string) (net.Conn, error) {
	given := make(chan net.Conn, 1)
	given <- raw
	return func(context.Context, string) (net.Conn, error) {
		select {
		case conn := <-given:
			return conn, nil
		default:
			return nil, net.ErrClosed
		}
	}
}

var errNoGreeting = errors.New("the other end closed the connection or speaks no gRPC")

func awaitReady(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for {
		switch state := conn.GetState(); state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return errNoGreeting
		default:
			if !conn.WaitForStateChange(ctx, state) {
				return fmt.Errorf("wait for a greeting: %w", ctx.Err())
			}
		}
	}
}
