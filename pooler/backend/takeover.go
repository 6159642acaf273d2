package backend

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// A connection is pgconn's until it has logged in, and ours from then on.

// dialed is a connection that pgconn cannot close before it has logged in: its place
// in the pool is taken until PostgreSQL has closed it, which only reading tells.
type dialed struct {
	net.Conn
	entry Entry // in the register
	kept  atomic.Bool
}

// Close closes the connection once it is ours.
func (d *dialed) Close() error {
	if d.kept.Load() {
		return d.Conn.Close()
	}
	return nil
}

func (d *dialed) isOpen() bool { return d != nil }

// exact reads what belongs to one message and never more, and nothing at all behind
// ReadyForQuery, so that nothing is left behind in the buffers of what parses them when
// we take the connection over.
type exact struct {
	io.Reader
	head [pgwire.HeaderSize]byte
	have int // bytes of head that were read
	sent int // bytes of head that were passed on
	body int // bytes of the body still to come
}

// Read returns at most what is left of the present message.
func (e *exact) Read(p []byte) (int, error) {
	if e.sent == len(e.head) {
		if e.body > 0 {
			n, err := e.Reader.Read(p[:min(len(p), e.body)])
			e.body -= n
			return n, err
		}
		if e.head[0] == pgwire.ReadyForQuery {
			return 0, io.EOF
		}
		e.have, e.sent = 0, 0
	}
	if err := e.readHead(); err != nil {
		return 0, err
	}
	n := copy(p, e.head[e.sent:])
	e.sent += n
	return n, nil
}

func (e *exact) readHead() error {
	for e.have < len(e.head) {
		n, err := e.Reader.Read(e.head[e.have:])
		if e.have += n; e.have < len(e.head) && err != nil {
			return err
		}
	}
	h, err := pgwire.ServerHeader(e.head[:])
	if err == nil && e.sent == 0 {
		e.body = h.Body
	}
	return err
}

// exactly makes what parses pgconn's messages read through an exact, and keeps the
// reader below it, which may read ahead in a goroutine (after a slow write).
func exactly[Parser any](build func(io.Reader, io.Writer) Parser, below *io.Reader) func(io.Reader, io.Writer) Parser {
	return func(r io.Reader, w io.Writer) Parser {
		*below = r
		return build(&exact{Reader: r}, w)
	}
}

// maxAhead bounds what a server may say unasked between its ReadyForQuery and our
// taking over.
const maxAhead = 64 << 10

// takeOver ends the reading of a connection that has logged in, and returns what was
// read behind ReadyForQuery, which is ours to consume.
func takeOver(conn net.Conn, below io.Reader) (rest []byte, err error) {
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return nil, err
	}
	for buf := make([]byte, 4096); ; {
		n, err := below.Read(buf)
		rest = append(rest, buf[:n]...)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return rest, conn.SetDeadline(time.Time{})
		case err != nil:
			return nil, err
		case len(rest) > maxAhead:
			return nil, fmt.Errorf("%w: PostgreSQL says more than %d bytes unasked", armor.ErrInvalid, maxAhead)
		}
	}
}
