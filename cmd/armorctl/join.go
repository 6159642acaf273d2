package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) joinTokenCommand() *cobra.Command {
	return group("join-token", "tokens by which new nodes ask to join", a.joinTokenCreateCommand())
}

func (a *app) joinTokenCreateCommand() *cobra.Command {
	var ttl string
	var voter bool
	cmd := &cobra.Command{
		Use: "create NODE", Short: "make a token that lets one node ask to join, once",
		Long: `Makes a token for a node of that name. The token alone goes to stdout: put it into
the file that the node's join.tokenFile names. The node asks, and armorctl node
approve admits it.`,
		Example: "  armorctl join-token create n2 > n2.token", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := armor.ParseNodeID(args[0])
			if err != nil {
				return err
			}
			life, err := parsePositive("--ttl", ttl)
			if err != nil {
				return err
			}
			return a.createJoinToken(cmd.Context(), armor.JoinToken{Node: node, Voter: voter}, life)
		},
	}
	cmd.Flags().StringVar(&ttl, "ttl", "1h", "how long the token is good, at most 7d")
	cmd.Flags().BoolVar(&voter, "voter", true, "the node shall vote")
	return cmd
}

// tokenView is the answer of join-token create.
type tokenView struct {
	Token   string       `json:"token"`
	Node    armor.NodeID `json:"node"`
	Voter   bool         `json:"voter"`
	Expires string       `json:"expires"`
}

func (a *app) createJoinToken(ctx context.Context, t armor.JoinToken, life time.Duration) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	state, err := client.State(ctx, armor.Members)
	if err != nil {
		return err
	}
	if state.Members.Has(string(t.Node)) {
		return fault.Hinted(fmt.Errorf("%w: node %s is a member", armor.ErrConflict, t.Node),
			"if its machine is lost, or has lost its disk: armorctl node replace %s", t.Node)
	}
	return a.issueToken(ctx, client, state, t, life, func(t armor.JoinToken) armor.Command { return armor.CreateJoinToken{Token: t} })
}

// issueToken makes a token, has the command committed that holds its digest, and shows it.
func (a *app) issueToken(ctx context.Context, client *rpc.Client, state *armor.State, t armor.JoinToken, life time.Duration,
	with func(armor.JoinToken) armor.Command) error {
	ca, err := x509.ParseCertificate(state.Cluster.PeerCA)
	if err != nil {
		return fmt.Errorf("%w: peer CA of the cluster: %w", armor.ErrInvalid, err)
	}
	token := rpc.NewJoinToken(state.Cluster.Name, t.Node, ca)
	t.Hash, t.Expires = token.Hash(), a.now().Add(life).UTC().Truncate(time.Second)
	if _, err := a.submit(ctx, client, with(t), rpc.SubmitOptions{}); err != nil {
		return madeAnew(err)
	}
	a.say("good for node %s until %s\nnext: armorctl node approve %s --peer-ca DIR, once the node has asked", t.Node, stamp(t.Expires), t.Node)
	if a.globals.output == formatJSON || a.globals.output == formatYAML {
		return a.show(answer{data: tokenView{token.Text(), t.Node, t.Voter, stamp(t.Expires)}})
	}
	return a.showText(token.Text() + "\n")
}
