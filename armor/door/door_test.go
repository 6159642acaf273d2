package door

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// visitor is a connection that notes its end.
type visitor struct {
	net.Conn
	closed bool
}

func (v *visitor) Close() error { v.closed = true; return nil }

var a, b, c = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")

func (d *Door) visit(source netip.Addr) (*Place, *visitor) {
	v := &visitor{}
	return d.Enter(source, v), v
}

func TestOldestOfTheLargestSourceGoes(t *testing.T) {
	d := New(Config{Unproven: 4, PerSource: 3})
	_, first := d.visit(a)
	d.visit(a)
	_, other := d.visit(b)
	d.visit(b)
	if p, _ := d.visit(c); p == nil || !first.closed || other.closed {
		t.Fatal("of two equal sources that of the oldest gives way")
	}
	_, c2 := d.visit(c) // now b has two
	if !other.closed || c2.closed {
		t.Fatal("the largest source gives way")
	}
	if got := d.Counts(); got != (Counts{Open: 4, Evicted: 2}) {
		t.Fatalf("%+v", got)
	}
}

func TestOneSourceTakesNoMoreThanItsPlaces(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		d := New(Config{Unproven: 10, PerSource: 3, Mistakes: Mistakes{NoSourceBound: wrong}})
		for range 6 {
			d.visit(a)
		}
		if kept := d.Counts().Open == 3; kept == wrong {
			t.Fatalf("mistake %v: %+v", wrong, d.Counts())
		}
	}
}

func TestNewcomerAlwaysGetsAPlace(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		d := New(Config{Unproven: 2, PerSource: 2, Mistakes: Mistakes{NoEviction: wrong}})
		d.visit(a)
		d.visit(a)
		p, v := d.visit(b)
		if (p != nil) == wrong || v.closed != wrong || d.Counts().Refused != map[bool]uint64{true: 1}[wrong] {
			t.Fatalf("mistake %v: %+v", wrong, d.Counts())
		}
	}
}

func TestKnownSourcesHavePlacesApart(t *testing.T) {
	d := New(Config{Unproven: 2, PerSource: 2, Reserve: 1, Member: func(m netip.Addr) bool { return m == b }})
	p, _ := d.visit(a)
	for range 2 {
		if !p.Proven() {
			t.Fatal("it is proven, however often that is said")
		}
	}
	p.Leave()
	_, known := d.visit(a)
	for n := range 10 {
		d.visit(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}))
	}
	if known.closed {
		t.Fatal("strangers push a source out that has proved somebody")
	}
	if _, member := d.visit(b); member.closed || !known.closed || d.Counts().Open != 3 {
		t.Fatal("a member has no place in the reserve")
	}
}

func TestMemoryOfTheProvenIsBounded(t *testing.T) {
	var m memory
	for n := range 3 * memoryMost {
		m.add(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	if kept := len(m.recent) + len(m.former); kept > 2*memoryMost || m.has(netip.AddrFrom4([4]byte{10, 0, 0, 0})) {
		t.Fatalf("%d kept", kept)
	}
}

func TestProvenConnectionsHoldNoPlace(t *testing.T) {
	d := New(Config{Unproven: 1, PerSource: 1})
	first, kept := d.visit(a)
	first.Proven()
	second, evicted := d.visit(a)
	d.visit(a)
	if kept.closed || !evicted.closed || second.Proven() || second.Fate() != Evicted {
		t.Fatal("the unproven one goes, and cannot be proved afterwards")
	}
	first.Leave()
	if first.Fate() != Proven || d.Counts().Open != 1 {
		t.Fatalf("%+v", d.Counts())
	}
}

func TestPlaceMovesToTheClientsSource(t *testing.T) {
	d := New(Config{Unproven: 10, PerSource: 1})
	first, gone := d.visit(netip.Addr{})
	second, _ := d.visit(netip.Addr{}) // no bound of its own
	if !first.Move(a) || !second.Move(a) || !gone.closed || first.Move(b) {
		t.Fatal("the second of one client makes the first go")
	}
}

func TestSilentConnectionsAreSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Unproven: 10, PerSource: 10, FirstByte: time.Second})
		silent, gone := d.visit(a)
		near, far := net.Pipe()
		defer far.Close()
		guarded := d.Enter(b, near).Guard()
		go far.Write([]byte("x"))
		if _, err := guarded.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !gone.closed || silent.Fate() != Silent || silent.Proven() {
			t.Fatal("it may go on saying nothing")
		}
		if got := d.Counts(); got != (Counts{Open: 1, Refused: 1}) {
			t.Fatalf("%+v", got)
		}
		guarded.Close()
		if d.Counts().Open != 0 {
			t.Fatal("closing does not give the place back")
		}
	})
}

func TestIPv6NetworkIsOneSource(t *testing.T) {
	d := New(Config{Unproven: 10, PerSource: 1})
	_, first := d.visit(netip.MustParseAddr("2001:db8::1"))
	_, elsewhere := d.visit(netip.MustParseAddr("2001:db8:0:1::1"))
	d.visit(netip.MustParseAddr("2001:db8::ffff"))
	if !first.closed || elsewhere.closed {
		t.Fatal("a /64 is one source")
	}
}

// TestListenerGoesOnAcceptingWhenFull: whoever comes last gets in.
func TestListenerGoesOnAcceptingWhenFull(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := New(Config{Unproven: 3, PerSource: 3})
	l := d.Listener(inner)
	accepted := make(chan error)
	go func() {
		for n := range 5 {
			conn, err := l.Accept()
			if err == nil {
				_, err = fmt.Fprint(conn, n)
			}
			accepted <- err
		}
	}()
	var first net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if first == nil {
			first = conn
		}
		if err := <-accepted; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadAll(first); err == nil || errors.Is(err, net.ErrClosed) {
		t.Fatalf("the first is kept: %v", err)
	}
	if got := d.Counts(); got != (Counts{Open: 3, Evicted: 2}) {
		t.Fatalf("%+v", got)
	}
	inner.Close()
	if _, err := l.Accept(); err == nil {
		t.Fatal("accepts")
	}
}
