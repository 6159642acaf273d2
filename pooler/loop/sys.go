//go:build linux

package loop

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recv receives what is there. RawSyscall, since the sockets never block: telling the
// scheduler would cost more than the call.
func recv(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// send sends as much of p as fits.
func send(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// peek reports whether a receive would not block.
func peek(fd int) bool {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno != syscall.EAGAIN && errno != syscall.EINTR
}

func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
}

func closeFD(fd int) error { return os.NewSyscallError("close", syscall.Close(fd)) }

func setLinger(fd, seconds int) error {
	return os.NewSyscallError("setsockopt",
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: int32(seconds)}))
}

// poller is an epoll instance and an eventfd to wake it.
type poller struct {
	epfd, wakefd int
	events       [256]syscall.EpollEvent
}

func newPoller() (*poller, error) {
	epfd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), closeFD(epfd))
	}
	p := &poller{epfd: epfd, wakefd: wakefd}
	if err := p.add(wakefd, syscall.EPOLLIN, 0); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

const (
	edge = 1 << 31 // EPOLLET
	// fromClient is all that is ever asked of a client's socket, so that it is
	// registered once and never again touched.
	fromClient = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge
	fromServer = syscall.EPOLLIN | syscall.EPOLLRDHUP | edge
	toServer   = fromServer | syscall.EPOLLOUT
)

// add registers a file descriptor. ticket comes back with its events: the number may
// be somebody else's by the time an event is looked at.
func (p *poller) add(fd int, events uint32, ticket int32) error {
	return p.ctl(syscall.EPOLL_CTL_ADD, fd, events, ticket)
}

func (p *poller) modify(fd int, events uint32, ticket int32) error {
	return p.ctl(syscall.EPOLL_CTL_MOD, fd, events, ticket)
}

func (p *poller) remove(fd int) error { return p.ctl(syscall.EPOLL_CTL_DEL, fd, 0, 0) }

func (p *poller) ctl(op, fd int, events uint32, ticket int32) error {
	e := syscall.EpollEvent{Events: events, Fd: int32(fd), Pad: ticket}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epfd, op, fd, &e))
}

// lingering is how long linger waits, in milliseconds: as long as the scheduler lets a
// goroutine run before it interrupts it.
const lingering = 10

// linger returns what has happened, or nothing after a few milliseconds. The scheduler
// is not told of it: it would take the processor away from a thread that waits for 20 µs,
// give it back, and look after all of this once a query. When it needs the thread, for
// a garbage collection, its signal ends the wait.
func (p *poller) linger() ([]syscall.EpollEvent, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), lingering, 0, 0)
	return p.result(int(n), errno)
}

// wait returns what has happened once something has, or after ms milliseconds; -1 is
// for ever.
func (p *poller) wait(ms int) ([]syscall.EpollEvent, error) {
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(ms), 0, 0)
	return p.result(int(n), errno)
}

func (p *poller) result(n int, errno syscall.Errno) ([]syscall.EpollEvent, error) {
	switch errno {
	case 0:
		return p.events[:n], nil
	case syscall.EINTR:
		return nil, nil
	}
	return nil, os.NewSyscallError("epoll_pwait", errno)
}

// wake makes wait return.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = syscall.Write(p.wakefd, one[:]) // it fails only when a wake-up is pending
}

// woken takes the wake-up.
func (p *poller) woken() {
	var b [8]byte
	_, _ = syscall.Read(p.wakefd, b[:])
}

func (p *poller) close() error { return errors.Join(closeFD(p.wakefd), closeFD(p.epfd)) }
