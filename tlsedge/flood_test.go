package tlsedge

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/door"
)

// flood keeps connections of one byte open at an address from four sources, and opens a
// new one for each that is closed, until stop is called.
func flood(t *testing.T, address string, each int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running, opened sync.WaitGroup
	for source := range 4 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(source+1))}}
		for range each {
			opened.Add(1)
			running.Go(func() { hold(ctx, d, address, sync.OnceFunc(opened.Done)) })
		}
	}
	opened.Wait()
	return func() {
		cancel()
		running.Wait()
	}
}

func hold(ctx context.Context, d net.Dialer, address string, opened func()) {
	for ctx.Err() == nil {
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			opened()
			continue
		}
		closed := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = conn.Write([]byte{tlsHandshake})
		opened()
		_, _ = conn.Read(make([]byte, 1)) // until it is closed
		closed()
		conn.Close()
	}
}

// underFlood returns how many of some clients of a fifth address get in meanwhile.
func underFlood(t *testing.T, mistakes door.Mistakes) (in int) {
	t.Helper()
	r := newRig(t, func(c *Config) {
		c.MaxHandshakes, c.MaxHandshakesPerSource = 64, 32
		c.FirstByte, c.HandshakeTimeout = time.Hour, time.Hour
		c.mistakes = mistakes
	})
	cert := r.ca.Leaf(t, appID)
	stop := flood(t, r.addr, 40)
	defer stop()
	for n := range 5 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(n+1))}}
		conn, err := d.Dial("tcp", r.addr)
		if err != nil {
			continue // sent away before it could say anything
		}
		_ = conn.SetDeadline(time.Now().Add(patient))
		if c, err := upgrade(conn, r.clientConfig(&cert)); err == nil {
			if _, err = fmt.Fprintf(c, "%s", startup("orders", "checkout_rw")); err == nil {
				if answer, _ := readSome(c); answer == "ok" {
					in++
				}
			}
		}
		conn.Close()
	}
	return in
}

func readSome(conn net.Conn) (string, error) {
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// TestClientsGetInUnderAFlood of connections without a certificate, of which more are
// open than there may be.
func TestClientsGetInUnderAFlood(t *testing.T) {
	if in := underFlood(t, door.Mistakes{}); in != 5 {
		t.Errorf("%d of 5 clients get in", in)
	}
	if in := underFlood(t, door.Mistakes{NoEviction: true}); in == 5 {
		t.Error("the mutant without eviction is not noticed")
	}
}

// TestProvenClientsAreNotCountedAtTheDoor, and are bounded apart.
func TestProvenClientsAreNotCountedAtTheDoor(t *testing.T) {
	o := &outcomes{all: map[Outcome]int{}}
	r := newRig(t, func(c *Config) {
		c.MaxHandshakes, c.MaxHandshakesPerSource, c.MaxHandshakesKnown, c.MaxSessions = 1, 1, 1, 3
		c.Hooks.Handshake = o.hook
	})
	cert := r.ca.Leaf(t, appID)
	for range 3 {
		r.live(t, cert)
	}
	if open := r.edge.Unproven().Open; open != 0 || r.edge.Count() != 3 {
		t.Fatalf("%d places held by %d sessions", open, r.edge.Count())
	}
	if conn, err := net.Dial("tcp", r.addr); err == nil { // it may be reset at once
		defer conn.Close()
		if _, err := upgrade(conn, r.clientConfig(&cert)); err == nil {
			t.Fatal("a fourth session of three")
		}
	}
	eventually(t, "it is told", func() bool { return o.count(OutcomeLimited) == 1 })
}
