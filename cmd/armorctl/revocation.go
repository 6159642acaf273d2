package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
)

func (a *app) revocationCommand() *cobra.Command {
	return group("revocation", "what has been revoked; revoke adds to it", a.revocationListCommand())
}

// revocationView is a revocation as -o json shows it.
type revocationView struct {
	Kind     armor.SelectorKind     `json:"kind"`
	Selector string                 `json:"selector"`
	Reason   armor.RevocationReason `json:"reason"`
	Comment  string                 `json:"comment,omitempty"`
	At       string                 `json:"at"`
	By       string                 `json:"by"`
	Revision uint64                 `json:"revision"`
}

func (a *app) revocationListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the revocations, the latest first", Example: "  armorctl revocation list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := a.fetch(cmd.Context(), armor.Revoked)
			if err != nil {
				return err
			}
			views := []revocationView{}
			t := table{columns: []string{"revoked", "reason", "when", "by"}, wide: []string{"revision", "comment"}, empty: "nothing is revoked"}
			for _, r := range latestFirst(state) {
				v := revocationView{
					Kind: r.Selector.Kind, Selector: r.Selector.String(), Reason: r.Reason, Comment: r.Comment,
					At: stamp(r.At), By: r.By, Revision: r.Revision,
				}
				views = append(views, v)
				t.row(v.Selector, string(v.Reason), relative(r.At, a.now()), v.By, fmt.Sprint(v.Revision), v.Comment)
			}
			return a.show(answer{data: views, tables: []table{t}})
		},
	}
}

func latestFirst(s *armor.State) []armor.Revocation {
	return slices.SortedStableFunc(s.Revocations.Values(), func(a, b armor.Revocation) int {
		return cmp.Compare(b.Revision, a.Revision)
	})
}
