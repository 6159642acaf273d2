//go:build linux

package loop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// direction is what a goroutine waits for on a detached connection.
type direction int

const (
	forRead direction = iota
	forWrite
)

// slice is how long one poll blocks a thread: a deadline that is moved meanwhile is
// noticed no later. Only the pooler's cold work waits here: resets, cancels, ends.
const slice = 50 * time.Millisecond

func (c *Conn) setDeadline(d direction, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline[d] = t
	return nil
}

// blocking repeats try until it does not block, the deadline has passed or the
// connection is closed.
func (c *Conn) blocking(d direction, try func() (int, error)) (int, error) {
	if err := c.enter(); err != nil {
		return 0, err
	}
	defer c.leave()
	for {
		until, err := c.until(d)
		if err != nil {
			return 0, err
		}
		n, err := try()
		if !errors.Is(err, syscall.EAGAIN) {
			return n, wrap(err)
		}
		if err := poll(c.fd, d, until); err != nil {
			return 0, err
		}
	}
}

// until returns when the next look is due at the latest.
func (c *Conn) until(d direction) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := c.deadline[d]
	switch {
	case c.closed:
		return time.Time{}, net.ErrClosed
	case deadline.IsZero():
		return time.Now().Add(slice), nil
	case !time.Now().Before(deadline):
		return time.Time{}, os.ErrDeadlineExceeded
	}
	if next := time.Now().Add(slice); next.Before(deadline) {
		return next, nil
	}
	return deadline, nil
}

func poll(fd int, d direction, until time.Time) error {
	events := int16(unix.POLLIN)
	if d == forWrite {
		events = unix.POLLOUT
	}
	ms := max(1, int(time.Until(until)/time.Millisecond))
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, ms)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

func wrap(err error) error {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // straight from a system call
		return os.NewSyscallError("socket", errno)
	}
	return err
}
