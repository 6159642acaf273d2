package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// The protocols of the node-to-node port.
const (
	ALPNRaft = "armor-raft/1"
	ALPNGRPC = "h2"
	// ALPNJoin is for a node that has no certificate yet. Nothing else may come
	// without one.
	ALPNJoin = "armor-join/1"
)

const (
	handshakeTimeout    = 5 * time.Second
	handshakeConcurrent = 128 // a slot is taken before accept
)

// LinkConfig is what a Link is made of. Certificate and PeerCA are asked on each
// handshake, so that both can be replaced while the node runs.
type LinkConfig struct {
	Cluster     string // name
	Node        armor.NodeID
	Address     string // to listen on, host:port; port 0 picks one
	Certificate func() (*tls.Certificate, error)
	PeerCA      func() (*x509.Certificate, error)
	// Trust is the state in force: its members' addresses come before all others,
	// and its revocations hold for peers too.
	Trust armor.Trust
	// Seeds returns configured addresses, for as long as the state knows none that
	// work; Hint returns what gossip says. Either may be nil. A wrong address does no
	// harm: the connection is pinned to the node's identity.
	Seeds func() map[armor.NodeID]string
	Hint  func(armor.NodeID) (address string, ok bool)
	Now   func() time.Time // validity clock; nil: the wall clock
	// Logger takes refused peers at warn level.
	Logger *slog.Logger
}

// Link is the node-to-node port: TLS 1.3 with certificates of the peer CA on both
// sides, and one port for all protocols, told apart by ALPN.
type Link struct {
	cfg      LinkConfig
	listener net.Listener
	slots    chan struct{}
	closed   chan struct{} // when Run has ended

	mu     sync.Mutex // guards all below; held for map operations only
	ended  bool       // Run has ended: routes deliver nothing any more
	routes map[string]*route
	open   map[*trackedConn]*x509.Certificate // nil until the peer is proven
}

// NodeIdentity is the certificate identity of a node of the named cluster.
func NodeIdentity(cluster string, node armor.NodeID) armor.Identity {
	return pki.NodeIdentity(cluster, node)
}

// Listen binds the port. Connections are accepted once Run runs.
func Listen(cfg LinkConfig) (*Link, error) {
	if _, err := armor.ParseNodeID(string(cfg.Node)); err != nil {
		return nil, err
	}
	if cfg.Certificate == nil || cfg.PeerCA == nil || cfg.Trust == nil || cfg.Cluster == "" {
		return nil, fmt.Errorf("%w: a link needs the cluster's name, a certificate, a peer CA and the trust state", armor.ErrInvalid)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for nodes on %s: %w", cfg.Address, err)
	}
	return &Link{
		cfg: cfg, listener: listener, slots: make(chan struct{}, handshakeConcurrent), closed: make(chan struct{}),
		routes: map[string]*route{}, open: map[*trackedConn]*x509.Certificate{},
	}, nil
}

// Addr is the address bound.
func (l *Link) Addr() net.Addr { return l.listener.Addr() }

// Run accepts connections until ctx ends. It also closes connections whose peer's
// certificate is revoked or expires meanwhile. When it returns, every connection
// accepted or dialed is closed and every goroutine has ended.
func (l *Link) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { l.expel(ctx) })
	running.Go(func() {
		<-ctx.Done()
		l.listener.Close()
	})
	err := l.accept(ctx, &running)
	close(l.closed)
	l.closeAll()
	running.Wait()
	return err
}

func (l *Link) accept(ctx context.Context, running *sync.WaitGroup) error {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		raw, err := l.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if raw != nil {
				raw.Close()
			}
			return nil
		case err != nil:
			<-l.slots
			l.cfg.Logger.Warn("cannot accept a node's connection", armor.KeyErr, err)
			if !sleep(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		running.Go(func() {
			l.handshake(ctx, raw)
			<-l.slots
		})
	}
}

