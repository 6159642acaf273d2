package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// drainPatience is how long node drain waits for the node's end: longer than a node lets
// its clients finish what they are in.
const drainPatience = time.Minute

func (a *app) nodeDrainCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "have a node send its clients away, and end",
		Long: `Ends a node as SIGTERM does: it stops being ready, takes no new clients once load balancers
had time to notice (drain.delay of its armord.yaml), closes each that is there when it is between
two transactions, cuts those that are not after 15 s, and exits.
It stays a member: start it again to have it back. Needs the role node-admin.`,
		Example: "  armorctl node drain n2", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			return a.drainNode(cmd.Context(), client, armor.NodeID(args[0]), detach)
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for the node's end")
	return cmd
}

// drainView is the answer of node drain.
type drainView struct {
	Node     armor.NodeID `json:"node"`
	Sessions int          `json:"sessions"` // when it began
	Ended    bool         `json:"ended"`
}

func (a *app) drainNode(ctx context.Context, client *rpc.Client, node armor.NodeID, detach bool) error {
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	status, err := liveNode(reading, client, node)
	if err != nil {
		return err
	}
	a.say("node %s has %d client sessions", node, status.Sessions)
	if err := a.confirm(ctx, string(node)); err != nil {
		return err
	}
	ctx, cancel = a.within(ctx, drainPatience)
	defer cancel()
	if err := client.Drain(ctx, node); err != nil {
		return err
	}
	v := drainView{Node: node, Sessions: status.Sessions}
	if !detach {
		v.Ended = awaitEnd(ctx, client, status)
	}
	if err := a.show(answer{data: v, tables: []table{facts("", [2]string{"draining", string(node)},
		[2]string{"ended", yesNo(v.Ended)})}}); err != nil {
		return err
	}
	if !detach && !v.Ended {
		return &verdict{exitUnconfirmed, fmt.Sprintf("node %s has begun to drain and has not ended yet", node)}
	}
	return nil
}

// liveNode finds a node that answers.
func liveNode(ctx context.Context, client *rpc.Client, node armor.NodeID) (armor.NodeStatus, error) {
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return armor.NodeStatus{}, err
	}
	for _, n := range nodes {
		switch {
		case n.Node != node:
		case n.Unreachable != "":
			return n, fmt.Errorf("%w: node %s does not answer: %s", armor.ErrUnavailable, node, n.Unreachable)
		default:
			return n, nil
		}
	}
	return armor.NodeStatus{}, fault.Hinted(fmt.Errorf("%w: there is no node %q", armor.ErrNotFound, node), "armorctl node list")
}

// awaitEnd waits until others say that the node is gone, or back again: whoever watches
// over it may have started it anew. It reports false if ctx ends before.
func awaitEnd(ctx context.Context, client *rpc.Client, before armor.NodeStatus) bool {
	for {
		if !pauseFor(ctx, settlePause) {
			return false
		}
		nodes, err := client.Nodes(ctx)
		if err != nil {
			continue // it may be the one that we have asked
		}
		for _, n := range nodes {
			if n.Node == before.Node && (n.Unreachable != "" || !n.StartedAt.Equal(before.StartedAt)) {
				return true
			}
		}
	}
}
