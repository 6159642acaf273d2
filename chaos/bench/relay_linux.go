package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Relay passes bytes between clients on a TCP port of loopback and a Unix socket, one
// connection for one, and does nothing else: no TLS, no pool, no protocol. It stands in for
// relay/relay.c where there is no C compiler, and waits as pooler/loop does, so that it costs
// the same. It says the port by ready and returns when ctx ends.
func Relay(ctx context.Context, socket string, ready func(port int)) error {
	r := &relay{socket: &syscall.SockaddrUnix{Name: socket}, ended: map[int]bool{}}
	port, err := r.listen()
	if err != nil {
		return fmt.Errorf("relay to %s: %w", socket, err)
	}
	ready(port)
	moved := make(chan error, 1)
	go func() { moved <- r.run() }()
	select {
	case <-ctx.Done():
		return nil // the process ends, and the other goroutine with it
	case err := <-moved:
		return fmt.Errorf("relay to %s: %w", socket, err)
	}
}

// relay is one thread that does everything: descriptors that another thread closes may
// be a new connection's by the time that an event is looked at.
type relay struct {
	socket          *syscall.SockaddrUnix
	listener, epoll int
	events          [256]syscall.EpollEvent
	buf             [64 << 10]byte
	ended           map[int]bool // descriptors that are closed after this batch of events
}

func (r *relay) listen() (port int, err error) {
	if r.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0); err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(r.listener, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	if err := syscall.Listen(r.listener, 1024); err != nil {
		return 0, os.NewSyscallError("listen", err)
	}
	if r.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return 0, os.NewSyscallError("epoll_create1", err)
	}
	at, err := syscall.Getsockname(r.listener)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return at.(*syscall.SockaddrInet4).Port, r.watch(r.listener, 0)
}

// watch asks for what comes from a descriptor; its partner's number comes back with it.
func (r *relay) watch(fd, partner int) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd), Pad: int32(partner)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, fd, &e))
}

func (r *relay) run() error {
	for vain := 0; ; vain++ {
		n, err := r.wait(vain)
		if err != nil {
			return err
		}
		if n > 0 {
			vain = 0
		}
		for _, e := range r.events[:n] {
			from, to := int(e.Fd), int(e.Pad)
			switch {
			case from == r.listener:
				err = r.pair()
			case !r.ended[from] && !r.pass(from, to):
				r.ended[from], r.ended[to] = true, true
			}
			if err != nil {
				return err
			}
		}
		for fd := range r.ended {
			syscall.Close(fd)
		}
		clear(r.ended)
	}
}

// wait returns how many events there are. It lingers as pooler/loop does, where it says
// why: the scheduler is told of a wait only when ten in a row were in vain.
func (r *relay) wait(vain int) (int, error) {
	const lingers, lingering = 10, 10
	if vain >= lingers {
		n, err := syscall.EpollWait(r.epoll, r.events[:], -1)
		if errors.Is(err, syscall.EINTR) {
			return 0, nil
		}
		return n, os.NewSyscallError("epoll_wait", err)
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(r.epoll),
		uintptr(unsafe.Pointer(&r.events)), uintptr(len(r.events)), lingering, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("epoll_pwait", errno)
}

// pair makes a connection to the socket for a client. One that fails is the client's end.
func (r *relay) pair() error {
	client, _, err := syscall.Accept4(r.listener, syscall.SOCK_CLOEXEC)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNABORTED) {
		return nil // gone already
	}
	if err != nil {
		return os.NewSyscallError("accept4", err)
	}
	server, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := syscall.Connect(server, r.socket); err != nil {
		return errors.Join(syscall.Close(client), syscall.Close(server))
	}
	syscall.SetsockoptInt(client, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	return errors.Join(r.watch(client, server), r.watch(server, client))
}

// pass moves what is there, and reports false when the connection has ended. The sockets
// block, which only sending makes use of.
func (r *relay) pass(from, to int) bool {
	got, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(from),
		uintptr(unsafe.Pointer(&r.buf)), uintptr(len(r.buf)), syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 || got == 0 {
		return errno == syscall.EAGAIN || errno == syscall.EINTR
	}
	for rest := r.buf[:got]; len(rest) > 0; {
		n, err := send(to, rest)
		if err != nil {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// send tries without the scheduler's knowledge, and with it when it would block.
func send(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT, 0, 0)
	if errno == 0 {
		return int(n), nil
	}
	return syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL)
}
