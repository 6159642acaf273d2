package tlsedge

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/armordb/armordb/armor"
)

// Request codes and bounds of PostgreSQL's protocol ("Message Formats": SSLRequest,
// GSSENCRequest, CancelRequest, StartupMessage).
const (
	codeCancel = 80877102
	codeTLS    = 80877103
	codeGSS    = 80877104

	tlsHandshake = 0x16 // first byte of a TLS record of type handshake
	maxStartup   = 10_000
)

// intent is what a client turns out to want with its first bytes.
type intent int

const (
	wantNothing intent = iota // it left
	wantTLS
	wantCancel
	wantPlaintext
	wantGarbage
)

// opening is the result of a negotiation.
type opening struct {
	intent intent
	conn   net.Conn // what TLS runs on
	direct bool     // TLS without an SSLRequest
	key    armor.CancelKey
}

// negotiate reads a client's first bytes and answers them, up to the point where
// TLS begins or it is clear that it will not. It reads no byte more than a request
// has, so that whatever a man in the middle stuffs behind an SSLRequest reaches the
// TLS handshake, and fails it, and never anyone who would take it for the client's
// (CVE-2021-23214). spoke is called when the first byte has arrived. The
// connection's deadline bounds the time.
func negotiate(conn net.Conn, spoke func()) (opening, error) {
	for asked := false; ; asked = true {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:1]); err != nil {
			return opening{}, err
		}
		spoke()
		if head[0] == tlsHandshake && !asked {
			return opening{intent: wantTLS, direct: true, conn: &replay{Conn: conn, first: head[0], pending: true}}, nil
		}
		if _, err := io.ReadFull(conn, head[1:]); err != nil {
			return opening{intent: wantGarbage}, err
		}
		length, code := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
		if code == codeGSS && length == 8 && !asked {
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return opening{}, err
			}
			continue
		}
		return request(conn, length, code)
	}
}

func request(conn net.Conn, length, code uint32) (opening, error) {
	switch {
	case code == codeTLS && length == 8:
		_, err := conn.Write([]byte{'S'})
		return opening{intent: wantTLS, conn: conn}, err
	case code == codeCancel && length <= maxStartup && armor.IsCancelLength(int(length)-8):
		content := make([]byte, length-8)
		_, err := io.ReadFull(conn, content)
		key, _ := armor.ParseCancelKey(content)
		return opening{intent: wantCancel, key: key}, err
	case code>>16 == 3 && length > 8 && length <= maxStartup:
		// Read to its end: closing with bytes unread resets the connection, and then
		// the client would not see our answer.
		_, err := io.CopyN(io.Discard, conn, int64(length)-8)
		return opening{intent: wantPlaintext}, err
	}
	return opening{intent: wantGarbage}, nil
}

// replay gives back the one byte that was read to recognise direct TLS.
type replay struct {
	net.Conn
	first   byte
	pending bool
}

func (r *replay) Read(p []byte) (int, error) {
	if r.pending && len(p) > 0 {
		p[0], r.pending = r.first, false
		return 1, nil
	}
	return r.Conn.Read(p)
}

// SyscallConn is for Config.Wrap; the byte held back has long been read when TLS is
// established.
func (r *replay) SyscallConn() (syscall.RawConn, error) {
	c, ok := r.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.ENOTSUP
	}
	return c.SyscallConn()
}

// CloseWrite passes on a half-close.
func (r *replay) CloseWrite() error { return closeWrite(r.Conn) }

func closeWrite(conn net.Conn) error {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return syscall.ENOTSUP
	}
	return c.CloseWrite()
}

// failure names why a connection got no further, for metrics.
func failure(o opening, err error) Outcome {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return OutcomeTimeout
	case o.intent == wantNothing:
		return OutcomeProbe
	}
	return OutcomeGarbage
}

// fatal encodes an ErrorResponse of severity FATAL.
func fatal(sqlstate, message, hint string) []byte {
	body := []byte{}
	for _, f := range []struct {
		code byte
		text string
	}{{'S', "FATAL"}, {'V', "FATAL"}, {'C', sqlstate}, {'M', message}, {'H', hint}} {
		body = append(append(append(body, f.code), f.text...), 0)
	}
	body = append(body, 0)
	out := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4))
	return append(out, body...)
}
