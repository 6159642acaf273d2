package tlsedge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// script is a connection whose client has said everything already.
type script struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }

func said(parts ...[]byte) *script { return &script{in: bytes.NewReader(bytes.Join(parts, nil))} }

func cancelRequest(pid, secret uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancel)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, pid), secret)
}

func TestFirstBytesSayWhatAClientWants(t *testing.T) {
	hello := []byte{tlsHandshake, 3, 1}
	longKey := armor.CancelKey{PID: 7, Long: armor.LongSecret{31: 9}}
	for _, c := range []struct {
		name   string
		bytes  *script
		intent intent
		answer string
		unread int // what is left for whoever comes next
	}{
		{"TLS asked for", said(eight(codeTLS), hello), wantTLS, "S", len(hello)},
		{"GSS, then TLS", said(eight(codeGSS), eight(codeTLS)), wantTLS, "NS", 0},
		{"GSS twice", said(eight(codeGSS), eight(codeGSS)), wantGarbage, "N", 0},
		{"direct TLS", said(hello), wantTLS, "", len(hello) - 1},
		{"TLS after GSS without asking", said(eight(codeGSS), hello, make([]byte, 5)), wantGarbage, "N", 0},
		{"cancel", said(cancelRequest(7, 9)), wantCancel, "", 0},
		{"cancel of 3.2", said([]byte{0, 0, 0, 44}, eight(codeCancel)[4:], longKey.Append(nil)), wantCancel, "", 0},
		{"cancel with a key of 36 bytes", said([]byte{0, 0, 0, 48}, eight(codeCancel)[4:], make([]byte, 40)), wantGarbage, "", 40},
		{"cancel without a secret", said([]byte{0, 0, 0, 12}, eight(codeCancel)[4:], make([]byte, 4)), wantGarbage, "", 4},
		{"cancel shorter than its head", said([]byte{0, 0, 0, 4}, eight(codeCancel)[4:], make([]byte, 8)), wantGarbage, "", 8},
		{"huge cancel", said([]byte{0xff, 0xff, 0xff, 0xff}, eight(codeCancel)[4:]), wantGarbage, "", 0},
		{"plaintext", said(startup("orders", "app")), wantPlaintext, "", 0},
		{"huge startup packet", said([]byte{0, 1, 0, 0, 0, 3, 0, 0}), wantGarbage, "", 0},
		{"HTTP", said([]byte("GET / HTTP/1.1\r\n")), wantGarbage, "", 8},
	} {
		spoke := 0
		o, err := negotiate(c.bytes, func() { spoke++ })
		if err != nil || o.intent != c.intent || c.bytes.out.String() != c.answer || c.bytes.in.Len() != c.unread || spoke == 0 {
			t.Errorf("%s: %+v, %v; answered %q, %d bytes unread", c.name, o, err, c.bytes.out.String(), c.bytes.in.Len())
		}
		if c.intent == wantCancel && o.key != (armor.CancelKey{PID: 7, Secret: 9}) && o.key != longKey {
			t.Errorf("%s: key %+v", c.name, o.key)
		}
	}
	if o, err := negotiate(said(), func() { t.Error("it said nothing") }); err != io.EOF || o.intent != wantNothing {
		t.Errorf("nothing: %+v, %v", o, err)
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add(eight(codeTLS))
	f.Add(append(eight(codeGSS), cancelRequest(1, 2)...))
	f.Add(append(append([]byte{0, 0, 0, 44}, eight(codeCancel)[4:]...), make([]byte, 36)...))
	f.Add(startup("orders", "app"))
	f.Fuzz(func(t *testing.T, first []byte) {
		c := said(first)
		o, err := negotiate(c, func() {})
		if err == nil && o.intent == wantTLS && o.conn == nil {
			t.Fatal("TLS on nothing")
		}
		if c.out.Len() > 2 {
			t.Fatalf("answered %q", c.out.String())
		}
	})
}

// TestBytesStuffedBehindTheRequestReachNobody is CVE-2021-23214: what a man in the
// middle adds before the handshake must not be taken for the client's.
func TestBytesStuffedBehindTheRequestReachNobody(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	conn := r.dial(t)
	if _, err := conn.Write(append(eight(codeTLS), startup("orders", "checkout_rw")...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(conn, r.clientConfig(&cert)).Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	if r.edge.Count() != 0 {
		t.Fatal("somebody is being served")
	}
}

func TestPlaintextClientsAreToldToUseTLS(t *testing.T) {
	r := newRig(t)
	conn := r.dial(t)
	if _, err := conn.Write(startup("orders", "checkout_rw")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if f := parseFatal(answer); f['C'] != "28000" || !strings.Contains(f['H'], "sslmode=verify-full") {
		t.Fatalf("%q, %v", answer, err)
	}
}

func TestDirectTLSNeedsTheProtocolName(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	for _, c := range []struct {
		protocols []string
		served    bool
	}{{[]string{"postgresql"}, true}, {nil, false}, {[]string{"h2"}, false}} {
		cfg := r.clientConfig(&cert)
		cfg.NextProtos = c.protocols
		conn := tls.Client(r.dial(t), cfg)
		_, err := conn.Write(startup("orders", "checkout_rw"))
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 2))
		}
		if (err == nil) != c.served {
			t.Errorf("%q: %v", c.protocols, err)
		}
	}
}

func TestHandshakeThatTakesTooLongEnds(t *testing.T) {
	ended := make(chan Outcome, 1)
	r := newRig(t, func(c *Config) {
		c.HandshakeTimeout = 50 * time.Millisecond
		c.Hooks.Handshake = func(o Outcome, _ time.Duration) { ended <- o }
	})
	conn := r.dial(t)
	if _, err := conn.Write(eight(codeTLS)[:3]); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if o := <-ended; o != OutcomeTimeout {
		t.Fatalf("outcome %s", o)
	}
}
