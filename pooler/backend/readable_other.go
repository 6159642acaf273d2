//go:build !unix

package backend

import "net"

// readable reports whether a read would not block, where that can be known; a dead
// server connection then shows when it is used.
func readable(c net.Conn) bool {
	asked, ok := c.(interface{ Readable() bool })
	return ok && asked.Readable()
}
