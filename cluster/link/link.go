// Package link is the node-to-node port: one TCP port for every protocol between nodes,
// and from operators and joining nodes to nodes, told apart by ALPN.
//
// It knows certificates of the peer CA and the trust state, and no protocol: whoever
// asks Route for one reads and writes what is said in it. Nobody else knows the TLS of
// this port.
//
// Invariant: what Route delivers and Dial returns is TLS 1.3 whose other end has proved
// that it holds the key of a certificate that is valid now, unrevoked, and may speak
// that protocol; it is closed when that is revoked, and within a minute of its expiry.
// A member is who has the member's key, whatever other certificate carries its name, and also when
// the certificate has ended: that is said, and cuts nobody off. Only
// the join protocol admits a client that has no certificate.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

// Config is what a Link is made of. Certificate is asked on each handshake, so that
// it can be replaced while the node runs.
type Config struct {
	Cluster     string // name
	Node        armor.NodeID
	Address     string // to listen on, host:port; port 0 picks one
	Certificate func() (*tls.Certificate, error)
	// PeerCAs are CAs of nodes and operators that are believed beside those of the state, and Pins the
	// keys of nodes that are no members by it: what this node has in files, for as long as the
	// state may lag behind. Pins may be nil.
	PeerCAs func() []*x509.Certificate
	Pins    func() map[armor.NodeID]armor.Digest
	// Trust is the state in force: its members' addresses come before all others,
	// and its revocations hold for peers too.
	Trust armor.Trust
	// Seeds returns configured addresses, for as long as the state knows none that
	// work; Hint returns what gossip says. Either may be nil. A wrong address does no
	// harm: the connection is pinned to the node's identity.
	Seeds func() map[armor.NodeID]string
	Hint  func(armor.NodeID) (address string, ok bool)
	Now   func() time.Time // validity clock; nil: the wall clock
	// MaySpeak says whether a node that is no member, as far as is known here, may speak
	// Raft all the same: this node may have slept through its admission, or have joined just
	// now. Nil: none may.
	MaySpeak func(node armor.NodeID) bool
	// Logger takes refused peers at warn level.
	Logger *slog.Logger

	MaxHandshakes          int // connections whose peer is not yet proven; default 256, and as many of sources that are known
	MaxHandshakesPerSource int // of one address, or one /64 of IPv6; default 64

	mistakes mistakes // planted by tests
}

// mistakes are what the mutants of tests do wrong. Nothing else sets them.
type mistakes struct {
	door       door.Mistakes
	verifyOnce bool // a peer is not judged again once it is among the open connections
	ignoreKeys bool // whoever has a certificate with a member's name is that member
	endsCut    bool // the end of a member's certificate is the end of the member
}

// Link is the node-to-node port of one node. All methods may be called from any
// goroutine.
type Link struct {
	cfg      Config
	listener net.Listener
	door     *door.Door    // handshakes
	joiners  *door.Door    // who has no certificate yet, from its handshake to its end
	refusals *rate.Limiter // of log lines about strangers
	alarms   *rate.Limiter // of log lines about certificates that have ended
	hosts    atomic.Pointer[hosts]
	roots    atomic.Pointer[roots]
	closed   chan struct{} // when Run has ended

	mu     sync.Mutex // guards all below; held for map operations only
	ended  bool       // Run has ended: routes deliver nothing any more
	routes map[string]*route
	open   map[*trackedConn]*claim         // nil until the peer is proven
	guests map[armor.Digest][]*trackedConn // that came, by their certificate's key, the oldest first
}

const (
	handshakeTimeout = 5 * time.Second
	firstByte        = time.Second // how long a connection may say nothing

	maxJoiners          = 64
	maxJoinersPerSource = 16
	// maxPerKey bounds the connections that come with one certificate's key; the oldest goes.
	maxPerKey = 128
)

// Listen binds the port. Connections are accepted once Run runs.
func Listen(cfg Config) (*Link, error) {
	if _, err := armor.ParseNodeID(string(cfg.Node)); err != nil {
		return nil, err
	}
	if cfg.Certificate == nil || cfg.PeerCAs == nil || cfg.Trust == nil || cfg.Cluster == "" {
		return nil, fmt.Errorf("%w: a link needs the cluster's name, a certificate, a peer CA and the trust state", armor.ErrInvalid)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaySpeak == nil {
		cfg.MaySpeak = func(armor.NodeID) bool { return false }
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 256
	}
	if cfg.MaxHandshakesPerSource <= 0 {
		cfg.MaxHandshakesPerSource = 64
	}
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for nodes on %s: %w", cfg.Address, err)
	}
	l := &Link{
		cfg: cfg, listener: listener, closed: make(chan struct{}), refusals: rate.NewLimiter(10, 100),
		alarms: rate.NewLimiter(rate.Every(time.Minute), 2),
		routes: map[string]*route{}, open: map[*trackedConn]*claim{}, guests: map[armor.Digest][]*trackedConn{},
	}
	l.door = door.New(door.Config{
		Unproven: cfg.MaxHandshakes, PerSource: cfg.MaxHandshakesPerSource, Reserve: cfg.MaxHandshakes, FirstByte: firstByte,
		Member: l.isMember, Mistakes: cfg.mistakes.door,
	})
	l.joiners = door.New(door.Config{Unproven: maxJoiners, PerSource: maxJoinersPerSource, Mistakes: cfg.mistakes.door})
	return l, nil
}

// Unproven is what the doors have seen: of peers in their handshake, and of joining nodes.
func (l *Link) Unproven() (peers, joiners door.Counts) { return l.door.Counts(), l.joiners.Counts() }

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
	l.accept(ctx, &running)
	close(l.closed)
	l.closeAll()
	running.Wait()
	return nil
}
