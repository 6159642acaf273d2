package pooler_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
	"github.com/armordb/armordb/pooler/pgwire"
)

// middle is somebody between a client and us who ends the client's TLS with a
// certificate of his own, which a client that asks for no verification takes.
type middle struct {
	h    *house
	to   string // port
	own  *pgtest.Certificate
	edit func([]byte) []byte // what he makes of our offer
}

// port is where his clients connect to.
func (m middle) port() string {
	m.h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	m.h.must(err)
	m.h.t.Cleanup(func() { l.Close() })
	m.h.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.h.serving.Go(func() { m.relay(conn) })
		}
	})
	return portOf(m.h.t, l.Addr().String())
}

func (m middle) relay(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", "127.0.0.1:"+m.to)
	if err != nil {
		return
	}
	defer server.Close()
	request := make([]byte, 8)
	if _, err := io.ReadFull(client, request); err != nil {
		return
	}
	if _, err := server.Write(request); err != nil {
		return
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(server, answer); err != nil {
		return
	}
	if _, err := client.Write(answer); err != nil {
		return
	}
	left := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{m.own.TLS}})
	right := tls.Client(server, &tls.Config{RootCAs: m.h.tls.Roots, ServerName: "localhost"})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(right, left)
		_ = right.CloseWrite()
	}()
	m.answer(left, right)
	left.Close()
	<-done
}

// answer passes on what we say, our offer as he has edited it.
func (m middle) answer(left io.Writer, right io.Reader) {
	offer, err := pgtest.ReadMessage(right)
	if err != nil {
		return
	}
	b := append([]byte{offer.Type, 0, 0, 0, 0}, offer.Body...)
	binary.BigEndian.PutUint32(b[1:], uint32(len(offer.Body)+4))
	if _, err := left.Write(m.edit(b)); err != nil {
		return
	}
	_, _ = io.Copy(left, right)
}

func TestManInTheMiddleIsFoundByChannelBinding(t *testing.T) {
	h := newHouse(t, withPasswords(t), withTLSClients(t))
	own := newCertificate(t)
	to := h.sslFront()
	same := func(b []byte) []byte { return b }
	withoutBinding := func(b []byte) []byte {
		if !bytes.Contains(b, []byte("-PLUS")) {
			t.Errorf("the offer was %q", b)
		}
		return pgwire.AppendAuthSASL(nil, "SCRAM-SHA-256")
	}
	for _, c := range []struct {
		name, binding, says string
		edit                func([]byte) []byte
	}{
		{"who passes all on", "prefer", "SCRAM channel binding check failed", same},
		{"who passes all on to a client that insists", "require", "SCRAM channel binding check failed", same},
		{"who takes the binding out of our offer", "prefer", "SCRAM channel binding negotiation error", withoutBinding},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := middle{h, to, own, c.edit}.port()
			for _, name := range []string{"psql", "pgx"} {
				_, err := realClients[name](t.Context(), login{port, pgtest.Role, clientPassword, "require", c.binding})
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v", name, err)
				}
				g := h.last()
				h.awaitClosed("the session ends", g.ended)
				if g.wasRefused(armor.ReasonChannelBinding) != 1 || len(g.proved) != 0 {
					t.Errorf("%s: refused %v, proved %v", name, g.refused, g.proved)
				}
			}
		})
	}
	// A client that asks for no binding is not protected by the password: that is why
	// clients verify certificates.
	port := middle{h, to, own, same}.port()
	if _, err := realClients["pgx"](t.Context(), login{port, pgtest.Role, clientPassword, "require", "disable"}); err != nil {
		t.Errorf("without binding: %v", err)
	}
}
