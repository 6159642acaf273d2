package rpc

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// joinPoll is how often a joiner asks whether it was admitted; it is an operator's
// decision.
const joinPoll = time.Second

// JoinDial connects to a node's peer address as one that has no certificate. The
// handshake is over when it returns; verify was given the chain that the node showed,
// leaf first, and its error ended the handshake.
type JoinDial func(ctx context.Context, address string, verify func(chain []*x509.Certificate) error) (*tls.Conn, error)

// JoinConfig is what a node needs to ask for admission.
type JoinConfig struct {
	Addresses []string // peer addresses of members, host:port, tried in order
	Token     JoinToken
	// Key is the node's key, and CSR the request made with it: the same bytes at each
	// start, since a request that was filed is recognised by them.
	Key crypto.Signer
	CSR []byte
	// Where the node can be reached, host:port each; the last two may be empty.
	PeerAddress, ClientAddress, OpsAddress string
	Dial                                   JoinDial
	Now                                    func() time.Time // nil: the wall clock
	Logger                                 *slog.Logger
}

// Voter is a member that a new node can find the cluster by.
type Voter struct {
	ID          armor.NodeID
	PeerAddress string
}

// Admission is what an admitted node is given.
type Admission struct {
	Chain       [][]byte // its certificate and the issuers, DER, leaf first
	ClusterID   string
	ClusterName string
	PeerCAs     []*x509.Certificate
	GossipKey   []byte
	Voters      []Voter
}

// Join asks to be admitted and waits, for as long as ctx lasts, until an operator has
// approved. The token's secret is told only to a node whose certificate was signed by
// the peer CA that the token pins. Nodes that do not answer are passed over and tried
// again. It returns ErrDenied when the token is not good for this node, ErrConflict
// when the node id or address is taken, and ErrInvalid for what cannot be filed.
func Join(ctx context.Context, cfg JoinConfig) (Admission, error) {
	if len(cfg.Addresses) == 0 || cfg.Dial == nil || cfg.Key == nil {
		return Admission{}, fmt.Errorf("%w: joining needs addresses, a way to dial them and the node's key", armor.ErrInvalid)
	}
	if err := checkCSR(cfg.CSR); err != nil {
		return Admission{}, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for {
		var last, refused error
		for _, address := range cfg.Addresses {
			admission, err := joinAt(ctx, cfg, address)
			if err == nil {
				return admission, nil
			}
			last = err
			if !elsewhere(err) && !errors.Is(err, armor.ErrExhausted) {
				refused = err // by a node that may lag behind: the others are asked too
			}
			cfg.Logger.Warn("cannot join here", armor.KeyAddress, address, armor.KeyErr, err)
		}
		if refused != nil {
			return Admission{}, refused
		}
		if !sleep(ctx, joinPoll) {
			return Admission{}, fmt.Errorf("join cluster %s: %w: %w", cfg.Token.Cluster, last, ctx.Err())
		}
	}
}

// joinAt asks one node, on one connection, until it answers or the connection breaks.
func joinAt(ctx context.Context, cfg JoinConfig, address string) (Admission, error) {
	var chain []*x509.Certificate
	var conn *tls.Conn
	l := newLine(address, farConnect, handshaken{}, func(ctx context.Context) (net.Conn, error) {
		var err error
		conn, err = cfg.Dial(ctx, address, func(shown []*x509.Certificate) error {
			chain = shown
			return nil
		})
		if err != nil {
			return nil, err
		}
		return conn, nil
	})
	defer l.close()
	var admission Admission
	err := l.use(ctx, func(c grpc.ClientConnInterface) error {
		api := armorpb.NewJoinAPIClient(c)
		if err := cfg.meet(ctx, api, chain); err != nil {
			return err
		}
		if err := cfg.file(ctx, api); err != nil {
			return err
		}
		var err error
		admission, err = cfg.awaitApproval(ctx, api, conn)
		return err
	})
	return admission, err
}

// meet makes sure that the node belongs to the cluster of the token. Until then it is
// told nothing.
func (cfg JoinConfig) meet(ctx context.Context, api armorpb.JoinAPIClient, chain []*x509.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	introduction, err := api.Introduce(ctx, &armorpb.Empty{})
	if err != nil {
		return fromStatus(err)
	}
	cas, err := cfg.peerCAs(armor.Cluster{
		PeerCA: introduction.PeerCa, NextPeerCA: introduction.NextPeerCa, Endorsement: introduction.Endorsement,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", armor.ErrUnavailable, err)
	}
	return cfg.checkNode(cas, chain)
}

// peerCAs are the peer CAs that a node shows and the token vouches for: the one that it pins, and one
// that this one has endorsed.
func (cfg JoinConfig) peerCAs(c armor.Cluster) ([]*x509.Certificate, error) {
	ca, err := x509.ParseCertificate(c.PeerCA)
	if err != nil {
		return nil, fmt.Errorf("the node shows no peer CA: %w", err)
	}
	if pki.SPKI(ca) != cfg.Token.Pin {
		return nil, errors.New("the node's peer CA is not the one that the join token pins")
	}
	cas := []*x509.Certificate{ca}
	c.Name = cfg.Token.Cluster
	if next, ok := pki.Endorsed(cas, c); ok {
		cas = append(cas, next)
	}
	return cas, nil
}

func (cfg JoinConfig) checkNode(cas, chain []*x509.Certificate) error {
	met, err := pki.VerifyPeer(cas, cfg.Token.Cluster, chain, cfg.Now())
	if err != nil {
		return fmt.Errorf("%w: the node's certificate: %v", armor.ErrUnavailable, err)
	}
	if met.Kind != pki.Node {
		return fmt.Errorf("%w: met %s %q instead of a node", armor.ErrUnavailable, met.Kind, met.Name)
	}
	return nil
}

func (cfg JoinConfig) file(ctx context.Context, api armorpb.JoinAPIClient) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	_, err := api.File(ctx, &armorpb.JoinFiling{
		Secret: cfg.Token.Secret[:], Node: string(cfg.Token.Node), Csr: cfg.CSR,
		PeerAddress: cfg.PeerAddress, ClientAddress: cfg.ClientAddress, OpsAddress: cfg.OpsAddress,
	})
	return fromStatus(err)
}

// awaitApproval asks until an operator has decided. A node that lags behind the leader
// may not know yet that this one has asked.
func (cfg JoinConfig) awaitApproval(ctx context.Context, api armorpb.JoinAPIClient, conn *tls.Conn) (Admission, error) {
	digest, err := joinProof(caller{conn: conn}, cfg.Token.Node)
	if err != nil {
		return Admission{}, err
	}
	proof, err := cfg.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return Admission{}, fmt.Errorf("prove the node's key: %w", err)
	}
	for unknown := 0; ; {
		answer, err := cfg.ask(ctx, api, proof)
		switch {
		case errors.Is(err, armor.ErrDenied) && unknown < 3:
			unknown++
		case err != nil:
			return Admission{}, err
		case answer.Approved:
			return cfg.admitted(answer)
		}
		if !sleep(ctx, joinPoll) {
			return Admission{}, fmt.Errorf("%w: waiting for an operator to approve node %s: %w", armor.ErrUnavailable, cfg.Token.Node, ctx.Err())
		}
	}
}

