package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster/link"
	"github.com/armordb/armordb/rpc"
)

// join asks a member to be admitted, waits until an operator has approved, and writes
// down what the node was given.
func (c home) join(ctx context.Context, log *slog.Logger) error {
	token, err := c.joinToken()
	if err != nil {
		return err
	}
	if err := c.preflight(log); err != nil {
		return fmt.Errorf("before asking to join: %w", err)
	}
	key, err := c.nodeKey()
	if err != nil {
		return err
	}
	csr, err := c.request(key)
	if err != nil {
		return err
	}
	log.Info("asking to join; an operator approves it with armorctl node approve")
	a, err := rpc.Join(ctx, rpc.JoinConfig{
		Addresses: c.Join.Addresses, Token: token, Key: key, CSR: csr,
		PeerAddress: c.Peer.Advertise, ClientAddress: c.Client.Advertise, OpsAddress: c.Ops.Advertise,
		Dial: link.DialJoin, Logger: log,
	})
	if errors.Is(err, armor.ErrDenied) {
		return fmt.Errorf("join cluster %s: %w; if node %s was a member and this machine has lost its disk: armorctl node replace %s makes a new token",
			c.Cluster, err, c.Node, c.Node)
	}
	if err != nil {
		return fmt.Errorf("join cluster %s: %w", c.Cluster, err)
	}
	seeds := map[armor.NodeID]string{}
	for _, v := range a.Voters {
		seeds[v.ID] = v.PeerAddress
	}
	return c.writeAdmission(admission{
		membership: membership{ClusterID: a.ClusterID, Seeds: seeds}, chain: a.Chain, peerCAs: a.PeerCAs, gossipKey: a.GossipKey,
	})
}

// joinToken reads the token and sees that it is for this node.
func (c home) joinToken() (rpc.JoinToken, error) {
	text, err := os.ReadFile(c.Join.TokenFile)
	if err != nil {
		return rpc.JoinToken{}, fmt.Errorf("read the join token: %w", err)
	}
	token, err := rpc.ParseJoinToken(string(text))
	if err != nil {
		return token, fmt.Errorf("%s: %w", c.Join.TokenFile, err)
	}
	if token.Node != armor.NodeID(c.Node) || token.Cluster != c.Cluster {
		return token, fmt.Errorf("%w: %s holds a token for node %s of cluster %s, and this is %s of %s", armor.ErrInvalid, c.Join.TokenFile,
			token.Node, token.Cluster, c.Node, c.Cluster)
	}
	return token, nil
}
