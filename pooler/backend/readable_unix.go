//go:build unix

package backend

import (
	"errors"
	"net"
	"syscall"
)

// readable reports whether a read would not block: bytes, an end or an error have
// arrived. It consumes nothing. A connection that cannot be asked counts as quiet.
func readable(c net.Conn) bool {
	if asked, ok := c.(interface{ Readable() bool }); ok {
		return asked.Readable()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	blocks := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		blocks = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		return true
	})
	return err != nil || !blocks
}
