package portable

import (
	"net"
	"sync"
	"time"
)

// line is a connection whose blocked reads and writes can be ended from another
// goroutine, for a moment or for good.
type line struct {
	conn net.Conn

	mu     sync.Mutex // guards below, and the setting of deadlines; never held while reading or writing
	halted bool
}

// past is a deadline that ends what is blocked, and whatever comes next.
var past = time.Unix(1, 0)

// wake ends a blocked read. The reader calls rest and looks around.
func (l *line) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetReadDeadline(past) // a closed connection wakes its reader anyway
}

// rest undoes wake, unless the line was halted.
func (l *line) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.halted {
		_ = l.conn.SetReadDeadline(time.Time{}) // a closed connection shows at the next read
	}
}

// halt ends all reads and writes until resume.
func (l *line) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halted = true
	_ = l.conn.SetDeadline(past) // a closed connection blocks nobody
}

// resume undoes halt and lets reads and writes last as long as patience; 0 is for
// ever.
func (l *line) resume(patience time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halted = false
	deadline := time.Time{}
	if patience > 0 {
		deadline = time.Now().Add(patience)
	}
	_ = l.conn.SetDeadline(deadline) // a closed connection shows at the next use
}

// abort closes the connection so that the other side sees a reset, not an end.
func abort(c net.Conn) {
	for {
		if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
			_ = tcp.SetLinger(0) // it is closed either way
			c.Close()
			return
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			c.Close()
			return
		}
		c = outer.NetConn()
	}
}

// closeWrite says that no more will be written, to every layer of the connection.
func closeWrite(c net.Conn) {
	for {
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // the other side sees an end, or was gone before
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = outer.NetConn()
	}
}
