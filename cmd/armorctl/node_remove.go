package main

import (
	"context"
	"fmt"
	"slices"
	"time"

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
			o.node = armor.NodeID(args[0])
			return a.removeNode(cmd.Context(), o)
		},
	}
	o.flags(cmd)
	return cmd
}

// removal is what is asked for.
type removal struct {
	node          armor.NodeID
	sharesSettled bool
	force         bool
}

func (r *removal) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.force, "force", false, "also when too few voters that answer are left")
	cmd.Flags().BoolVar(&r.sharesSettled, "shares-settled", false,
		"PostgreSQL has none of the node's server connections any more: nobody need look")
}

func (a *app) nodeReplaceCommand() *cobra.Command {
	var o removal
	var ttl string
	cmd := &cobra.Command{
		Use: "replace NODE", Short: "have another machine, or an empty disk, take a node's place and name",
		Long: `Takes a node out, as node remove does, and makes the token by which another may ask to join
under its name, in one commit. The former key is revoked and never let in again. The token
alone goes to stdout: put it into the file that join.tokenFile names, on a machine whose
dataDir is empty, and start it; armorctl node approve admits it once nothing is left of the
former node.`,
		Example: "  armorctl node replace n3 > n3.token", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			life, err := parsePositive("--ttl", ttl)
			if err != nil {
				return err
			}
			o.node = armor.NodeID(args[0])
			return a.replaceNode(cmd.Context(), o, life)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&ttl, "ttl", "1h", "how long the token is good, at most 7d")
	return cmd
}

func (a *app) removeNode(ctx context.Context, r removal) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := a.agreeToRemove(ctx, client, r, r.sharesSettled); err != nil {
		return err
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	outcome, err := a.submit(ctx, client, armor.RemoveMember{Node: r.node, SharesSettled: r.sharesSettled, Force: r.force}, rpc.SubmitOptions{})
	if err != nil {
		return err
	}
	return a.show(answer{data: viewOfChange(outcome),
		tables: []table{facts("", [2]string{"removed", string(r.node)}, [2]string{"revision", fmt.Sprint(outcome.Result.Revision)})}})
}

// replaceNode also invites a successor of one that was removed before.
func (a *app) replaceNode(ctx context.Context, r removal, life time.Duration) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	state, err := a.agreeToRemove(ctx, client, r, true)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	token := armor.JoinToken{Node: r.node, Voter: true}
	if m, found := state.Members.Get(string(r.node)); found {
		token.Voter = m.Voter
	}
	return a.issueToken(ctx, client, state, token, life, func(t armor.JoinToken) armor.Command {
		return armor.ReplaceMember{Node: r.node, SharesSettled: r.sharesSettled, Force: r.force, Token: t}
	})
}

// agreeToRemove lists what a removal will cut, and asks; again says that a node may have been
// removed before.
func (a *app) agreeToRemove(ctx context.Context, client *rpc.Client, r removal, again bool) (*armor.State, error) {
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(reading, armor.Members, armor.Shares, armor.Tombstones)
	if err != nil {
		return nil, err
	}
	if !state.Members.Has(string(r.node)) && !(again && state.Tombstones.Has(string(r.node))) {
		return nil, fault.Hinted(fmt.Errorf("%w: there is no node %q", armor.ErrNotFound, r.node), "armorctl node list")
	}
	sessions, err := client.Sessions(reading)
	if err != nil {
		return nil, err
	}
	a.sayRemoval(state, sessions, r)
	return state, a.confirm(ctx, string(r.node))
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
