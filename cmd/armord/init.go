package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"log/slog"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/rpc"
)

// founding is the making of a cluster by its first node. It is written down before
// anything is made, so that a node that was stopped in the middle finishes it at its
// next start.
type founding struct {
	data rpc.InitData
	// restored says that the node has a state already, one that was saved: nothing is to be made.
	restored bool
	// conclude tells whoever asked how it went, and ends the admin socket.
	conclude func(error)
}

func (c home) foundingFile() string { return filepath.Join(c.DataDir, "peer", "founding.json") }

// begunFounding returns the founding that an earlier start did not finish, or nil.
func (c home) begunFounding() (*founding, error) {
	text, err := os.ReadFile(c.foundingFile())
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the founding that was begun: %w", err)
	}
	f := &founding{conclude: func(error) {}}
	if err := json.Unmarshal(text, &f.data); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", armor.ErrInvalid, c.foundingFile(), err)
	}
	return f, c.settle(f.data)
}

// settle writes down what a founding makes of this node.
func (c home) settle(d rpc.InitData) error {
	b := d.Bootstrap
	if b.Member.ID != armor.NodeID(c.Node) || b.Cluster.Name != c.Cluster {
		return fmt.Errorf("%w: this is node %s of cluster %s, not %s of %s", armor.ErrInvalid, c.Node, c.Cluster, b.Member.ID, b.Cluster.Name)
	}
	cas, err := parseCertificates(b.Cluster.PeerCAs())
	if err != nil {
		return fmt.Errorf("peer CA: %w", err)
	}
	return c.writeAdmission(admission{
		membership: membership{ClusterID: b.Cluster.ID}, chain: d.Chain, peerCAs: cas, gossipKey: d.GossipKey,
	})
}

// awaitInit waits until an operator makes this node the first of a cluster, by
// `armorctl init` over the admin socket. It calls waiting once that can be asked.
func (c home) awaitInit(ctx context.Context, waiting func(), log *slog.Logger) (*founding, error) {
	i, err := newInitializer(c)
	if err != nil {
		return nil, err
	}
	socket, err := rpc.ListenInit(c.AdminSocket)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- rpc.ServeInit(serving, socket, i, log) }()
	end := func() error {
		stop()
		return <-ended
	}
	log.Info("waiting to be initialised", armor.KeyAddress, c.AdminSocket)
	waiting()
	select {
	case f := <-i.asked:
		f.conclude = func(err error) {
			i.answer <- err
			if err := end(); err != nil {
				log.Warn("the admin socket did not end well", armor.KeyErr, err)
			}
		}
		return f, nil
	case err := <-ended:
		stop()
		return nil, err
	case <-ctx.Done():
		return nil, end()
	}
}

// initializer is this node while it belongs to no cluster (rpc.Initializer).
type initializer struct {
	cfg    home
	csr    []byte
	turn   chan struct{} // one caller at a time; never given back after a success
	asked  chan *founding
	answer chan error
}

var _ rpc.Initializer = (*initializer)(nil)

func newInitializer(c home) (*initializer, error) {
	key, err := c.nodeKey()
	if err != nil {
		return nil, err
	}
	csr, err := c.request(key)
	if err != nil {
		return nil, err
	}
	return &initializer{
		cfg: c, csr: csr, turn: make(chan struct{}, 1), asked: make(chan *founding), answer: make(chan error, 1),
	}, nil
}

// Identify says who the node is and what its certificate should be made for.
func (i *initializer) Identify(context.Context) (rpc.InitIdentity, error) {
	c := i.cfg
	return rpc.InitIdentity{
		Node: armor.NodeID(c.Node), Cluster: c.Cluster, CSR: i.csr,
		PeerAddress: c.Peer.Advertise, ClientAddress: c.Client.Advertise, OpsAddress: c.Ops.Advertise,
	}, nil
}

// Initialize makes the node the first of a cluster and returns once that cluster has
// its first state.
func (i *initializer) Initialize(ctx context.Context, d rpc.InitData) error {
	return i.begin(ctx, &founding{data: d}, func() error { return i.write(d) })
}

// begin has the node go on with a founding once it has been prepared so that the next start would
// finish it, and waits until it is done.
func (i *initializer) begin(ctx context.Context, f *founding, prepare func() error) error {
	select {
	case i.turn <- struct{}{}:
	default:
		return fmt.Errorf("%w: this node is being initialised", armor.ErrConflict)
	}
	if err := prepare(); err != nil {
		<-i.turn
		return err
	}
	select {
	case i.asked <- f:
	case <-ctx.Done():
		return fmt.Errorf("%w: the node is ending, and finishes at its next start: %w", armor.ErrUncertain, context.Cause(ctx))
	}
	select {
	case err := <-i.answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: the node goes on: %w", armor.ErrUncertain, context.Cause(ctx))
	}
}

// write makes the founding one that will be finished.
func (i *initializer) write(d rpc.InitData) error {
	if err := i.cfg.settle(d); err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return file.Replace(i.cfg.foundingFile(), text, 0o600)
}

// found carries a founding out. It may be repeated.
func (n *node) found(ctx context.Context, f *founding) error {
	if f.restored {
		err := n.awaitState(ctx)
		f.conclude(err)
		return err
	}
	err := n.cluster.Bootstrap(ctx, f.data.Bootstrap)
	if state, _ := n.cluster.Current(); err != nil && state.Cluster.ID == f.data.Bootstrap.Cluster.ID {
		err = nil // an earlier start had come this far
	}
	if err == nil {
		err = file.Remove(n.cfg.foundingFile())
	}
	f.conclude(err)
	if err != nil {
		return fmt.Errorf("make a cluster of this node: %w", err)
	}
	return nil
}
