//go:build linux

package loop

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection that can change hands: goroutines read and write it like any
// other, until a loop takes it and moves the bytes itself. TLS runs on top of it and
// does not notice, which is why it must be there before TLS begins.
//
//	     Detach            drive              undrive
//	net ────────▶ own fd ────────▶ in memory ────────▶ own fd
//
// In memory, reads take what the loop has received, one whole TLS record at most, and
// report errAgain when there is none; writes add to what the loop will send.
type Conn struct {
	net.Conn // until Detach

	// records makes reads stop at the end of a TLS record, so that nothing is left
	// behind in crypto/tls when the connection changes hands.
	records bool
	head    [recordHeader]byte
	have    int // bytes of head that were read
	sent    int // bytes of head that were passed on
	left    int // bytes of the record's body still to come

	fd   int                    // -1 before Detach
	home atomic.Pointer[worker] // the loop that the file descriptor is registered with
	// arrived is set, while home looks after an idle connection, when something has
	// arrived; reading clears it. It saves a system call each time one is lent.
	arrived atomic.Bool
	// hungUp is set once epoll has told of the other side's end. That may come in one
	// event with the last bytes, so that a short read is no sign that all was read.
	hungUp atomic.Bool

	memory bool
	in     []byte  // received and not yet taken by TLS
	out    *[]byte // where writes go

	mu       sync.Mutex // guards below
	deadline [2]time.Time
	users    int  // reads and writes in progress, and the loop
	closed   bool // the last user closes the file descriptor
}

const recordHeader = 5 // RFC 8446 §5.1

// Client wraps an accepted connection before TLS begins (tlsedge.Config.Wrap).
func Client(c net.Conn) net.Conn { return &Conn{Conn: c, records: true, fd: -1} }

// Server wraps a connection to PostgreSQL before anything was read from it.
func Server(c net.Conn) net.Conn { return &Conn{Conn: c, fd: -1} }

// errAgain says that TLS must wait for more bytes. crypto/tls gives up for good on
// errors that are not temporary (TestTLSGoesOnAfterErrAgain holds each Go release to
// it).
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "no whole record has arrived" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }

// Read reads from wherever the connection is.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case c.memory:
		return c.fromMemory(p)
	case c.records:
		return c.readRecord(p)
	}
	return c.read(p)
}

// read is a plain blocking read.
func (c *Conn) read(p []byte) (int, error) {
	if c.fd < 0 {
		return c.Conn.Read(p)
	}
	return c.blocking(forRead, func() (int, error) {
		c.arrived.Store(false) // before: what comes after is told by an event
		n, err := recv(c.fd, p)
		if n == 0 && err == nil {
			err = io.EOF
		}
		if n == len(p) || err == io.EOF {
			c.arrived.Store(true)
		}
		return n, err
	})
}

// readRecord reads on to the end of the present TLS record at most.
func (c *Conn) readRecord(p []byte) (int, error) {
	if c.sent < c.have || c.have < recordHeader && c.left == 0 {
		return c.readHead(p)
	}
	n, err := c.read(p[:min(len(p), c.left)])
	c.took(n)
	return n, err
}

func (c *Conn) readHead(p []byte) (int, error) {
	for c.have < recordHeader {
		n, err := c.read(c.head[c.have:])
		c.have += n
		if err != nil && c.have < recordHeader {
			return 0, err
		}
	}
	if c.sent == 0 {
		c.left = recordBody(c.head[:])
	}
	n := copy(p, c.head[c.sent:])
	if c.sent += n; c.sent == recordHeader && c.left == 0 {
		c.have, c.sent = 0, 0
	}
	return n, nil
}

// took counts bytes of a record's body.
func (c *Conn) took(n int) {
	if c.left -= n; c.left == 0 {
		c.have, c.sent = 0, 0
	}
}

func recordBody(head []byte) int { return int(binary.BigEndian.Uint16(head[3:recordHeader])) }

// wholeRecord returns the length of the record at the beginning of b, 0 while it has
// not arrived to its end.
func wholeRecord(b []byte) int {
	if len(b) < recordHeader {
		return 0
	}
	if n := recordHeader + recordBody(b); n <= len(b) {
		return n
	}
	return 0
}

