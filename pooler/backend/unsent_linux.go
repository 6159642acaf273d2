package backend

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the kernel has that the other side has not acknowledged (tcp(7),
// SIOCOUTQ). A connection that cannot be asked has none.
func unsent(c net.Conn) (n int) {
	if asked, ok := c.(interface{ Unsent() int }); ok {
		return asked.Unsent()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) // one that is closed has none
	if err != nil {
		return 0
	}
	return n
}
