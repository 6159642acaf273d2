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
		w, err := c.warrant(ctx, armor.DrainWords(node))
		if err == nil {
			_, err = api.Drain(ctx, &armorpb.DrainRequest{Node: string(node), Warrant: w})
		}
		return err
	})
}

// Drain passes the operator's warrant on to the node: see Order.
func (o *operatorService) Drain(ctx context.Context, q *armorpb.DrainRequest) (*armorpb.Empty, error) {
	state, _ := o.server.cfg.Node.Current()
	switch node := armor.NodeID(q.Node); {
	case node == o.server.cfg.Node.ID():
		return o.server.drainHere(q)
	case !state.Members.Has(q.Node):
		return nil, fmt.Errorf("%w: there is no node %.80q", armor.ErrNotFound, q.Node)
	default:
		if err := o.server.cfg.Peers.drain(ctx, q); err != nil {
			return nil, err
		}
	}
	return &armorpb.Empty{}, nil
}

// Drain ends this node, if an operator has signed that it shall.
func (p *peerService) Drain(_ context.Context, q *armorpb.DrainRequest) (*armorpb.Empty, error) {
	return p.server.drainHere(q)
}

func (s *Server) drainHere(q *armorpb.DrainRequest) (*armorpb.Empty, error) {
	if err := s.warranted(q.Warrant, armor.DrainWords(s.cfg.Node.ID())); err != nil {
		return nil, err
	}
	s.cfg.Node.Drain()
	return &armorpb.Empty{}, nil
}

func (p *Peers) drain(ctx context.Context, q *armorpb.DrainRequest) error {
	err := p.call(ctx, armor.NodeID(q.Node), func(api armorpb.PeerAPIClient) error {
		_, err := api.Drain(ctx, q)
		return err
	})
	if err != nil {
		return fmt.Errorf("drain node %s: %w", q.Node, err)
	}
	return nil
}
