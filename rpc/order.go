package rpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// OrderResult is what one node did about an order.
type OrderResult struct {
	Node    armor.NodeID
	Pool    armor.PoolStatus // as it was left
	Failure string           // why the node did not do it; empty when it did
}

// Order has every node act on a pool. A node that does not answer may have done so or
// not; giving the same order again is safe.
func (c *Client) Order(ctx context.Context, o armor.PoolOrder) ([]OrderResult, error) {
	var results []OrderResult
	err := c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Order(ctx, toMessage[armorpb.PoolOrder](o))
		if err == nil {
			results, err = fromMessages[OrderResult](reply.Nodes)
		}
		return err
	})
	return results, err
}

// Order passes an order on to every member. The nodes believe this one, as they do for
// all that is asked of a node and changes no state: see DESIGN.md.
func (o *operatorService) Order(ctx context.Context, q *armorpb.PoolOrder) (*armorpb.OrderReply, error) {
	order, err := orderOf(q)
	if err != nil {
		return nil, err
	}
	results := o.server.order(ctx, order)
	return &armorpb.OrderReply{Nodes: toMessages[armorpb.OrderResult](results)}, nil
}

func orderOf(q *armorpb.PoolOrder) (armor.PoolOrder, error) {
	order, err := fromMessage[armor.PoolOrder](q)
	if err != nil {
		return order, err
	}
	return order, order.Validate()
}

// order has this node and all others act, in the order of their ids.
func (s *Server) order(ctx context.Context, order armor.PoolOrder) []OrderResult {
	results := []OrderResult{{Node: s.cfg.Node.ID()}}
	status, err := s.cfg.Node.Order(order)
	results[0].Pool, results[0].Failure = status, failure(err)
	answers := askOthers(ctx, s, func(ctx context.Context, node armor.NodeID) (armor.PoolStatus, error) {
		return s.cfg.Peers.order(ctx, node, order)
	})
	for _, a := range answers {
		results = append(results, OrderResult{Node: a.node, Pool: a.answer, Failure: failure(a.err)})
	}
	slices.SortFunc(results, func(a, b OrderResult) int { return cmp.Compare(a.Node, b.Node) })
	return results
}

func failure(err error) string {
	if err == nil {
		return ""
	}
	return why(err)
}

// Order acts on this node alone.
func (p *peerService) Order(_ context.Context, q *armorpb.PoolOrder) (*armorpb.PoolStatus, error) {
	order, err := orderOf(q)
	if err != nil {
		return nil, err
	}
	status, err := p.server.cfg.Node.Order(order)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.PoolStatus](status), nil
}

// order has a node act on one of its pools.
func (p *Peers) order(ctx context.Context, node armor.NodeID, o armor.PoolOrder) (status armor.PoolStatus, err error) {
	err = p.call(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Order(ctx, toMessage[armorpb.PoolOrder](o))
		if err == nil {
			status, err = fromMessage[armor.PoolStatus](reply)
		}
		return err
	})
	if err != nil {
		return status, fmt.Errorf("order to node %s: %w", node, err)
	}
	return status, nil
}
