package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
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
		for conn, leaf := range l.provenConns() {
			if _, _, err := l.verify([]*x509.Certificate{leaf}); err != nil {
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
}

// Close closes the connection and forgets it.
func (c *trackedConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.open, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

func (l *Link) track(raw net.Conn) *trackedConn {
	c := &trackedConn{Conn: raw, link: l}
	l.mu.Lock()
	l.open[c] = nil
	l.mu.Unlock()
	return c
}

func (l *Link) proven(c *trackedConn, state tls.ConnectionState) {
	if len(state.PeerCertificates) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.open[c]; open {
		l.open[c] = state.PeerCertificates[0]
	}
}

func (l *Link) provenConns() map[*trackedConn]*x509.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[*trackedConn]*x509.Certificate, len(l.open))
	for c, leaf := range l.open {
		if leaf != nil {
			all[c] = leaf
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
