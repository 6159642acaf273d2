package pooler

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

// wire is one connection to PostgreSQL that has logged in. One goroutine at a time has
// it; only cancel and close may be called by others meanwhile.
type wire struct {
	home    *dialer      // immutable, as is all down to standby
	log     *slog.Logger // says whose it is
	stream  net.Conn     // with TLS, if there is
	raw     net.Conn     // below TLS
	pid     uint32
	secret  uint32
	to      address
	tls     *tls.Config // nil: no TLS; also for cancel requests
	next    string      // the host that the next login should begin with
	standby string      // in_hot_standby, when it had logged in

	state  *core.Server
	rest   []byte       // read and not consumed
	judged *core.Params // what changed has last looked at

	busy   bool // something may run on it
	ended  bool // its end was read
	broken bool // it broke without an end
}

// close closes the connection and waits for nothing.
func (w *wire) close() { w.stream.Close() }

// quiet reports whether nothing has arrived on the connection.
func (w *wire) quiet() bool { return !readable(w.raw) }

// clean reports whether the next client may have the connection as it is.
func (w *wire) clean() bool { return len(w.rest) == 0 && !w.state.Dirty() }

// unread takes bytes back that were read from the connection and not consumed.
func (w *wire) unread(rest []byte) { w.rest = append(w.rest, rest...) }

// changed reports whether the server is not what it was at the login: a standby that has
// been promoted.
func (w *wire) changed() bool {
	params := w.state.Params()
	if w.judged == params {
		return false
	}
	w.judged = params
	standby, _ := params.Get("in_hot_standby")
	return standby != w.standby
}

// doubt notes that the connection is in an unknown state, to be ended: something may run
// on it. err is how reading from it has failed, if it has.
func (w *wire) doubt(err error) {
	w.busy = true
	w.failed(err)
}

// failed notes how reading has failed, if it has.
func (w *wire) failed(err error) {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
	case isEnd(err):
		w.ended = true
	default:
		w.broken = true
	}
}

// isEnd reports whether an error of reading says that the other side's process has
// closed its socket: an end, or a reset.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
