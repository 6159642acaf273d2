package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// ALPNJoin is the protocol of nodes that have no certificate yet.
const ALPNJoin = "armor-join/1"

const (
	maxJoinMessage = 64 << 10
	maxJoinAge     = 10 * time.Minute // of one connection
)

// errToken is the one answer to every token that is not good, and to every question
// about a node that has not asked: a stranger learns nothing from it.
var errToken = fmt.Errorf("%w: the join token is not good for this node, was used, or is over: ask an operator for a new one",
	armor.ErrDenied)

// ServeJoin answers nodes that have no certificate yet. l hands out *tls.Conn whose
// handshake is over and whose client showed no certificate; how many there may be is the
// listener's part. It returns as Serve does.
func (s *Server) ServeJoin(ctx context.Context, l net.Listener) error {
	if s.cfg.GossipKey == nil {
		return fmt.Errorf("%w: serving joiners needs the gossip key", armor.ErrInvalid)
	}
	server := newGRPC(s.cfg.Logger, s.joining.admit,
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(maxJoinMessage),
		grpc.MaxConcurrentStreams(2),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: time.Minute, MaxConnectionAge: maxJoinAge, MaxConnectionAgeGrace: time.Second,
		}),
	)
	armorpb.RegisterJoinAPIServer(server, &joinService{server: s})
	err := serve(ctx, server, func() error { return server.Serve(l) })
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve joining nodes: %w", err)
	}
	return nil
}

// joinService answers strangers. Nothing that it returns is a secret until the asker
// has proved to be who was admitted.
type joinService struct {
	armorpb.UnimplementedJoinAPIServer
	server *Server
}

// Introduce shows the peer CA.
func (j *joinService) Introduce(context.Context, *armorpb.Empty) (*armorpb.Introduction, error) {
	state, _ := j.server.cfg.Node.Current()
	if state.Cluster.ID == "" {
		return nil, errNoState
	}
	c := state.Cluster
	return &armorpb.Introduction{PeerCa: c.PeerCA, NextPeerCa: c.NextPeerCA, Endorsement: c.Endorsement}, nil
}

// File spends the token and files the certificate request, through the leader.
func (j *joinService) File(ctx context.Context, q *armorpb.JoinFiling) (*armorpb.Empty, error) {
	s := j.server
	state, _ := s.cfg.Node.Current()
	if err := checkFiling(state, q); err != nil {
		return nil, err
	}
	leader, here, err := s.leader()
	switch {
	case err != nil:
	case here:
		err = s.fileHere(ctx, q)
	default:
		err = s.cfg.Peers.fileJoin(ctx, leader, q)
	}
	return &armorpb.Empty{}, err
}

// checkFiling holds a request to join against the state: the token is good for this
// node, or was spent by this very request.
func checkFiling(state *armor.State, q *armorpb.JoinFiling) error {
	if state.Cluster.ID == "" {
		return errNoState
	}
	node, err := armor.ParseNodeID(q.Node)
	if err != nil || len(q.Secret) != len(JoinToken{}.Secret) {
		return errToken
	}
	token, ok := state.Tokens.Get(hashSecret(q.Secret).String())
	good := ok && token.Node == node && !token.Expires.Before(state.Time)
	if !good && !isFiled(state, q) {
		return errToken
	}
	return checkCSR(q.Csr)
}

// isFiled reports whether this very certificate request waits for an operator already,
// or was approved.
func isFiled(state *armor.State, q *armorpb.JoinFiling) bool {
	filed, ok := state.Joins.Get(q.Node)
	return ok && bytes.Equal(filed.CSR, q.Csr)
}

// checkCSR refuses a certificate request whose holder could not ask for the outcome.
func checkCSR(der []byte) error {
	csr, err := pki.ParseCSR(der)
	if err != nil {
		return err
	}
	if _, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok {
		return fmt.Errorf("%w: the key of a node is an ECDSA key", armor.ErrInvalid)
	}
	return nil
}

// fileHere is the leader's half: it sees the secret itself, so that a node which knows
// only the token's hash files nothing.
func (s *Server) fileHere(ctx context.Context, q *armorpb.JoinFiling) error {
	state, _ := s.cfg.Node.Current()
	if err := checkFiling(state, q); err != nil || isFiled(state, q) {
		return err
	}
	_, err := s.cfg.Node.ProposeOwn(ctx, armor.RequestJoin{
		Token: hashSecret(q.Secret),
		Request: armor.JoinRequest{
			Node: armor.NodeID(q.Node), CSR: q.Csr,
			PeerAddress: q.PeerAddress, ClientAddress: q.ClientAddress, OpsAddress: q.OpsAddress,
		},
	})
	if errors.Is(err, armor.ErrDenied) || errors.Is(err, armor.ErrExpired) {
		return errToken
	}
	return err
}

// Result is what became of a request to join. The asker proves that it holds the key
// of the certificate request, on this very connection: the token is spent by now, and
// the answer holds the gossip key.
func (j *joinService) Result(ctx context.Context, q *armorpb.JoinQuestion) (*armorpb.JoinAnswer, error) {
	state, _ := j.server.cfg.Node.Current()
	request, ok := state.Joins.Get(q.Node)
	if !ok || !proves(ctx, request, q) {
		return nil, errToken
	}
	if len(request.Chain) == 0 {
		return &armorpb.JoinAnswer{}, nil
	}
	key, err := j.server.cfg.GossipKey()
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	answer := &armorpb.JoinAnswer{
		Approved: true, Chain: request.Chain, GossipKey: key,
		ClusterId: state.Cluster.ID, ClusterName: state.Cluster.Name, PeerCa: state.Cluster.PeerCA,
		NextPeerCa: state.Cluster.NextPeerCA, Endorsement: state.Cluster.Endorsement,
	}
	for m := range state.Members.Values() {
		if m.Voter {
			answer.Voters = append(answer.Voters, &armorpb.Voter{Id: string(m.ID), PeerAddress: m.PeerAddress})
		}
	}
	return answer, nil
}

func proves(ctx context.Context, request armor.JoinRequest, q *armorpb.JoinQuestion) bool {
	csr, err := pki.ParseCSR(request.CSR)
	if err != nil {
		return false
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	p, connected := peer.FromContext(ctx)
	if !ok || !connected {
		return false
	}
	who, ok := p.AuthInfo.(caller)
	if !ok {
		return false
	}
	digest, err := joinProof(who, request.Node)
	return err == nil && ecdsa.VerifyASN1(key, digest[:], q.Proof)
}

// joinProof is what a joiner signs: it holds for one TLS connection (RFC 8446 §7.5)
// and one node.
func joinProof(who caller, node armor.NodeID) (armor.Digest, error) {
	if who.conn == nil {
		return armor.Digest{}, fmt.Errorf("%w: joining needs TLS", armor.ErrDenied)
	}
	state := who.conn.ConnectionState()
	bound, err := state.ExportKeyingMaterial("EXPERIMENTAL armor join", []byte(node), 32)
	if err != nil {
		return armor.Digest{}, fmt.Errorf("bind the proof to the connection: %w", err)
	}
	return sha256.Sum256(append([]byte("armor join result v1\x00"), bound...)), nil
}
