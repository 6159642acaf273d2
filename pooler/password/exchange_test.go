package password

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/armordb/armordb/pooler/pgwire"
)

// The example of RFC 7677 §3.
const (
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcClientFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcServerFirst = "r=rOprNGfwEbeRWgbNEkqO" + rfcServerNonce + ",s=" + rfcSalt + ",i=4096"
	rfcClientFinal = "c=biws,r=rOprNGfwEbeRWgbNEkqO" + rfcServerNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func TestExampleOfRFC7677(t *testing.T) {
	v, err := Parse(verifierText(t, "pencil", rfcSalt, 4096))
	if err != nil {
		t.Fatal(err)
	}
	server, err := newScramServer(v)
	if err != nil {
		t.Fatal(err)
	}
	conversation := server.WithNonceGenerator(func() string { return rfcServerNonce }).NewConversation()
	if got, err := conversation.Step(rfcClientFirst); got != rfcServerFirst || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := conversation.Step(rfcClientFinal); got != rfcServerFinal || err != nil || !conversation.Valid() {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzExchange: whatever a client sends, nothing panics, nothing beyond its two
// messages is read, and without the password nothing is proved.
func FuzzExchange(f *testing.F) {
	message := func(body string) []byte {
		return append([]byte{'p', 0, 0, 0, byte(len(body) + 4)}, body...)
	}
	first := message("SCRAM-SHA-256\x00\x00\x00\x00" + string(rune(len(rfcClientFirst))) + rfcClientFirst)
	f.Add(first, true)
	f.Add(append(first, message(rfcClientFinal)...), true)
	f.Add(message("SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x21p=tls-server-end-point,,n=,r=abcde"), true)
	f.Add([]byte("\x00\x00\x00\x08\x00\x03\x00\x00"), false)
	v, err := Parse(verifierText(f, "pencil", rfcSalt, 4096))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte, bound bool) {
		conn := &script{Reader: bytes.NewReader(sent)}
		x := &exchange{client: Wire{conn}, found: Found{v, true}, role: "app"}
		if bound {
			x.binding = make([]byte, 32)
		}
		if err := x.run(); err == nil {
			t.Fatalf("proved by %q", sent)
		}
		if read := len(sent) - conn.Len(); read > 2*(pgwire.HeaderSize+pgwire.MaxSASL) {
			t.Fatalf("read %d bytes", read)
		}
	})
}

// script is a connection that a client's bytes come from.
type script struct {
	*bytes.Reader
	net.Conn
}

func (s *script) Read(b []byte) (int, error)    { return s.Reader.Read(b) }
func (s *script) Write(b []byte) (int, error)   { return io.Discard.Write(b) }
func (s *script) SetDeadline(_ time.Time) error { return nil }
