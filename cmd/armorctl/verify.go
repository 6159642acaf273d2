package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "have every node recompute what it keeps, and compare",
		Long: `Every node computes its state anew from all of its rows and its history from its log, and reads each
log entry and snapshot against its checksum; then their histories at one revision are compared.
Nothing is changed. It takes some seconds for each million rows. Exit code 3 when something does not hold.`,
		Example: "  armorctl cluster verify", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			return a.verify(cmd.Context(), client)
		},
	}
}

// verificationView is what one node found.
type verificationView struct {
	Node      string   `json:"node"`
	Revision  uint64   `json:"revision"`
	History   string   `json:"history"`
	State     string   `json:"state"`
	Entries   int      `json:"entries"`
	Snapshots int      `json:"snapshots"`
	Problems  []string `json:"problems"`
}

func (a *app) verify(ctx context.Context, client *rpc.Client) error {
	all, err := client.Verify(ctx)
	if err != nil {
		return err
	}
	agreed := mostCommon(all)
	var views []verificationView
	t := table{columns: []string{"node", "revision", "history", "state", "log entries", "snapshots", "result"}}
	bad := 0
	for _, v := range all {
		view := verificationView{
			Node: string(v.Node), Revision: v.Mark.Revision, History: v.Mark.Chain.String(), State: v.Mark.State.String(),
			Entries: v.Entries, Snapshots: v.Snapshots, Problems: problemsOf(v, agreed),
		}
		result := "good"
		if len(view.Problems) > 0 {
			bad++
			result = strings.Join(view.Problems, "; ")
		}
		views = append(views, view)
		t.row(view.Node, fmt.Sprint(view.Revision), v.Mark.Chain.Short(), v.Mark.State.Short(), fmt.Sprint(v.Entries), fmt.Sprint(v.Snapshots), result)
	}
	if err := a.show(answer{data: views, tables: []table{t}}); err != nil {
		return err
	}
	if bad > 0 {
		return &verdict{exitProblems, fmt.Sprintf("what %d of %d nodes keep does not hold: see docs/operate.md, \"A node that ends for good\"", bad, len(all))}
	}
	return nil
}

// mostCommon is the mark that most nodes have.
func mostCommon(all []armor.Verification) (agreed armor.Mark) {
	counts := map[armor.Mark]int{}
	for _, v := range all {
		if !v.Mark.IsZero() {
			counts[v.Mark]++
		}
		if counts[v.Mark] > counts[agreed] {
			agreed = v.Mark
		}
	}
	return agreed
}

// problemsOf are what does not hold at a node.
func problemsOf(v armor.Verification, agreed armor.Mark) []string {
	problems := append([]string{}, v.Problems...)
	switch {
	case v.Unreachable != "":
		problems = append(problems, "not verified: "+v.Unreachable)
	case v.Mark.IsZero():
		problems = append(problems, fmt.Sprintf("not compared: it has not come to revision %d, or has forgotten it", agreed.Revision))
	case v.Mark != agreed:
		problems = append(problems, "its history is another than that of the other nodes")
	}
	return problems
}
