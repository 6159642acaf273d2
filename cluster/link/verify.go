package link

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// claim is what is believed of the other end of a connection, for as long as it is open.
type claim struct {
	chain  []*x509.Certificate // the leaf first
	alpn   string
	server armor.NodeID // who was dialed; empty when the other end has come to us
}

// key is that of the certificate.
func (c claim) key() armor.Digest { return pki.SPKI(c.chain[0]) }

func (l *Link) verifyClient(state tls.ConnectionState) error {
	if state.NegotiatedProtocol == "" {
		return fmt.Errorf("%w: names no protocol of ours", armor.ErrDenied)
	}
	return l.judge(claim{chain: state.PeerCertificates, alpn: state.NegotiatedProtocol})
}

func (l *Link) verifyServer(state tls.ConnectionState, node armor.NodeID, alpn string) error {
	if err := l.judge(claim{chain: state.PeerCertificates, alpn: alpn, server: node}); err != nil {
		return err
	}
	if state.NegotiatedProtocol != alpn {
		return fmt.Errorf("%w: node %q does not speak %s", armor.ErrUnavailable, node, alpn)
	}
	return nil
}

// judge says why a claim is not believed, if it is not. All that this port believes of a
// certificate is decided here: in handshakes of both directions, and again, by believe
// and expel, for as long as the connection is open.
func (l *Link) judge(c claim) error {
	ca, err := l.cfg.PeerCA()
	if err != nil {
		return fmt.Errorf("peer CA: %w", err)
	}
	kind, name, leaf, err := pki.VerifyPeer(ca, l.cfg.Cluster, c.chain, l.cfg.Now())
	if err != nil {
		return err
	}
	if c.server != "" && (kind != pki.Node || name != string(c.server)) {
		return fmt.Errorf("%w: wanted node %q and met %s %q", armor.ErrDenied, c.server, kind, name)
	}
	state, _ := l.cfg.Trust.Current()
	if kind == pki.Node {
		p := peer{node: armor.NodeID(name), key: leaf.Key}
		if p.lastWord(state) {
			leaf.Key = armor.Digest{} // that it is revoked is no news
		}
		err = l.judgeNode(state, p, c)
	} else if slices.Contains(forNodes, c.alpn) {
		err = fmt.Errorf("%w: %s %q is no node", armor.ErrDenied, kind, name)
	}
	if r, found := state.Revokes(leaf, []armor.Certificate{pki.AnchorFacts(ca)}); found {
		return fmt.Errorf("%w: certificate of %s %q, by revision %d", armor.ErrRevoked, kind, name, r.Revision)
	}
	return err
}

// peer is a node, as its certificate says.
type peer struct {
	node armor.NodeID
	key  armor.Digest
}

// lastWord reports whether a node has been removed and may still say, and be told, that
// it has to let go.
func (p peer) lastWord(state *armor.State) bool {
	t, removed := state.Tombstones.Get(string(p.node))
	return removed && !t.FormerKey.IsZero() && t.FormerKey == p.key
}

// judgeNode holds a node's certificate against the members. Who is none reaches the API,
// where it may ask whether it is fresh and nothing else, and speaks Raft only where that is
// known to be in order.
func (l *Link) judgeNode(state *armor.State, p peer, c claim) error {
	member, known := state.Members.Get(string(p.node))
	tombstone, removed := state.Tombstones.Get(string(p.node))
	switch {
	case known && member.Certificate.Key != p.key && !l.cfg.mistakes.ignoreKeys:
		return fmt.Errorf("%w: node %q is a member with another key: this one was replaced, or is not the one that was admitted",
			armor.ErrDenied, p.node)
	case known, c.server != "", !slices.Contains(forNodes, c.alpn):
		return nil
	case removed && (tombstone.FormerKey == p.key || tombstone.FormerKey.IsZero()):
		return fmt.Errorf("%w: node %q was removed", armor.ErrDenied, p.node)
	case !l.cfg.MaySpeak(p.node):
		return fmt.Errorf("%w: node %q is not a member", armor.ErrDenied, p.node)
	}
	return nil
}

// hosts are the sources of the members of one state.
type hosts struct {
	of  *armor.State
	all map[netip.Addr]bool
}

// isMember reports whether a member has said that it is at a source. Names are not
// looked up.
func (l *Link) isMember(source netip.Addr) bool {
	state, _ := l.cfg.Trust.Current()
	h := l.hosts.Load()
	if h == nil || h.of != state {
		h = &hosts{of: state, all: map[netip.Addr]bool{}}
		for m := range state.Members.Values() {
			if at, err := netip.ParseAddrPort(m.PeerAddress); err == nil {
				h.all[armor.SourceOf(at.Addr())] = true
			}
		}
		l.hosts.Store(h)
	}
	return h.all[source]
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
