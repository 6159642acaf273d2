package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// ServerConfig is what a Server is made of. Node and Peers are required, GossipKey
// only for ServeJoin.
type ServerConfig struct {
	Node  Node
	Peers *Peers
	// Known is closed once the node knows what the cluster knows, or need not be waited for any
	// longer: until then calls wait, since it would deny members and operators of whom it has
	// yet to read in its log. Nil: it knows from the start.
	Known <-chan struct{}
	// GossipKey returns the key that a node is given once it is admitted.
	GossipKey func() ([]byte, error)
	// Logger takes refused calls at info level and panics at error level.
	Logger *slog.Logger

	mistakes mistakes // planted by tests
}

// mistakes are what the mutants of tests do wrong. Nothing else sets them.
type mistakes struct {
	believeNodes bool // what a node passes on was ordered by an operator, or is the cluster's own
}

// Server is a node's API.
type Server struct {
	cfg     ServerConfig
	joining *joinLimits
	cancels *cancelLimits
	// warrants are those that this node has acted on.
	warrants *warrants
	saving   atomic.Bool // a state is being sent
}

// NewServer checks the configuration and starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Node == nil || cfg.Peers == nil {
		return nil, fmt.Errorf("%w: an API server needs a node and its peers", armor.ErrInvalid)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, joining: newJoinLimits(), cancels: newCancelLimits(), warrants: newWarrants(cfg.Node.WallClock())}, nil
}

// Serve answers operators and nodes on connections whose TLS handshake is over and
// whose certificate, if any, was verified; l hands out *tls.Conn. It returns when ctx
// or the listener has ended, and with it every call: calls in progress get two seconds
// to finish.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := newGRPC(s.cfg.Logger, s.authorize, grpc.Creds(handshaken{}))
	armorpb.RegisterOperatorAPIServer(server, &operatorService{server: s})
	armorpb.RegisterPeerAPIServer(server, &peerService{server: s})
	err := serve(ctx, server, func() error { return server.Serve(l) })
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

const (
	// askTimeout is how long one node may take to answer for itself.
	askTimeout = 2 * time.Second
	// catchUp is how long a call waits for this node to have applied a revision that
	// its caller has seen.
	catchUp = 2 * time.Second
)

// leader returns who leads, and whether it is this node. ErrNoQuorum when nobody does.
func (s *Server) leader() (leader armor.NodeID, here bool, err error) {
	leader, known := s.cfg.Node.Leader()
	if !known {
		return "", false, fmt.Errorf("%w: node %s knows of no leader", armor.ErrNoQuorum, s.cfg.Node.ID())
	}
	return leader, leader == s.cfg.Node.ID(), nil
}

// reached waits until this node has applied a revision, for catchUp at most, and
// reports whether it has.
func (s *Server) reached(ctx context.Context, revision uint64) (*armor.State, bool) {
	timer := time.NewTimer(catchUp)
	defer timer.Stop()
	for {
		state, superseded := s.cfg.Node.Current()
		if state.Revision >= revision {
			return state, true
		}
		select {
		case <-superseded:
		case <-timer.C:
			return state, false
		case <-ctx.Done():
			return state, false
		}
	}
}
