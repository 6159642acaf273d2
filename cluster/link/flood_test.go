package link

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/door"
	"github.com/armordb/armordb/armor/pki"
)

// flood keeps connections open at a link from four sources, each as open makes it, and a
// new one for each that is closed, until stop is called.
func flood(t *testing.T, l *Link, each int, open func(ctx context.Context, d net.Dialer, address string) net.Conn) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running, opened sync.WaitGroup
	for source := range 4 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(source+1))}}
		for range each {
			opened.Add(1)
			first := sync.OnceFunc(opened.Done)
			running.Go(func() {
				for ctx.Err() == nil {
					conn := open(ctx, d, l.Addr().String())
					first()
					if conn == nil {
						continue
					}
					closed := context.AfterFunc(ctx, func() { conn.Close() })
					_, _ = conn.Read(make([]byte, 1))
					closed()
					conn.Close()
				}
			})
		}
	}
	opened.Wait()
	return func() {
		cancel()
		running.Wait()
	}
}

// saysNothing, oneByte and asJoiner are the three kinds of strangers.
func saysNothing(ctx context.Context, d net.Dialer, address string) net.Conn {
	conn, _ := d.DialContext(ctx, "tcp", address)
	return conn
}

func oneByte(ctx context.Context, d net.Dialer, address string) net.Conn {
	conn := saysNothing(ctx, d, address)
	if conn != nil {
		_, _ = conn.Write([]byte{0x16})
	}
	return conn
}

func asJoiner(ctx context.Context, d net.Dialer, address string) net.Conn {
	secured := tls.Dialer{NetDialer: &d, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Join}}}
	conn, err := secured.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	return conn
}

// TestWhoHasACertificateGetsInUnderAFlood of connections that have none: operators, nodes
// and, among strangers, one who wants to join.
func TestWhoHasACertificateGetsInUnderAFlood(t *testing.T) {
	for name, kind := range map[string]func(context.Context, net.Dialer, string) net.Conn{
		"silent": saysNothing, "one byte": oneByte, "joiners": asJoiner,
	} {
		t.Run(name, func(t *testing.T) {
			if in := underFlood(t, kind, mistakes{}); in != 6 {
				t.Errorf("%d of 6 get in", in)
			}
		})
	}
	if in := underFlood(t, oneByte, mistakes{door: door.Mistakes{NoEviction: true}}); in == 6 {
		t.Error("the mutant without eviction is not noticed")
	}
}

// underFlood returns how many of two operators, two nodes and two joiners get in.
func underFlood(t *testing.T, kind func(context.Context, net.Dialer, string) net.Conn, wrong mistakes) (in int) {
	e := newEnds(t)
	server := e.link(t, "d", func(c *Config) {
		c.MaxHandshakes, c.MaxHandshakesPerSource, c.mistakes = 32, 16, wrong
	})
	for _, alpn := range []string{API, Raft, Join} {
		hold(t, server, alpn)
	}
	defer flood(t, server, 20, kind)()
	operator, node := e.ca.issue(t, pki.OperatorIdentity("Acme", "ada"), false), e.ca.node(t, "x")
	for n := range 2 {
		for m, c := range []struct {
			certificate *tls.Certificate
			alpn        string
		}{{operator, API}, {node, API}, {nil, Join}} {
			if entersFrom(t, server, net.IPv4(127, 0, 3, byte(1+3*n+m)), c.certificate, c.alpn) {
				in++
			}
		}
	}
	return in
}

// hold accepts connections, greets each and keeps it until the test ends.
func hold(t *testing.T, l *Link, alpn string) {
	listener := l.Route(alpn)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			_, _ = conn.Write([]byte("in"))
		}
	}()
}

func entersFrom(t *testing.T, l *Link, source net.IP, certificate *tls.Certificate, alpn string) bool {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{*certificate}
	}
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, Timeout: patient}, Config: cfg}
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patient))
	greeting := make([]byte, 2)
	n, err := conn.Read(greeting)
	return err == nil && string(greeting[:n]) == "in"
}

// TestMembersHavePlacesOfTheirOwn at the door, by the addresses that they are agreed to have.
func TestMembersHavePlacesOfTheirOwn(t *testing.T) {
	e := newEnds(t)
	at := netip.MustParseAddr("127.0.0.1")
	if !e.b.isMember(at) || e.b.isMember(at.Next()) {
		t.Errorf("%s", at)
	}
}
