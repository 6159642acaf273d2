package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/armordb/armordb/pooler/pgwire"
)

// Cancel sends PostgreSQL a cancel request for what runs on the connection, over TLS when
// that uses it, and waits for the end of the request's own: by then the signal is sent. It
// may be called while somebody else has the connection.
func (c *Conn) Cancel(ctx context.Context) error {
	conn, err := c.home.cfg.Dial(ctx, c.to.network, c.to.address)
	if err != nil {
		return fmt.Errorf("dial for a cancel request: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	defer stop()
	var to net.Conn = conn
	if c.tls != nil {
		if to, err = startTLS(ctx, conn, c.tls); err != nil {
			return fmt.Errorf("TLS for a cancel request: %w", err)
		}
	}
	if _, err := to.Write(pgwire.AppendCancelRequest(nil, c.pid, c.secret)); err != nil {
		return fmt.Errorf("write a cancel request: %w", err)
	}
	var b [1]byte
	if _, err := to.Read(b[:]); !isEnd(err) {
		return fmt.Errorf("wait for a cancel request's end: %w", err)
	}
	return nil
}

// sslRequest asks PostgreSQL for TLS (PostgreSQL, "SSLRequest").
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

var errNoTLS = errors.New("the server does not speak TLS")

// startTLS turns a fresh connection to PostgreSQL into TLS.
func startTLS(ctx context.Context, conn net.Conn, cfg *tls.Config) (net.Conn, error) {
	if _, err := conn.Write(sslRequest); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errNoTLS
	}
	secured := tls.Client(conn, cfg)
	return secured, secured.HandshakeContext(ctx)
}