// fromMemory takes received bytes up to the end of the present record, and none while
// that end has not arrived.
func (c *Conn) fromMemory(p []byte) (int, error) {
	if c.left == 0 {
		n := wholeRecord(c.in)
		if n == 0 {
			return 0, errAgain
		}
		c.left = n
	}
	n := copy(p[:min(len(p), c.left)], c.in)
	c.in, c.left = c.in[n:], c.left-n
	return n, nil
}

// Write writes all of p, or adds it to what the loop will send.
func (c *Conn) Write(p []byte) (int, error) {
	switch {
	case c.memory:
		*c.out = append(*c.out, p...)
		return len(p), nil
	case c.fd < 0:
		return c.Conn.Write(p)
	}
	for written := 0; ; {
		n, err := c.blocking(forWrite, func() (int, error) { return send(c.fd, p[written:]) })
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// Detach takes the file descriptor out of Go's runtime, whose poller would otherwise
// wake up for every byte that a loop receives. Nobody may be reading or writing.
func (c *Conn) Detach() error {
	if c.fd >= 0 {
		return nil
	}
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if err := raw.Control(func(from uintptr) { fd, err = dup(int(from)) }); err != nil {
		return err
	}
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	c.mu.Lock()
	c.fd = fd
	c.mu.Unlock()
	return c.Conn.Close()
}

// detached returns the file descriptor for those who do not own the connection.
func (c *Conn) detached() (fd int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fd, c.fd >= 0
}

// SyscallConn is that of the connection before Detach; after it there is none.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if _, gone := c.detached(); gone || !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// Readable reports whether a read would not block, as far as is known: a loop knows it
// of the connections that are registered with it. It may be called by anybody at any
// time.
func (c *Conn) Readable() bool {
	if c.home.Load() == nil {
		return readable(c.Conn)
	}
	if c.hungUp.Load() {
		return true
	}
	if !c.arrived.Load() {
		return false
	}
	if c.enter() != nil {
		return true // a read says that it is closed
	}
	defer c.leave()
	c.arrived.Store(false) // before: what comes after is told by an event
	arrived := peek(c.fd)  // it may have been read since
	if arrived {
		c.arrived.Store(true)
	}
	return arrived
}

// readable asks a connection that still belongs to Go's runtime. One that no longer does
// counts as quiet.
func readable(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	arrived := false
	err = raw.Read(func(fd uintptr) bool {
		arrived = peek(int(fd))
		return true
	})
	return err == nil && arrived
}

// Close closes the connection, once. Whoever is reading or writing finds its end, and
// the file descriptor is closed after the last one: its number may be somebody
// else's from then on.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	switch {
	case c.fd < 0:
		return c.Conn.Close()
	case c.users > 0:
		_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR) // fails only when the other side is gone
		return nil
	}
	return closeFD(c.fd)
}

// enter makes the caller a user of the file descriptor, until leave.
func (c *Conn) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.users++
	return nil
}

func (c *Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 && c.closed {
		_ = closeFD(c.fd) // nobody is left to be told
	}
}

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error {
	if fd, ok := c.detached(); ok {
		return os.NewSyscallError("shutdown", syscall.Shutdown(fd, syscall.SHUT_WR))
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger makes Close send a reset, with 0.
func (c *Conn) SetLinger(seconds int) error {
	if fd, ok := c.detached(); ok {
		return setLinger(fd, seconds)
	}
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// Unsent is how many bytes the kernel has that the other side has not acknowledged.
func (c *Conn) Unsent() int {
	if c.enter() != nil {
		return 0
	}
	defer c.leave()
	fd, ok := c.detached()
	if !ok {
		return 0
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0 // it is no TCP connection
	}
	return n
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline also concerns a Read in progress.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if _, ok := c.detached(); !ok {
		return c.Conn.SetReadDeadline(t)
	}
	return c.setDeadline(forRead, t)
}

// SetWriteDeadline also concerns a Write in progress.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if _, ok := c.detached(); !ok {
		return c.Conn.SetWriteDeadline(t)
	}
	return c.setDeadline(forWrite, t)
}
