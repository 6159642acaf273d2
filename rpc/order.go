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
		q := toMessage[armorpb.PoolOrder](o)
		var err error
		if q.Warrant, err = c.warrant(ctx, armor.OrderWords(o)); err != nil {
			return err
		}
		reply, err := api.Order(ctx, q)
		if err == nil {
			results, err = fromMessages[OrderResult](reply.Nodes)
		}
		return err
	})
	return results, err
}

// Order passes an order on to every member, with the operator's warrant: no node acts on
// another's word.
func (o *operatorService) Order(ctx context.Context, q *armorpb.PoolOrder) (*armorpb.OrderReply, error) {
	if _, err := orderOf(q); err != nil {
		return nil, err
	}
	results := o.server.order(ctx, q)
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
func (s *Server) order(ctx context.Context, q *armorpb.PoolOrder) []OrderResult {
	results := []OrderResult{{Node: s.cfg.Node.ID()}}
	status, err := s.orderHere(q)
	results[0].Pool, results[0].Failure = status, failure(err)
	answers := askOthers(ctx, s, func(ctx context.Context, node armor.NodeID) (armor.PoolStatus, error) {
		return s.cfg.Peers.order(ctx, node, q)
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

// orderHere acts on this node, if an operator has signed the order.
func (s *Server) orderHere(q *armorpb.PoolOrder) (armor.PoolStatus, error) {
	order, err := orderOf(q)
	if err == nil {
		err = s.warranted(q.Warrant, armor.OrderWords(order))
	}
	if err != nil {
		return armor.PoolStatus{}, err
	}
	return s.cfg.Node.Order(order)
}

// Order acts on this node alone.
func (p *peerService) Order(_ context.Context, q *armorpb.PoolOrder) (*armorpb.PoolStatus, error) {
	status, err := p.server.orderHere(q)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.PoolStatus](status), nil
}

// order has a node act on one of its pools.
func (p *Peers) order(ctx context.Context, node armor.NodeID, q *armorpb.PoolOrder) (status armor.PoolStatus, err error) {
	err = p.call(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Order(ctx, q)
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
