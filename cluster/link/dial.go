package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/armordb/armordb/armor"
)

// Dial connects to a node and speaks one protocol. The connection ends at that node:
// whoever else answers is refused, wherever the address came from.
func (l *Link) Dial(ctx context.Context, node armor.NodeID, alpn string) (net.Conn, error) {
	addresses := l.addresses(node)
	if len(addresses) == 0 {
		return nil, fmt.Errorf("dial node %s: %w: no address is known", node, armor.ErrNotFound)
	}
	var all error
	for _, address := range addresses {
		conn, err := l.dial(ctx, node, address, alpn)
		if err == nil {
			return conn, nil
		}
		all = errors.Join(all, fmt.Errorf("dial node %s at %s: %w", node, address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, all
}

// addresses are where a node may be, the agreed one first. Gossip comes last: it is no
// address book, only the last resort when everything has moved at once.
func (l *Link) addresses(node armor.NodeID) []string {
	var all []string
	add := func(address string) {
		if address != "" && !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	state, _ := l.cfg.Trust.Current()
	if m, ok := state.Members.Get(string(node)); ok {
		add(m.PeerAddress)
	}
	if l.cfg.Seeds != nil {
		add(l.cfg.Seeds()[node])
	}
	if l.cfg.Hint != nil {
		if address, ok := l.cfg.Hint(node); ok {
			add(address)
		}
	}
	return all
}

func (l *Link) dial(ctx context.Context, node armor.NodeID, address, alpn string) (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, armor.ErrShuttingDown
	default:
	}
	certificate, err := l.certificate()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tracked := l.track(raw)
	conn := tls.Client(tracked, clientConfig(alpn, func(state tls.ConnectionState) error {
		return l.verifyServer(state, node, alpn)
	}, certificate))
	if err := conn.HandshakeContext(ctx); err != nil {
		tracked.Close()
		return nil, err
	}
	if err := l.believe(tracked, claim{chain: conn.ConnectionState().PeerCertificates, alpn: alpn, server: node}); err != nil {
		tracked.Close()
		return nil, err
	}
	return conn, nil
}

func clientConfig(alpn string, verify func(tls.ConnectionState) error, own ...tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           own,
		NextProtos:             []string{alpn},
		InsecureSkipVerify:     true, // names in certificates are SPIFFE IDs: verify checks more than host names
		VerifyConnection:       verify,
	}
}

// DialJoin connects to a node's port as one that has no certificate yet. verify is
// given the chain that the node presented, leaf first, and must hold it against what
// the invitation pinned.
func DialJoin(ctx context.Context, address string, verify func(chain []*x509.Certificate) error) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: clientConfig(Join, func(state tls.ConnectionState) error {
		return verify(state.PeerCertificates)
	})}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial %s to join: %w", address, err)
	}
	return conn.(*tls.Conn), nil
}
