package link

import (
	"bytes"
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
	met    pki.Peer     // who the chain was of when the connection was made; zero before
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
	state, _ := l.cfg.Trust.Current()
	who, err := l.identify(state, c.chain)
	if err != nil {
		if c.met.Kind != pki.Node || l.pin(state, armor.NodeID(c.met.Name)) != c.met.Leaf.Key {
			return err
		}
		who = c.met // a member, whose certificate was renewed and its CA retired since
	}
	if c.server != "" && (who.Kind != pki.Node || who.Name != string(c.server)) {
		return fmt.Errorf("%w: wanted node %q and met %s %q", armor.ErrDenied, c.server, who.Kind, who.Name)
	}
	leaf := who.Leaf
	if who.Kind == pki.Node {
		p := peer{node: armor.NodeID(who.Name), key: leaf.Key}
		if p.lastWord(state) {
			leaf.Key = armor.Digest{} // that it is revoked is no news
		}
		err = l.judgeNode(state, p, c)
	} else if slices.Contains(forNodes, c.alpn) {
		err = fmt.Errorf("%w: %s %q is no node", armor.ErrDenied, who.Kind, who.Name)
	}
	if r, found := state.Revokes(leaf, who.Above); found {
		return fmt.Errorf("%w: certificate of %s %q, by revision %d", armor.ErrRevoked, who.Kind, who.Name, r.Revision)
	}
	return err
}

// identify says who a chain is of. A member is known by the key: the end of its certificate is told
// to operators, and ends nothing.
func (l *Link) identify(state *armor.State, chain []*x509.Certificate) (pki.Peer, error) {
	cas, err := l.peerCAs(state)
	if err != nil {
		return pki.Peer{}, fmt.Errorf("peer CA: %w", err)
	}
	now := l.cfg.Now()
	who, err := pki.VerifyPeer(cas, l.cfg.Cluster, chain, now)
	if err == nil {
		return who, nil
	}
	known, never := pki.VerifyKnownPeer(cas, l.cfg.Cluster, chain, now)
	if never != nil || known.Kind != pki.Node || l.pin(state, armor.NodeID(known.Name)) != known.Leaf.Key {
		return pki.Peer{}, err
	}
	if !l.cfg.mistakes.endsCut {
		l.outlived(known)
		return known, nil
	}
	return pki.Peer{}, err
}

// pin is the key that a node is known by: the member's, or what was written down of it, as long as
// this node has just started and its state may lag behind.
func (l *Link) pin(state *armor.State, node armor.NodeID) armor.Digest {
	if m, ok := state.Members.Get(string(node)); ok || l.cfg.Pins == nil {
		return m.Certificate.Key
	}
	return l.cfg.Pins()[node]
}

// outlived tells, now and then, of a node whose certificate has ended.
func (l *Link) outlived(p pki.Peer) {
	if l.alarms.Allow() {
		l.cfg.Logger.Warn("the certificate of a node has ended: it is believed by its key", armor.KeyPeer, p.Name,
			armor.KeySerial, p.Leaf.ID.Serial, armor.KeyHint, "armorctl node renew "+p.Name+" --peer-ca DIR")
	}
}

// peerCAs are the CAs of nodes and operators: those of the state, and those of the configuration.
func (l *Link) peerCAs(state *armor.State) ([]*x509.Certificate, error) {
	others := l.cfg.PeerCAs()
	if state.Cluster.ID == "" {
		return others, nil
	}
	r := l.roots.Load()
	if r == nil || !slices.EqualFunc(r.of, state.Cluster.PeerCAs(), bytes.Equal) {
		r = &roots{of: state.Cluster.PeerCAs()}
		for _, der := range r.of {
			ca, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
			}
			r.all = append(r.all, ca)
		}
		l.roots.Store(r)
	}
	return append(slices.Clip(r.all), others...), nil
}

// roots are the peer CAs of a state, DER and parsed.
type roots struct {
	of  [][]byte
	all []*x509.Certificate
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