// handshake proves who came and hands the connection to its protocol's listener.
func (l *Link) handshake(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tracked := l.track(raw)
	conn := tls.Server(tracked, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient:     l.serverConfig,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		l.cfg.Logger.Warn("refused a node's connection", armor.KeySource, raw.RemoteAddr().String(), armor.KeyErr, err)
		tracked.Close()
		return
	}
	state := conn.ConnectionState()
	l.proven(tracked, state)
	if r := l.routeOf(state.NegotiatedProtocol); r == nil || !r.deliver(ctx, conn) {
		conn.Close()
	}
}

// serverConfig answers one hello. A client that speaks nothing but the join protocol
// may come without a certificate, and reaches nothing else.
func (l *Link) serverConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	certificate, err := l.cfg.Certificate()
	if err != nil {
		return nil, fmt.Errorf("certificate of this node: %w", err)
	}
	cfg := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{*certificate},
	}
	if joins(hello.SupportedProtos) {
		cfg.NextProtos = []string{ALPNJoin}
		return cfg, nil
	}
	cfg.NextProtos = []string{ALPNRaft, ALPNGRPC}
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = l.verifyClient
	return cfg, nil
}

func joins(protocols []string) bool {
	return len(protocols) > 0 && !slices.ContainsFunc(protocols, func(p string) bool { return p != ALPNJoin })
}

func (l *Link) verifyClient(state tls.ConnectionState) error {
	if state.NegotiatedProtocol == "" {
		return fmt.Errorf("%w: names no protocol of ours", armor.ErrDenied)
	}
	kind, name, err := l.verify(state.PeerCertificates)
	if err == nil && kind != pki.Node && state.NegotiatedProtocol == ALPNRaft {
		return fmt.Errorf("%w: %s %q is no node", armor.ErrDenied, kind, name)
	}
	return err
}

// verify says who presented the chain, or why nobody is believed to have.
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
	certificate, err := l.cfg.Certificate()
	if err != nil {
		return nil, fmt.Errorf("certificate of this node: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tracked := l.track(raw)
	conn := tls.Client(tracked, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{*certificate},
		NextProtos:             []string{alpn},
		InsecureSkipVerify:     true, // names in certificates are SPIFFE IDs: VerifyConnection checks more than host names
		VerifyConnection:       func(state tls.ConnectionState) error { return l.verifyServer(state, node, alpn) },
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		tracked.Close()
		return nil, err
	}
	l.proven(tracked, conn.ConnectionState())
	return conn, nil
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

// expel closes connections of peers that are not to be believed any more, at each new
// revision and once a minute for certificates that expire.
func (l *Link) expel(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
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

// route is one protocol's listener.
type route struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

// Route returns the listener of one protocol: it accepts *tls.Conn whose handshake is
// over and whose peer is proven. Each protocol has one listener; until it is asked
// for, connections of that protocol are closed.
func (l *Link) Route(alpn string) net.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.routes[alpn]
	if r == nil {
		r = &route{addr: l.listener.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
		l.routes[alpn] = r
		if l.ended {
			r.Close()
		}
	}
	return r
}

func (l *Link) routeOf(alpn string) *route {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routes[alpn]
}

func (r *route) deliver(ctx context.Context, c net.Conn) bool {
	select {
	case r.conns <- c:
		return true
	case <-r.done:
		return false
	case <-ctx.Done():
		return false
	}
}

func (r *route) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

func (r *route) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

func (r *route) Addr() net.Addr { return r.addr }

// DialJoin connects to a node's port as one that has no certificate yet. verify is
// given the chain that the node presented, leaf first, and must hold it against what
// the invitation pinned.
func DialJoin(ctx context.Context, address string, verify func(chain []*x509.Certificate) error) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{ALPNJoin},
		InsecureSkipVerify:     true, // verify does it
		VerifyConnection:       func(state tls.ConnectionState) error { return verify(state.PeerCertificates) },
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial %s to join: %w", address, err)
	}
	return conn.(*tls.Conn), nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
