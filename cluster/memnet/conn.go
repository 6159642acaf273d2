package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// maxUnread is how much a connection holds before writers wait.
const maxUnread = 4 << 20

// Conn is one end of a connection.
type Conn struct {
	net     *Network
	in, out *pipe
}

// pipe is one direction of a connection.
type pipe struct {
	net *Network
	way way

	mu       sync.Mutex // guards all below
	segments []segment
	size     int
	closed   bool          // by either end
	changed  chan struct{} // closed and replaced when anything above changes
	read     time.Time     // deadlines
	write    time.Time
}

// segment is what one Write wrote; it can be read from ready on.
type segment struct {
	data  []byte
	ready time.Time
}

func (n *Network) connect(from, to armor.NodeID) (near, far *Conn) {
	there := &pipe{net: n, way: way{from, to}, changed: make(chan struct{})}
	back := &pipe{net: n, way: way{to, from}, changed: make(chan struct{})}
	near, far = &Conn{net: n, in: back, out: there}, &Conn{net: n, in: there, out: back}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// Claim is the node at the other end.
func (c *Conn) Claim() armor.NodeID { return c.out.way.to }

// Read waits for bytes, an end or the deadline.
func (c *Conn) Read(b []byte) (int, error) { return c.in.take(b) }

// Write waits while the link holds as much as it may.
func (c *Conn) Write(b []byte) (int, error) { return c.out.put(b) }

// Close ends both directions at once.
func (c *Conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	c.in.set(func(p *pipe) { p.closed = true })
	c.out.set(func(p *pipe) { p.closed = true })
	return nil
}

// reset ends both directions at once and loses what has not been read, as a RST does.
func (c *Conn) reset() {
	lose := func(p *pipe) { p.segments, p.size = nil, 0 }
	c.in.set(lose)
	c.out.set(lose)
	c.Close()
}

// LocalAddr is the name of this end's host.
func (c *Conn) LocalAddr() net.Addr { return Addr(c.out.way.from) }

// RemoteAddr is the name of the other end's host.
func (c *Conn) RemoteAddr() net.Addr { return Addr(c.out.way.to) }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline makes Read fail with os.ErrDeadlineExceeded after t.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.set(func(p *pipe) { p.read = t })
	return nil
}

// SetWriteDeadline makes Write fail with os.ErrDeadlineExceeded after t.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func(p *pipe) { p.write = t })
	return nil
}

func (p *pipe) set(change func(*pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

// take waits for bytes that have arrived.
func (p *pipe) take(b []byte) (int, error) {
	for {
		cut, _, linkChanged := p.net.link(p.way)
		n, wake, changed, err := p.tryTake(b, cut)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		waitFor(wake, changed, linkChanged)
	}
}

// tryTake returns what can be read now, or when to look again (zero: not by time).
func (p *pipe) tryTake(b []byte, cut bool) (n int, wake time.Time, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case !p.read.IsZero() && !now.Before(p.read):
		return 0, wake, nil, os.ErrDeadlineExceeded
	case !cut && len(p.segments) > 0 && !now.Before(p.segments[0].ready):
		return p.shiftLocked(b), wake, nil, nil
	case p.closed:
		return 0, wake, nil, io.EOF
	}
	wake = p.read
	if !cut && len(p.segments) > 0 && (wake.IsZero() || p.segments[0].ready.Before(wake)) {
		wake = p.segments[0].ready
	}
	return 0, wake, p.changed, nil
}

func (p *pipe) shiftLocked(b []byte) int {
	s := &p.segments[0]
	n := copy(b, s.data)
	s.data = s.data[n:]
	p.size -= n
	if len(s.data) == 0 {
		p.segments = p.segments[1:]
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return n
}

// put waits until the connection holds little enough.
func (p *pipe) put(b []byte) (int, error) {
	_, delay, _ := p.net.link(p.way)
	for {
		done, wake, changed, err := p.tryPut(b, delay)
		if err != nil {
			return 0, err
		}
		if done {
			return len(b), nil
		}
		waitFor(wake, changed, nil)
	}
}

func (p *pipe) tryPut(b []byte, delay time.Duration) (done bool, wake time.Time, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.closed:
		return false, wake, nil, net.ErrClosed
	case !p.write.IsZero() && !now.Before(p.write):
		return false, wake, nil, os.ErrDeadlineExceeded
	case p.size > maxUnread:
		return false, p.write, p.changed, nil
	}
	ready := now.Add(delay)
	if last := len(p.segments) - 1; last >= 0 && p.segments[last].ready.After(ready) {
		ready = p.segments[last].ready // order is kept when a link gets faster
	}
	p.segments = append(p.segments, segment{append([]byte(nil), b...), ready})
	p.size += len(b)
	close(p.changed)
	p.changed = make(chan struct{})
	return true, wake, nil, nil
}

func waitFor(wake time.Time, changed, linkChanged <-chan struct{}) {
	var timer <-chan time.Time
	if !wake.IsZero() {
		t := time.NewTimer(time.Until(wake))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-changed:
	case <-linkChanged:
	}
}
