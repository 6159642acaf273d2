package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// unionOptions are the flags of revocation import.
type unionOptions struct {
	comment, wait string
	force, dryRun bool
}

func (a *app) revocationImportCommand() *cobra.Command {
	var o unionOptions
	cmd := &cobra.Command{
		Use: "import FILE", Short: "revoke what a file of revocation export has and the cluster has not",
		Long: `Unites the cluster's revocations with those of a file: what is missing is revoked, one
commit for each reason, and nothing that is revoked is touched. Running it again does
nothing. It takes access away only, so that the role revoker is enough. The new
revocations are dated now and are the importing operator's; the comment names the file's
cluster.

An identity that was emptied because a key of it was out is emptied as of now: this cluster
does not know which certificates the file's cluster had registered since. Issue those anew.`,
		Example: "  armorctl revocation import revoked.jsonl --dry-run\n  armorctl revocation import revoked.jsonl",
		Args:    exactly("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.revocationImport(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.comment, "comment", "", "a remark for other operators, instead of where the revocations come from")
	f.BoolVar(&o.force, "force", false, "also when the file is of another cluster")
	f.BoolVar(&o.dryRun, "dry-run", false, "have the leader judge it, list what would be cut, and revoke nothing")
	f.StringVar(&o.wait, "wait", string(rpc.WaitAll),
		"return when `all` nodes enforce it, when the leader has it, or at once: all, leader, none")
	return cmd
}

// unionView is the answer of revocation import.
type unionView struct {
	File        string       `json:"file"`
	Cluster     string       `json:"cluster"` // the file's
	ClusterID   string       `json:"clusterId"`
	Revocations int          `json:"revocations"` // in the file
	Present     int          `json:"present"`     // of them: the cluster had them, or wider ones
	Missing     int          `json:"missing"`
	DryRun      bool         `json:"dryRun"`
	Commits     []unionsView `json:"commits"`
}

// unionsView is one of its commits.
type unionsView struct {
	Reason   armor.RevocationReason `json:"reason"`
	Count    int                    `json:"count"`
	Sessions int                    `json:"sessions"` // live ones that it would cut, as the preview had it
	Result   *changeView            `json:"result,omitempty"`
}

func (a *app) revocationImport(ctx context.Context, path string, o unionOptions) error {
	wait, err := waitFlag(o.wait)
	if err != nil {
		return err
	}
	if a.globals.requestID != "" {
		return fault.Hinted(&fault.Usage{Err: errors.New("revocation import takes no --request-id")},
			"run it again: it sends only what is missing")
	}
	head, all, err := revocationsIn(path)
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	reading, cancel := a.within(ctx, savePatience)
	defer cancel()
	state, err := client.State(reading, armor.Revoked, armor.Environments)
	if err != nil {
		return err
	}
	if ours := state.Cluster; head.ClusterID != ours.ID && !o.force {
		return fault.Hinted(fmt.Errorf("%w: %s is of cluster %s (%s), and this is %s (%s)", armor.ErrConflict, path,
			head.Cluster, head.ClusterID, ours.Name, ours.ID), "--force, if the clusters trust the same CAs")
	}
	v := unionView{
		File: path, Cluster: head.Cluster, ClusterID: head.ClusterID, Revocations: len(all), DryRun: o.dryRun, Commits: []unionsView{},
	}
	u := missingOf(state, all, emptiedAt(a.now()))
	comment := fmt.Sprintf("imported from cluster %s (%s), revision %d", head.Cluster, head.ClusterID, head.Revision)
	var revocations []revocation
	for _, command := range u.commands(cmp.Or(o.comment, comment)) {
		revocations = append(revocations, revocation{command: command, state: state, wait: wait})
		v.Missing += len(command.Selectors)
	}
	v.Present = v.Revocations - v.Missing
	a.say("%d revocations in %s; the cluster lacks %d of them", v.Revocations, path, v.Missing)
	if u.emptied > 0 {
		a.say("%d identities whose keys were out are emptied as of now: issue their certificates anew", u.emptied)
	}
	return a.unite(ctx, client, v, revocations)
}

// unite makes the commits, each of which is whole, or says what they would be.
func (a *app) unite(ctx context.Context, client *rpc.Client, v unionView, revocations []revocation) error {
	for _, r := range revocations {
		looking, cancel := a.within(ctx, patience+stagingPatience(r.command))
		cut, err := a.foresee(looking, client, r, v.DryRun)
		cancel()
		if err != nil {
			return err
		}
		v.Commits = append(v.Commits, unionsView{Reason: r.command.Reason, Count: len(r.command.Selectors), Sessions: cut})
	}
	if v.DryRun || len(revocations) == 0 {
		return a.show(answer{data: v, tables: v.tables()})
	}
	if err := a.confirm(ctx, "revoke"); err != nil {
		return err
	}
	var open error
	for i, r := range revocations {
		outcome, err := a.submitWatched(ctx, client, r)
		if err != nil && !errors.Is(err, armor.ErrUnconfirmed) {
			return fault.Hinted(fmt.Errorf("%d of %d commits are made; %s: %w", i, len(revocations), r.command.Reason, err),
				"run it again: it sends only what is missing")
		}
		result := viewOfChange(outcome)
		v.Commits[i].Result = &result
		open = cmp.Or(open, err, unconfirmed(outcome.Enforcement))
	}
	if err := a.show(answer{data: v, tables: v.tables()}); err != nil {
		return err
	}
	return open
}

// foresee says what a commit will revoke and cut, and in a dry run has the leader judge it.
func (a *app) foresee(ctx context.Context, client *rpc.Client, r revocation, dryRun bool) (cut int, err error) {
	if dryRun {
		if err := client.DryRunAll(ctx, r.command); err != nil {
			return 0, fmt.Errorf("the leader would refuse the revocations for %s: %w", r.command.Reason, err)
		}
	}
	a.sayEach(fmt.Sprintf("%s:", r.command.Reason), r.view().Selectors)
	survey, err := client.Preview(ctx, r.command.Selectors)
	if err != nil {
		return 0, fmt.Errorf("find out which sessions would be cut: %w", err)
	}
	a.reportSilent(silentIn(survey))
	for i, s := range survey.Sessions {
		if i == listed {
			a.say("  … and %d more", len(survey.Sessions)-i)
			break
		}
		a.say("  cuts %s session %d: %s from %s, database %q as %q", s.Node, s.ID, s.Certificate.Identity, s.Source, s.Database,
			s.Role)
	}
	return len(survey.Sessions), nil
}

func (v unionView) tables() []table {
	head := facts("", [2]string{"in the file", fmt.Sprint(v.Revocations)}, [2]string{"present before", fmt.Sprint(v.Present)},
		[2]string{"missing", fmt.Sprint(v.Missing)})
	t := table{columns: []string{"reason", "revocations", "live sessions", "revision"}}
	for _, c := range v.Commits {
		revision := "not revoked: a dry run"
		if c.Result != nil {
			revision = fmt.Sprint(c.Result.Revision)
		}
		t.row(string(c.Reason), fmt.Sprint(c.Count), fmt.Sprint(c.Sessions), revision)
	}
	return []table{head, t}
}

func revocationsIn(path string) (revocationHead, []armor.Revocation, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return revocationHead{}, nil, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	case err != nil:
		return revocationHead{}, nil, err
	}
	defer f.Close()
	return readRevocations(path, f)
}

// union is what one cluster lacks of another's revocations.
type union struct {
	missing map[armor.RevocationReason][]armor.Selector
	emptied int // of them: identities that were locked, and are as of now
}

// missingOf compares: whatever the cluster has not, or not as wide. now empties identities.
func missingOf(s *armor.State, theirs []armor.Revocation, now time.Time) union {
	u := union{missing: map[armor.RevocationReason][]armor.Selector{}}
	for _, r := range theirs {
		ours, had := s.Revocations.Get(r.Selector.SelectorKey())
		if had && covers(ours, r) {
			continue
		}
		// One that is locked here must not be opened by a wider one that goes by dates.
		if all := r.Selector.IssuedBefore.IsZero(); !all && (locks(r) || had && locks(ours)) {
			r.Reason, r.Selector.IssuedBefore = armor.KeyCompromise, now
			u.emptied++
		}
		u.missing[r.Reason] = append(u.missing[r.Reason], r.Selector)
	}
	return u
}

// covers reports whether one revocation takes away all that another of the same key does.
func covers(ours, theirs armor.Revocation) bool {
	before := ours.Selector.IssuedBefore
	switch {
	case before.IsZero():
		return true
	case theirs.Selector.IssuedBefore.IsZero(), before.Before(theirs.Selector.IssuedBefore):
		return false
	}
	return locks(ours) || !locks(theirs)
}

// locks reports whether certificates of the identity are refused, whatever their dates, that
// nobody has registered since: see State.Compromised.
func locks(r armor.Revocation) bool {
	return r.Reason == armor.KeyCompromise && !r.Selector.IssuedBefore.IsZero() &&
		!r.Selector.IssuedBefore.Before(r.At.Add(-armor.RequestWindow))
}

// commands are the commits: one for each reason, or several where the cluster cannot hold
// all of its parts at once.
func (u union) commands(comment string) (all []armor.Revoke) {
	var reasons []armor.RevocationReason
	for reason := range u.missing {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		for parts := range slices.Chunk(armor.StagingParts(u.missing[reason]), armor.MaxStagedParts/2) {
			all = append(all, armor.Revoke{Selectors: slices.Concat(parts...), Reason: reason, Comment: comment})
		}
	}
	return all
}
