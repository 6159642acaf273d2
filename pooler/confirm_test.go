package pooler_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestCutIsConfirmedAtOnce: with the client not reading and PostgreSQL not reading,
// the confirmation does not wait for either.
func TestCutIsConfirmedAtOnce(t *testing.T) {
	fake := &pgtest.Fake{Buffer: 1024}
	fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		switch string(m.Body) {
		case "flood\x00":
			row := pgtest.Encode('D', int16(1), int32(4), []byte("abcd"))
			for len(b.Canceled) == 0 {
				if _, err := b.Write(row); err != nil {
					return false
				}
			}
			return false
		case "deaf\x00":
			<-b.Canceled
			return false
		}
		fake.Simple(b, m)
		return true
	}
	for _, query := range []string{"flood", "deaf"} {
		inBubble(t, fake, func(b *bubble) {
			c := b.dial(1024)
			b.must(c.Login("user", pgtest.Role, "database", "orders"))
			b.must(c.Send(pgtest.Encode('Q', query)))
			if query == "deaf" {
				go func() { _ = c.Send(bytes.Repeat(pgtest.Encode('Q', "more"), 100000)) }() // as much as is taken
			}
			synctest.Wait() // everything is blocked
			began := time.Now()
			g := b.last()
			g.cut(revoked)
			<-g.confirmed
			if took := time.Since(began); took != 0 {
				t.Errorf("%s: confirmed after %s", query, took)
			}
			<-g.ended
		})
	}
}

// confirmedWatch is one side of a session; it reports what is written to it once the
// session's cut was confirmed, but for the pooler's own last words.
type confirmedWatch struct {
	net.Conn
	b    *bubble
	last string // how what may still be written begins: any of these bytes
}

func (w *confirmedWatch) Write(p []byte) (int, error) {
	if w.b.isConfirmed() && len(p) > 0 && !strings.Contains(w.last, string(rune(p[0]))) {
		w.b.t.Errorf("%q was written after the cut was confirmed", p[:min(len(p), 20)])
	}
	return w.Conn.Write(p)
}

// isConfirmed reports whether the only session's cut was.
func (b *bubble) isConfirmed() bool {
	for _, g := range b.all() {
		select {
		case <-g.confirmed:
			return true
		default:
		}
	}
	return false
}

// NetConn is what a reset is done to.
func (w *confirmedWatch) NetConn() net.Conn { return w.Conn }

func TestNothingIsForwardedOnceTheCutIsConfirmed(t *testing.T) {
	fake := &pgtest.Fake{Buffer: 512}
	for i := range 200 {
		var b *bubble
		watched := func(_ *house, c *pooler.Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := fake.Dial(ctx, network, address)
				return &confirmedWatch{conn, b, "X\x00"}, err
			}
		}
		synctest.Test(t, func(t *testing.T) {
			b = newBubble(t, fake, watched)
			defer b.close()
			ours, theirs := pgtest.Pipe(512)
			b.start(&confirmedWatch{theirs, b, "E"})
			c := &pgtest.Client{Conn: ours}
			b.must(c.Login("user", pgtest.Role, "database", "orders"))
			var talking sync.WaitGroup
			talking.Go(func() { // as fast as it can, both ways
				for !b.isConfirmed() && c.Send(pgtest.Encode('Q', "SELECT more")) == nil {
				}
			})
			talking.Go(func() { _, _ = io.Copy(io.Discard, c) })
			for range i { // a different moment each time
				runtime.Gosched()
			}
			b.last().cut(revoked)
			<-b.last().ended
			c.Close()
			talking.Wait()
		})
	}
}

// slowFake answers "slow" only when gate is opened.
func slowFake(gate <-chan struct{}) *pgtest.Fake {
	fake := &pgtest.Fake{}
	fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		if string(m.Body) == "slow\x00" {
			<-gate
		}
		fake.Simple(b, m)
		return true
	}
	return fake
}

// TestServerBytesAreNotForwardedByAStaleNode: what PostgreSQL answers after the node
// has found itself stale does not reach the client.
func TestServerBytesAreNotForwardedByAStaleNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := newBubble(t, slowFake(gate))
		defer b.close()
		c := b.login(pgtest.Role)
		b.must(c.Send(pgtest.Encode('Q', "slow")))
		synctest.Wait()
		b.last().stale.Store(true)
		close(gate)
		m, err := c.Receive()
		b.must(err)
		if m.Type != 'E' || m.Fields()['C'] != "57P03" {
			t.Errorf("the client got %v", m)
		}
	})
}

// TestCutIsNotConfirmedWhileAByteIsOnItsWay: the server's goroutine has been told that
// the session lives, and has not written yet.
func TestCutIsNotConfirmedWhileAByteIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, forward := make(chan struct{}), make(chan struct{})
		var armed atomic.Bool
		b := newBubble(t, slowFake(answer))
		defer b.close()
		b.atLive = func() {
			if armed.Swap(false) {
				<-forward
			}
		}
		c := b.login(pgtest.Role)
		b.must(c.Send(pgtest.Encode('Q', "slow")))
		synctest.Wait()
		armed.Store(true)
		close(answer)
		synctest.Wait() // the answer waits to be forwarded
		b.last().cut(revoked)
		synctest.Wait()
		if b.isConfirmed() {
			t.Error("the cut was confirmed")
		}
		close(forward)
		<-b.last().confirmed
	})
}
