package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

func (a *app) revocationCommand() *cobra.Command {
	return group("revocation", "what has been revoked; revoke adds to it", a.revocationListCommand(),
		a.revocationExportCommand(), a.revocationImportCommand())
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

// revocationFilter is which revocations revocation list shows.
type revocationFilter struct {
	kind, reason, by string
	part             part
}

func (a *app) revocationListCommand() *cobra.Command {
	var f revocationFilter
	cmd := &cobra.Command{
		Use: "list", Short: "list the revocations, the latest first",
		Example: "  armorctl revocation list --by ada --limit 50", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.revocationList(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.kind, "kind", "", "only those of a `kind`: certificate, key, identity or issuer")
	fl.StringVar(&f.reason, "reason", "", "only those with a `reason`")
	fl.StringVar(&f.by, "by", "", "only those of an `operator`")
	partFlags(cmd, &f.part)
	return cmd
}

func (a *app) revocationList(ctx context.Context, f revocationFilter) error {
	if err := f.check(); err != nil {
		return err
	}
	views := []revocationView{}
	t := table{columns: []string{"revoked", "reason", "when", "by"}, wide: []string{"revision", "comment"}, empty: "nothing is revoked"}
	next, err := f.pages(ctx, a, func(s *armor.State) {
		for _, r := range latestFirst(s) {
			if !f.keeps(r) {
				continue // of a node of an earlier release, which sends all
			}
			v := revocationView{
				Kind: r.Selector.Kind, Selector: r.Selector.String(), Reason: r.Reason, Comment: r.Comment,
				At: stamp(r.At), By: r.By, Revision: r.Revision,
			}
			views = append(views, v)
			t.row(v.Selector, string(v.Reason), relative(r.At, a.now()), v.By, fmt.Sprint(v.Revision), v.Comment)
		}
	})
	if err != nil {
		return err
	}
	a.sayNext(next)
	return a.show(answer{data: views, tables: []table{t}})
}

func (f revocationFilter) check() error {
	if f.kind != "" {
		kinds := []armor.SelectorKind{armor.SelectCertificate, armor.SelectKey, armor.SelectIdentity, armor.SelectIssuer}
		if !slices.Contains(kinds, armor.SelectorKind(f.kind)) {
			return &fault.Usage{Err: fmt.Errorf("--kind %q is not one of certificate, key, identity, issuer", f.kind)}
		}
	}
	if f.reason == "" {
		return nil
	}
	_, err := armor.ParseRevocationReason(f.reason)
	return err
}

func (f revocationFilter) keeps(r armor.Revocation) bool {
	return (f.kind == "" || string(r.Selector.Kind) == f.kind) &&
		(f.reason == "" || string(r.Reason) == f.reason) && (f.by == "" || r.By == f.by)
}

// pages asks for one page after another. A node walks all revocations for a page, so that a
// whole list is taken in large ones.
func (f revocationFilter) pages(ctx context.Context, a *app, take func(*armor.State)) (next string, err error) {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	page := armor.RevocationPage{Kind: armor.SelectorKind(f.kind), Reason: armor.RevocationReason(f.reason), By: f.by}
	return f.part.turn(func(limit int, after string) (int, string, error) {
		if page.Limit, page.After = limit, after; f.part.limit == 0 {
			page.Limit = armor.MaxPage
		}
		s, next, err := client.Ask(ctx, armor.Question{RevocationPage: page}, armor.Revoked)
		if err != nil {
			return 0, "", err
		}
		take(s)
		return s.Revocations.Len(), next, nil
	})
}

func latestFirst(s *armor.State) []armor.Revocation {
	return slices.SortedStableFunc(s.Revocations.Values(), func(a, b armor.Revocation) int {
		return cmp.Compare(b.Revision, a.Revision)
	})
}
