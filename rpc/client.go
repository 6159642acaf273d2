package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// DefaultTimeout is how long one node may take over one call before the next node is
// asked.
const DefaultTimeout = 10 * time.Second

// ClientConfig is how an operator reaches a cluster.
type ClientConfig struct {
	// Addresses are peer addresses of nodes, host:port. Any one will do; the others, and
	// those of all members once one has answered, are for when it does not answer.
	Addresses []string
	// Cluster is the cluster's name; nodes of another cluster are refused.
	Cluster string
	// ClusterID is what requests are signed for. Empty: it is asked for once.
	ClusterID string
	// Certificate is the operator's, with its P-256 key, which also signs requests.
	Certificate tls.Certificate
	PeerCA      *x509.Certificate
	// Timeout bounds one attempt at one node; the caller's ctx bounds them all. Zero:
	// DefaultTimeout.
	Timeout time.Duration
	// Now is the clock; nil: the wall clock.
	Now func() time.Time
}

// Client speaks to a cluster as one operator. It is safe for concurrent use. Any node
// serves any call; when one does not answer, the next is asked, for as long as the
// caller's ctx lasts. Errors wrap the sentinels of package armor: ErrUnavailable when
// no node answered, context.DeadlineExceeded beside it when ctx ended first.
type Client struct {
	cfg      ClientConfig
	operator string
	key      *ecdsa.PrivateKey

	mu        sync.Mutex // guards all below; never held during a call
	lines     []*line    // one an address; those of the configuration first, and never fewer
	members   []string   // where the members said to be, as it was read last
	first     int        // index of the address that answered last
	clusterID string     // empty until it is known
	seen      uint64     // revision of the latest change of our own
	logTime   time.Time  // as it was read last
}

// Open checks the configuration. It connects with the first call, not now. It returns
// ErrInvalid for a certificate that is not an operator's of the cluster.
func Open(cfg ClientConfig) (*Client, error) {
	if len(cfg.Addresses) == 0 || cfg.Cluster == "" || cfg.PeerCA == nil {
		return nil, fmt.Errorf("%w: a client needs addresses, the cluster's name and its peer CA", armor.ErrInvalid)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	operator, err := operatorOf(cfg)
	if err != nil {
		return nil, err
	}
	key, ok := cfg.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key of operator %q is not an ECDSA P-256 key", armor.ErrInvalid, operator)
	}
	c := &Client{cfg: cfg, operator: operator, key: key, clusterID: cfg.ClusterID}
	for _, address := range cfg.Addresses {
		c.addLineLocked(address) // nobody else has c yet
	}
	return c, nil
}

func (c *Client) addLineLocked(address string) {
	dial := func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, address) }
	c.lines = append(c.lines, newLine(address, farConnect, handshaken{}, dial))
}

// maxLines bounds the addresses that are tried: a node's word adds to them.
const maxLines = 64

// learn takes the members' addresses from an answer. Who is met there must prove to be a
// node, as everybody else.
func (c *Client) learn(members []string) {
	if len(members) == 0 {
		return // of a node that is no member yet, or another table
	}
	members = members[:min(len(members), maxLines)]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = members
	for _, address := range members {
		known := slices.ContainsFunc(c.lines, func(l *line) bool { return l.to == address })
		if !known && len(c.lines) < maxLines {
			c.addLineLocked(address)
		}
	}
}

// Members are the peer addresses of the cluster's members as the last answer had them; nil
// before the first one that did.
func (c *Client) Members() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

func (c *Client) allLines() []*line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines)
}

// operatorOf reads the operator's name from its certificate.
func operatorOf(cfg ClientConfig) (string, error) {
	if len(cfg.Certificate.Certificate) == 0 {
		return "", fmt.Errorf("%w: a client needs an operator's certificate", armor.ErrInvalid)
	}
	leaf, err := x509.ParseCertificate(cfg.Certificate.Certificate[0])
	if err != nil {
		return "", fmt.Errorf("%w: operator certificate: %w", armor.ErrInvalid, err)
	}
	id, err := pki.URIIdentity(leaf)
	if err != nil {
		return "", fmt.Errorf("%w: operator certificate: %w", armor.ErrInvalid, err)
	}
	_, kind, name, err := pki.ParsePeerIdentity(id)
	if err != nil {
		return "", err
	}
	if kind != pki.Operator || id != pki.OperatorIdentity(cfg.Cluster, name) {
		return "", fmt.Errorf("%w: %q is not an operator of cluster %q", armor.ErrInvalid, id, cfg.Cluster)
	}
	return name, nil
}

// Close ends all connections. Calls in progress fail.
func (c *Client) Close() error {
	for _, l := range c.allLines() {
		l.close()
	}
	return nil
}

// Operator is the name in the client's certificate: the principal of its requests.
func (c *Client) Operator() string { return c.operator }

// Certificate is the operator's, with its key.
func (c *Client) Certificate() tls.Certificate { return c.cfg.Certificate }

// PeerCA is the CA that signs the cluster's nodes and operators.
func (c *Client) PeerCA() *x509.Certificate { return c.cfg.PeerCA }

// dial connects to one address and proves both ends.
func (c *Client) dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{c.cfg.Certificate},
		NextProtos:             []string{ALPN},
		InsecureSkipVerify:     true, // names in certificates are SPIFFE IDs: VerifyConnection checks more than host names
		VerifyConnection:       c.verifyNode,
	}}
	return dialer.DialContext(ctx, "tcp", address)
}

// NodeCertificate returns the certificate that a node shows at a peer address. It is ErrDenied
// when another one is there, and ErrUnavailable when nobody answers.
func (c *Client) NodeCertificate(ctx context.Context, node armor.NodeID, address string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, err := c.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%w: node %s at %s: %w", armor.ErrUnavailable, node, address, err)
	}
	defer conn.Close()
	is, err := c.nodeAt(conn)
	if err == nil && is != node {
		err = fmt.Errorf("%w: at %s is node %s, and not %s", armor.ErrDenied, address, is, node)
	}
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// nodeAt is which node a connection leads to, as its certificate has proved.
func (c *Client) nodeAt(conn net.Conn) (armor.NodeID, error) {
	return c.nodeIn(conn.(*tls.Conn).ConnectionState().PeerCertificates)
}

// nodeIn is the node whose certificate a chain is.
func (c *Client) nodeIn(chain []*x509.Certificate) (armor.NodeID, error) {
	kind, name, _, err := pki.VerifyPeer(c.cfg.PeerCA, c.cfg.Cluster, chain, c.cfg.Now())
	if err == nil && kind != pki.Node {
		err = fmt.Errorf("%w: met %s %q instead of a node", armor.ErrDenied, kind, name)
	}
	return armor.NodeID(name), err
}

func (c *Client) verifyNode(state tls.ConnectionState) error {
	_, err := c.nodeIn(state.PeerCertificates)
	return err
}
