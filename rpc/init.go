package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// initTimeout is how long a node may take to become the first of a cluster.
const initTimeout = time.Minute

// InitIdentity is what an uninitialised node says of itself.
type InitIdentity struct {
	Node    armor.NodeID
	Cluster string // name, from the node's configuration
	// Where the node will be reached, host:port each.
	PeerAddress, ClientAddress, OpsAddress string
	// CSR is the node's certificate request, PKCS #10 DER. Its key never leaves the
	// node.
	CSR []byte
}

// InitData makes a cluster of the one node.
type InitData struct {
	Chain     [][]byte // the node's certificate and its issuers, DER, leaf first
	GossipKey []byte   // 32 bytes
	// Bootstrap carries the peer CA in Cluster.PeerCA, DER.
	Bootstrap armor.Bootstrap
}

// Initializer is an uninitialised node. Initialize returns ErrConflict when the node
// belongs to a cluster by now.
type Initializer interface {
	// Identify says which node this is.
	Identify(ctx context.Context) (InitIdentity, error)
	// Initialize makes the node the first of a new cluster.
	Initialize(ctx context.Context, d InitData) error
	// Restore makes the node the first of a new era of the cluster whose saved state is read
	// from file, and unites the revocations with those in it.
	Restore(ctx context.Context, d RestoreData, revoked []armor.Revocation, file io.Reader) error
}

// ListenInit makes the admin socket: whoever may open the file, its owner alone, may
// initialise the node. A file that lies there already is replaced. The socket file is
// removed when the listener is closed.
func ListenInit(path string) (net.Listener, error) {
	// Made where nobody else can reach it, and moved once its mode is right.
	hidden, err := os.MkdirTemp(filepath.Dir(path), ".admin-")
	if err != nil {
		return nil, fmt.Errorf("make the admin socket: %w", err)
	}
	defer os.RemoveAll(hidden)
	made := filepath.Join(hidden, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("put the admin socket in place: %w", err)
	}
	return &socketListener{Listener: l, remove: sync.OnceValue(func() error { return os.Remove(path) })}, nil
}

// socketListener removes its file when it is closed.
type socketListener struct {
	net.Listener
	remove func() error
}

func (l *socketListener) Close() error {
	if err := l.remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, l.Listener.Close())
	}
	return l.Listener.Close()
}

// ServeInit answers on the admin socket until ctx or the listener ends. A call in
// progress gets two seconds to finish.
func ServeInit(ctx context.Context, l net.Listener, node Initializer, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	anyone := func(context.Context, string) error { return nil } // the file's mode has decided
	server := newGRPC(logger, anyone, grpc.Creds(insecure.NewCredentials()))
	armorpb.RegisterInitAPIServer(server, &initService{node: node})
	err := serve(ctx, server, func() error { return server.Serve(l) })
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve the admin socket: %w", err)
	}
	return nil
}

type initService struct {
	armorpb.UnimplementedInitAPIServer
	node Initializer
}

// Identify says who the node is.
func (s *initService) Identify(ctx context.Context, _ *armorpb.Empty) (*armorpb.InitIdentity, error) {
	who, err := s.node.Identify(ctx)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.InitIdentity](who), nil
}

// Initialize makes the node the first of a cluster.
func (s *initService) Initialize(ctx context.Context, q *armorpb.InitData) (*armorpb.Empty, error) {
	d, err := fromMessage[InitData](q)
	if err != nil {
		return nil, err
	}
	return &armorpb.Empty{}, s.node.Initialize(ctx, d)
}

// InitClient speaks to an uninitialised node over its admin socket.
type InitClient struct{ line *line }

// OpenInit names the socket; it connects with the first call.
func OpenInit(socket string) (*InitClient, error) {
	if socket == "" {
		return nil, fmt.Errorf("%w: no admin socket is named", armor.ErrInvalid)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}
	return &InitClient{line: newLine(socket, nearConnect, insecure.NewCredentials(), dial)}, nil
}

// Close ends the connection.
func (c *InitClient) Close() error {
	c.line.close()
	return nil
}

// Identify asks who the node is. ErrUnavailable when nobody answers at the socket: the
// node does not run, or belongs to a cluster already.
func (c *InitClient) Identify(ctx context.Context) (who InitIdentity, err error) {
	err = c.call(ctx, func(ctx context.Context, api armorpb.InitAPIClient) error {
		reply, err := api.Identify(ctx, &armorpb.Empty{})
		if err == nil {
			who, err = fromMessage[InitIdentity](reply)
		}
		return err
	})
	return who, err
}

// Initialize makes the node the first of a new cluster; it returns once the cluster
// has a leader and its first state. It is ErrConflict when the node has been
// initialised, and ErrUncertain when the answer was lost: Identify then tells.
func (c *InitClient) Initialize(ctx context.Context, d InitData) error {
	err := c.call(ctx, func(ctx context.Context, api armorpb.InitAPIClient) error {
		_, err := api.Initialize(ctx, toMessage[armorpb.InitData](d))
		return err
	})
	if mayHaveRun(err) {
		return fmt.Errorf("%w: initialise the node: %v", armor.ErrUncertain, err)
	}
	return err
}

func (c *InitClient) call(ctx context.Context, do func(context.Context, armorpb.InitAPIClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	return c.line.use(ctx, func(conn grpc.ClientConnInterface) error {
		return do(ctx, armorpb.NewInitAPIClient(conn))
	})
}