func (cfg JoinConfig) ask(ctx context.Context, api armorpb.JoinAPIClient, proof []byte) (*armorpb.JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	answer, err := api.Result(ctx, &armorpb.JoinQuestion{Node: string(cfg.Token.Node), Proof: proof})
	return answer, fromStatus(err)
}

// admitted reads an admission and holds it against the token.
func (cfg JoinConfig) admitted(m *armorpb.JoinAnswer) (Admission, error) {
	a := Admission{Chain: m.Chain, ClusterID: m.ClusterId, ClusterName: m.ClusterName, GossipKey: m.GossipKey}
	for _, v := range m.Voters {
		a.Voters = append(a.Voters, Voter{ID: armor.NodeID(v.Id), PeerAddress: v.PeerAddress})
	}
	var err error
	if a.PeerCAs, err = cfg.peerCAs(armor.Cluster{PeerCA: m.PeerCa, NextPeerCA: m.NextPeerCa, Endorsement: m.Endorsement}); err != nil {
		return a, fmt.Errorf("%w: what is handed out: %w", armor.ErrDenied, err)
	}
	return cfg.check(a)
}

// check makes sure that the certificate is this node's own, for its own key.
func (cfg JoinConfig) check(a Admission) (Admission, error) {
	var chain []*x509.Certificate
	for _, der := range a.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return a, fmt.Errorf("%w: the certificate handed out: %w", armor.ErrInvalid, err)
		}
		chain = append(chain, cert)
	}
	given, err := pki.VerifyPeer(a.PeerCAs, cfg.Token.Cluster, chain, cfg.Now())
	if err != nil {
		return a, fmt.Errorf("the certificate handed out: %w", err)
	}
	own, err := pki.ParseCSR(cfg.CSR)
	if err != nil {
		return a, err
	}
	if given.Kind != pki.Node || given.Name != string(cfg.Token.Node) || given.Leaf.Key != sha256.Sum256(own.RawSubjectPublicKeyInfo) {
		return a, fmt.Errorf("%w: the certificate handed out is not for the key of node %s", armor.ErrDenied, cfg.Token.Node)
	}
	return a, nil
}
