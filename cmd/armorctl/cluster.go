package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "what concerns the cluster as a whole", a.verifyCommand(), a.mendTimeCommand())
}

func (a *app) mendTimeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mend-time", Short: "take log time back out of the future, where it makes every change expired",
		Long: "Takes log time back to what a majority of the voters' clocks agrees on. It is for a cluster whose log time was carried " +
			"into the future: every change is refused as expired then, but for revocations. Set the clocks of the nodes and of this " +
			"machine right first. Join tokens that were made meanwhile end.",
		Example: "  armorctl cluster mend-time", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			return a.mendTime(cmd.Context(), client)
		},
	}
}

// mendedView is the answer of cluster mend-time.
type mendedView struct {
	From      string          `json:"from"`
	LogTime   string          `json:"logTime"` // as it is now: up to 15 minutes ahead
	Revision  uint64          `json:"revision"`
	RequestID armor.RequestID `json:"requestId"`
}

func (a *app) mendTime(ctx context.Context, client *rpc.Client) error {
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(reading, armor.Members)
	if err != nil {
		return err
	}
	if !state.Time.After(a.now().Add(armor.RequestWindow)) {
		return fault.Hinted(
			fmt.Errorf("%w: log time is %s, which is not fifteen minutes ahead of this machine's clock: there is nothing to mend",
				armor.ErrConflict, stamp(state.Time)),
			"armorctl status shows the nodes' clocks")
	}
	a.say("log time is %s (%s by this machine's clock)", stamp(state.Time), relative(state.Time, a.now()))
	if err := a.confirm(ctx, "mend"); err != nil {
		return err
	}
	ctx, cancel = a.within(ctx, patience)
	defer cancel()
	outcome, err := a.submit(ctx, client, armor.MendTime{From: state.Time}, rpc.SubmitOptions{})
	if err != nil {
		return err
	}
	v := mendedView{stamp(state.Time), stamp(outcome.Result.Time), outcome.Result.Revision, outcome.RequestID}
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"log time was", v.From}, [2]string{"log time is", v.LogTime},
		[2]string{"revision", fmt.Sprint(v.Revision)})}})
}
