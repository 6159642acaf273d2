package rpc

import (
	"context"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// Drain has a node end as SIGTERM does: it takes no new clients, lets those that are there
// finish what they are in, and exits. It returns when the node has begun to; asking again
// is safe. The error is ErrNotFound for a node that is no member.
func (c *Client) Drain(ctx context.Context, node armor.NodeID) error {
	return c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		_, err := api.Drain(ctx, &armorpb.DrainRequest{Node: string(node)})
		return err
	})
}

// Drain passes the wish on to the node, which believes this one: see Order.
func (o *operatorService) Drain(ctx context.Context, q *armorpb.DrainRequest) (*armorpb.Empty, error) {
	state, _ := o.server.cfg.Node.Current()
	switch node := armor.NodeID(q.Node); {
	case node == o.server.cfg.Node.ID():
		o.server.cfg.Node.Drain()
	case !state.Members.Has(q.Node):
		return nil, fmt.Errorf("%w: there is no node %.80q", armor.ErrNotFound, q.Node)
	default:
		if err := o.server.cfg.Peers.drain(ctx, node); err != nil {
			return nil, err
		}
	}
	return &armorpb.Empty{}, nil
}

// Drain ends this node.
func (p *peerService) Drain(context.Context, *armorpb.Empty) (*armorpb.Empty, error) {
	p.server.cfg.Node.Drain()
	return &armorpb.Empty{}, nil
}

func (p *Peers) drain(ctx context.Context, node armor.NodeID) error {
	err := p.call(ctx, node, func(api armorpb.PeerAPIClient) error {
		_, err := api.Drain(ctx, &armorpb.Empty{})
		return err
	})
	if err != nil {
		return fmt.Errorf("drain node %s: %w", node, err)
	}
	return nil
}
