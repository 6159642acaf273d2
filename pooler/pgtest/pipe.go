package pgtest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe returns the two ends of a connection in memory that buffers up to size bytes
// each way. Like a TCP connection, and unlike net.Pipe, it takes a write that nobody
// reads yet, can be closed for writing alone, and tells a reset from an end. It works
// in testing/synctest bubbles.
func Pipe(size int) (*PipeConn, *PipeConn) {
	one, two := newFlow(size), newFlow(size)
	return &PipeConn{in: one, out: two}, &PipeConn{in: two, out: one}
}

// PipeConn is one end of a Pipe.
type PipeConn struct {
	in, out *flow
	mu      sync.Mutex // guards below
	reset   bool       // Close is a reset
}

// flow is one direction.
type flow struct {
	mu      sync.Mutex // guards below
	changed sync.Cond  // anything below
	size    int
	bytes   []byte
	err     error // what the reader gets once bytes is empty
	broken  error // what the writer gets
	read    limit
	write   limit
}

// limit is a deadline.
type limit struct {
	over  bool
	timer *time.Timer
}

func newFlow(size int) *flow {
	f := &flow{size: size}
	f.changed.L = &f.mu
	return f
}

// set moves a deadline of the flow.
func (f *flow) set(l *limit, t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.over = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !l.over {
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(t), func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if l.timer == timer {
				l.over = true
				f.changed.Broadcast()
			}
		})
		l.timer = timer
	}
	f.changed.Broadcast()
}

// Read waits for bytes.
func (c *PipeConn) Read(p []byte) (int, error) {
	f := c.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.read.over:
			return 0, os.ErrDeadlineExceeded
		case len(f.bytes) > 0:
			n := copy(p, f.bytes)
			f.bytes = f.bytes[n:]
			f.changed.Broadcast()
			return n, nil
		case f.err != nil:
			return 0, f.err
		}
		f.changed.Wait()
	}
}

// Write waits for room.
func (c *PipeConn) Write(p []byte) (n int, err error) {
	f := c.out
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		switch room := f.size - len(f.bytes); {
		case f.broken != nil:
			return n, f.broken
		case f.write.over:
			return n, os.ErrDeadlineExceeded
		case room > 0:
			k := min(room, len(p))
			f.bytes = append(f.bytes, p[:k]...)
			n, p = n+k, p[k:]
			f.changed.Broadcast()
		default:
			f.changed.Wait()
		}
	}
	return n, nil
}

// end closes a direction: what was written is still read, unless it is a reset.
func (f *flow) end(reading, writing error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil || errors.Is(reading, syscall.ECONNRESET) {
		f.err = reading
	}
	if f.broken == nil {
		f.broken = writing
	}
	if errors.Is(reading, syscall.ECONNRESET) {
		f.bytes = nil
	}
	f.changed.Broadcast()
}

// CloseWrite lets the other end read an end.
func (c *PipeConn) CloseWrite() error {
	c.out.end(io.EOF, net.ErrClosed)
	return nil
}

// SetLinger with 0 makes Close a reset.
func (c *PipeConn) SetLinger(seconds int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset = seconds == 0
	return nil
}

// Close ends both directions.
func (c *PipeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reset {
		c.out.end(syscall.ECONNRESET, net.ErrClosed)
	} else {
		c.out.end(io.EOF, net.ErrClosed)
	}
	c.in.end(net.ErrClosed, syscall.EPIPE)
	return nil
}

// Readable reports whether a Read would not block.
func (c *PipeConn) Readable() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return len(c.in.bytes) > 0 || c.in.err != nil
}

// SetDeadline sets both deadlines.
func (c *PipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline ends Reads at t.
func (c *PipeConn) SetReadDeadline(t time.Time) error {
	c.in.set(&c.in.read, t)
	return nil
}

// SetWriteDeadline ends Writes at t.
func (c *PipeConn) SetWriteDeadline(t time.Time) error {
	c.out.set(&c.out.write, t)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// LocalAddr is the same for all pipes.
func (*PipeConn) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr is the same for all pipes.
func (*PipeConn) RemoteAddr() net.Addr { return pipeAddr{} }
