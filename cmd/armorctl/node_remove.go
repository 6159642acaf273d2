package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) nodeRemoveCommand() *cobra.Command {
	var o removal
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "take a node out of the cluster",
		Long: `Takes a node out. Its sessions end once it learns of it, or when it has fenced itself. Its
share of the pools returns once it has said that its server connections are over; if it is
dead, once its lease is over and PostgreSQL was seen to have none of them any more. Where
PostgreSQL cannot be asked, or has connections that are not Armor's in the pool's roles,
--shares-settled is your word that there are none, also after the node was removed.`,
		Example: "  armorctl node remove n3", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			o.node = armor.NodeID(args[0])
			return a.removeNode(cmd.Context(), client, o)
		},
	}
	o.flags(cmd)
	return cmd
}

// removal is what is asked for.
type removal struct {
	node          armor.NodeID
	sharesSettled bool
}

func (r *removal) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.sharesSettled, "shares-settled", false,
		"PostgreSQL has none of the node's server connections any more: nobody need look")
}

func (a *app) removeNode(ctx context.Context, client *rpc.Client, r removal) error {
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(reading, armor.Members, armor.Shares, armor.Tombstones)
	if err != nil {
		return err
	}
	node := r.node
	if !state.Members.Has(string(node)) && !(r.sharesSettled && state.Tombstones.Has(string(node))) {
		return fault.Hinted(fmt.Errorf("%w: there is no node %q", armor.ErrNotFound, node), "armorctl node list")
	}
	sessions, err := client.Sessions(reading)
	if err != nil {
		return err
	}
	a.sayRemoval(state, sessions, r)
	if err := a.confirm(ctx, string(node)); err != nil {
		return err
	}
	ctx, cancel = a.within(ctx, patience)
	defer cancel()
	outcome, err := a.submit(ctx, client, armor.RemoveMember{Node: node, SharesSettled: r.sharesSettled}, rpc.SubmitOptions{})
	if err != nil {
		return err
	}
	return a.show(answer{data: viewOfChange(outcome),
		tables: []table{facts("", [2]string{"removed", string(node)}, [2]string{"revision", fmt.Sprint(outcome.Result.Revision)})}})
}

// sayRemoval lists what a node's removal will cut.
func (a *app) sayRemoval(s *armor.State, survey rpc.SessionSurvey, r removal) {
	node, sessions, granted := r.node, 0, 0
	for _, info := range survey.Sessions {
		if info.Node == node {
			sessions++
		}
	}
	for share := range s.Shares.Values() {
		if share.Node == node {
			granted += share.Granted
		}
	}
	known := fmt.Sprintf("%d client sessions", sessions)
	if slices.ContainsFunc(survey.Silent, func(n rpc.SilentNode) bool { return n.Node == node }) {
		known = "client sessions that cannot be counted, since it does not answer"
	}
	if r.sharesSettled {
		a.say("you say that PostgreSQL has none of the %d server connections that node %s may have: others get them once its lease is over", granted, node)
	}
	if !s.Members.Has(string(node)) {
		return // it was removed before
	}
	a.say("node %s has %s and holds %d server connections of the pools; its key is revoked with it", node, known, granted)
}
