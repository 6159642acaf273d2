package backend

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/armordb/armordb/pooler/core"
)

// Conn is a connection to PostgreSQL that has logged in. It belongs to one goroutine at a
// time, which alone calls its methods; but Quiet, Cancel and Close anybody may call.
type Conn struct {
	home    *Dialer      // immutable, as is all down to connect
	log     *slog.Logger // says whose it is
	stream  net.Conn     // with TLS, if there is
	raw     net.Conn     // below TLS
	pid     uint32
	secret  uint32
	to      address
	tls     *tls.Config // nil: no TLS; also for cancel requests
	first   string      // the host that the next login should begin with
	standby string      // in_hot_standby, when it had logged in
	connect Connect     // what else a login and a reset are
	entry   Entry       // in the register

	state  *core.Server
	rest   []byte       // read and not consumed
	judged *core.Params // what Changed has last looked at

	busy    bool // something may run on it
	ended   bool // its end was read
	broken  bool // it broke without an end
	severed bool // we have reset it: see DropUnsent
}

// Stream is the connection, without deadlines.
func (c *Conn) Stream() net.Conn { return c.stream }

// Raw is the connection below TLS, as Config.Dial has made it.
func (c *Conn) Raw() net.Conn { return c.raw }

// State is the protocol state that travels with the connection.
func (c *Conn) State() *core.Server { return c.state }

// PID is the process id of the backend.
func (c *Conn) PID() uint32 { return c.pid }

// First is the host that the next login should begin with: see Target.
func (c *Conn) First() string { return c.first }

// Close closes the connection and waits for nothing.
func (c *Conn) Close() { c.stream.Close() }

// Quiet reports whether nothing has arrived on the connection.
func (c *Conn) Quiet() bool { return !readable(c.raw) }

// Clean reports whether the next client may have the connection as it is.
func (c *Conn) Clean() bool { return len(c.rest) == 0 && !c.state.Dirty() && !c.state.Open() }

// Unread takes bytes back that were read from the connection and not consumed.
func (c *Conn) Unread(rest []byte) { c.rest = append(c.rest, rest...) }

// Changed reports whether the server is not what it was at the login: a standby that has
// been promoted.
func (c *Conn) Changed() bool {
	params := c.state.Params()
	if c.judged == params {
		return false
	}
	c.judged = params
	standby, _ := params.Get("in_hot_standby")
	return standby != c.standby
}

// Doubt notes that the connection is in an unknown state and to be ended: something may
// run on it. err is how reading from it has failed, if it has.
func (c *Conn) Doubt(err error) {
	c.busy = true
	c.failed(err)
}

// failed notes how reading has failed, if it has.
func (c *Conn) failed(err error) {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
	case isEnd(err):
		c.ended = true
	default:
		c.broken = true
	}
}

// isEnd reports whether an error of reading says that the other side's process has
// closed its socket: an end, or a reset.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
