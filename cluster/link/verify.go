package link

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

func (l *Link) verifyClient(state tls.ConnectionState) error {
	if state.NegotiatedProtocol == "" {
		return fmt.Errorf("%w: names no protocol of ours", armor.ErrDenied)
	}
	kind, name, err := l.verify(state.PeerCertificates)
	if err == nil && kind != pki.Node && slices.Contains(forNodes, state.NegotiatedProtocol) {
		return fmt.Errorf("%w: %s %q is no node", armor.ErrDenied, kind, name)
	}
	return err
}

func (l *Link) verifyServer(state tls.ConnectionState, node armor.NodeID, alpn string) error {
	kind, name, err := l.verify(state.PeerCertificates)
	if err != nil {
		return err
	}
	if kind != pki.Node || name != string(node) {
		return fmt.Errorf("%w: wanted node %q and met %s %q", armor.ErrDenied, node, kind, name)
	}
	if state.NegotiatedProtocol != alpn {
		return fmt.Errorf("%w: node %q does not speak %s", armor.ErrUnavailable, node, alpn)
	}
	return nil
}

// verify says who presented the chain, or why nobody is believed to have. All that this
// port believes of a certificate is decided here: in handshakes of both directions, and
// again, by expel, for as long as the connection is open.
func (l *Link) verify(chain []*x509.Certificate) (kind, name string, err error) {
	ca, err := l.cfg.PeerCA()
	if err != nil {
		return "", "", fmt.Errorf("peer CA: %w", err)
	}
	kind, name, leaf, err := pki.VerifyPeer(ca, l.cfg.Cluster, chain, l.cfg.Now())
	if err != nil {
		return "", "", err
	}
	state, _ := l.cfg.Trust.Current()
	if r, found := state.Revokes(leaf, []armor.Certificate{pki.AnchorFacts(ca)}); found {
		return "", "", fmt.Errorf("%w: certificate of %s %q, by revision %d", armor.ErrRevoked, kind, name, r.Revision)
	}
	return kind, name, nil
}

// Peer returns the node at the other end of a connection that Route delivered. It is
// ErrDenied when an operator is there, or nobody with a certificate.
func (l *Link) Peer(c net.Conn) (armor.NodeID, error) {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return "", fmt.Errorf("%w: the connection did not come through the link", armor.ErrDenied)
	}
	return nodeOf(conn.ConnectionState())
}

func nodeOf(state tls.ConnectionState) (armor.NodeID, error) {
	if len(state.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: the connection has no certificate", armor.ErrDenied)
	}
	id, err := pki.URIIdentity(state.PeerCertificates[0])
	if err != nil {
		return "", err
	}
	_, kind, name, err := pki.ParsePeerIdentity(id)
	if err != nil {
		return "", err
	}
	if kind != pki.Node {
		return "", fmt.Errorf("%w: %q is no node", armor.ErrDenied, id)
	}
	return armor.NodeID(name), nil
}
