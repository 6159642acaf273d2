package link

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

// expiryCheck is how late the end of a peer's certificate may end its connections.
const expiryCheck = time.Minute

// expel closes connections of peers that are not to be believed any more: at each new
// revision, and now and then for certificates that expire.
func (l *Link) expel(ctx context.Context) {
	tick := time.NewTicker(expiryCheck)
	defer tick.Stop()
	for {
		_, superseded := l.cfg.Trust.Current()
		for conn, c := range l.provenConns() {
			if err := l.judge(*c); err != nil {
				l.cfg.Logger.Warn("closing a node's connection", armor.KeySource, conn.RemoteAddr().String(), armor.KeyErr, err)
				conn.Close()
			}
		}
		select {
		case <-superseded:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// trackedConn is a TCP connection that the link can close.
type trackedConn struct {
	net.Conn
	link *Link
	seat *door.Place // of a joiner; guarded by link.mu
}

// Close closes the connection and forgets it.
func (c *trackedConn) Close() error {
	c.link.mu.Lock()
	seat := c.seat
	if proven := c.link.open[c]; proven != nil {
		c.link.forgetLocked(c, proven.key())
	}
	delete(c.link.open, c)
	c.link.mu.Unlock()
	if seat != nil {
		seat.Leave()
	}
	return c.Conn.Close()
}

func (l *Link) track(raw net.Conn) *trackedConn {
	c := &trackedConn{Conn: raw, link: l}
	l.mu.Lock()
	l.open[c] = nil
	l.mu.Unlock()
	return c
}

// seated gives a joiner's connection its place; false: it has been closed meanwhile.
func (c *trackedConn) seated(seat *door.Place) bool {
	c.link.mu.Lock()
	_, open := c.link.open[c]
	c.seat = seat
	c.link.mu.Unlock()
	if !open {
		seat.Leave()
	}
	return open
}

// believe takes a connection whose peer has proved what it claims among those that each
// new revision judges, and judges it once more: a revision that was published during its
// handshake found it there, or is seen now.
func (l *Link) believe(c *trackedConn, proven claim) error {
	state, _ := l.cfg.Trust.Current()
	proven.met, _ = l.identify(state, proven.chain) // judge says what is wrong with it
	if oldest := l.admit(c, &proven); oldest != nil {
		oldest.Close()
	}
	if l.cfg.mistakes.verifyOnce {
		return nil
	}
	return l.judge(proven)
}

// admit notes what is proven, and returns a connection of the same peer that has to go.
func (l *Link) admit(c *trackedConn, proven *claim) (oldest *trackedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.open[c]; !open {
		return nil
	}
	l.open[c] = proven
	if proven.server != "" {
		return nil
	}
	key := proven.key()
	l.guests[key] = append(l.guests[key], c)
	if len(l.guests[key]) > maxPerKey {
		oldest = l.guests[key][0]
	}
	return oldest
}

func (l *Link) forgetLocked(c *trackedConn, key armor.Digest) {
	l.guests[key] = slices.DeleteFunc(l.guests[key], func(o *trackedConn) bool { return o == c })
	if len(l.guests[key]) == 0 {
		delete(l.guests, key)
	}
}

func (l *Link) provenConns() map[*trackedConn]*claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[*trackedConn]*claim, len(l.open))
	for c, proven := range l.open {
		if proven != nil {
			all[c] = proven
		}
	}
	return all
}

// closeAll ends every connection and every route, now that Run ends.
func (l *Link) closeAll() {
	l.mu.Lock()
	l.ended = true
	all := make([]*trackedConn, 0, len(l.open))
	for c := range l.open {
		all = append(all, c)
	}
	routes := l.routes
	l.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
	for _, r := range routes {
		r.Close()
	}
}
