package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor"
)

// dialPatience bounds how long the balancer waits for one node before it tries the
// next. The nodes are on this machine.
const dialPatience = 2 * time.Second

// balancer is `armord dev`'s stand-in for a TCP load balancer: it spreads connections
// over the nodes in turn and copies bytes, whatever they are. A node that takes no
// connection is passed over.
type balancer struct {
	listener net.Listener
	targets  []*target
	log      *slog.Logger
	turn     atomic.Uint64
}

// target is one node's client port.
type target struct {
	address string
	// down is set while the node's process is known to have ended.
	down atomic.Bool
}

// Run serves until ctx ends; then it closes the listener and every connection, and
// returns once they are gone. It returns early when the listener breaks.
func (b *balancer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { b.listener.Close() })()
	for {
		c, err := b.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !isTransient(err) {
				return fmt.Errorf("accept on %s: %w", b.listener.Addr(), err)
			}
			b.log.Warn("accept failed", armor.KeyErr, err)
			pause(ctx, 50*time.Millisecond)
			continue
		}
		connections.Go(func() { b.serve(ctx, c.(*net.TCPConn)) })
	}
}

// isTransient reports whether accepting may work again: the client was gone already,
// or file descriptors have run out for now.
func isTransient(err error) bool {
	for _, e := range []error{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serve joins a client to the next node that answers. Without any, the client is
// reset: it would not understand anything we could say.
func (b *balancer) serve(ctx context.Context, client *net.TCPConn) {
	node, err := b.dial(ctx)
	if err != nil {
		b.log.Warn("no node takes the connection", armor.KeySource, client.RemoteAddr().String(), armor.KeyErr, err)
		reset(client)
		return
	}
	join(ctx, client, node)
}

// dial tries each node once, beginning with the next in turn; nodes known to be down
// come last, in case the knowledge is old.
func (b *balancer) dial(ctx context.Context) (*net.TCPConn, error) {
	start := b.turn.Add(1)
	var failures []error
	for _, wantDown := range []bool{false, true} {
		for i := range b.targets {
			t := b.targets[(start+uint64(i))%uint64(len(b.targets))]
			if t.down.Load() != wantDown {
				continue
			}
			dialer := net.Dialer{Timeout: dialPatience}
			c, err := dialer.DialContext(ctx, "tcp", t.address)
			if err == nil {
				return c.(*net.TCPConn), nil
			}
			failures = append(failures, err)
		}
	}
	return nil, errors.Join(failures...)
}

// join copies in both directions until both have ended, or one has failed, or ctx
// has ended. An end of one direction is passed on as one; a failure resets both, so
// that neither side takes a cut stream for a complete one.
func join(ctx context.Context, a, b *net.TCPConn) {
	var broken sync.Once
	abort := func() { broken.Do(func() { reset(a); reset(b) }) }
	stop := context.AfterFunc(ctx, abort)
	defer stop()
	var directions sync.WaitGroup
	for _, d := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		directions.Go(func() {
			if err := pump(d[0], d[1]); err != nil {
				abort()
			}
		})
	}
	directions.Wait()
	a.Close()
	b.Close()
}

// pump copies from one to the other until its end and passes the end on.
func pump(from, to *net.TCPConn) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.CloseWrite()
}

// reset closes the connection with a RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
