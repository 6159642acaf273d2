package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Relay passes bytes between clients on a TCP port of loopback and a Unix socket, one
// connection for one, and does nothing else: no TLS, no pool, no protocol. It is what
// any proxy in user space costs at least, for the benchmark to compare with. It says the
// port by ready and returns when ctx ends.
func Relay(ctx context.Context, socket string, ready func(port int)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer syscall.Close(epoll)
	pairs := make(chan error, 1)
	go func() { pairs <- relayPairs(listener, socket, epoll) }()
	ready(listener.Addr().(*net.TCPAddr).Port)
	moved := make(chan error, 1)
	go func() { moved <- relayBytes(epoll) }()
	select {
	case <-ctx.Done():
		return nil // the process ends, and the other goroutines with it
	case err := <-pairs:
		return err
	case err := <-moved:
		return err
	}
}

// relayPairs makes a connection to the socket for each client. A file descriptor is
// watched with its partner's number beside it.
func relayPairs(listener net.Listener, socket string, epoll int) error {
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		server, err := net.Dial("unix", socket)
		if err != nil {
			return errors.Join(err, client.Close())
		}
		a, errA := detach(client.(*net.TCPConn))
		b, errB := detach(server.(*net.UnixConn))
		if err := errors.Join(errA, errB, watchFD(epoll, a, b), watchFD(epoll, b, a)); err != nil {
			return err
		}
	}
}

// detach takes the file descriptor out of Go's hands. It blocks from then on, which
// only sending makes use of.
func detach(c interface {
	SyscallConn() (syscall.RawConn, error)
	Close() error
}) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fd int
	var failed error
	if err := raw.Control(func(from uintptr) { fd, failed = syscall.Dup(int(from)) }); err != nil {
		return -1, err
	}
	return fd, errors.Join(failed, syscall.SetNonblock(fd, false), c.Close())
}

func watchFD(epoll, fd, partner int) error {
	return syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd), Pad: int32(partner)})
}

// relayBytes is one thread that moves everything.
func relayBytes(epoll int) error {
	events := make([]syscall.EpollEvent, 256)
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.EpollWait(epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			from, to := int(e.Fd), int(e.Pad)
			got, _, err := syscall.Recvfrom(from, buf, syscall.MSG_DONTWAIT)
			if err == nil && got > 0 {
				err = sendAll(to, buf[:got])
			}
			switch {
			case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EBADF): // its partner has ended it in this batch
			case err != nil || got == 0:
				_, _ = syscall.Close(from), syscall.Close(to) // either may be closed already
			}
		}
	}
}

func sendAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
