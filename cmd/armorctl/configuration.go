package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
	"github.com/armordb/armordb/rpc/manifest"
)

// configTables are the tables that the cluster configuration is about.
var configTables = []rpc.Table{armor.Environments, armor.Databases, armor.Pools, armor.Identities}

// plannedOn are the tables that a plan is judged on: those, what may vouch for identities
// and, when an environment is to go, all that may still be in it.
func plannedOn(deletes []armor.ObjectRef) []rpc.Table {
	tables := append(slices.Clone(configTables), armor.Anchors)
	if slices.ContainsFunc(deletes, func(r armor.ObjectRef) bool { return r.Kind == armor.KindEnvironment }) {
		tables = append(tables, armor.Inventory)
	}
	return tables
}

// configOptions are the flags of apply and plan.
type configOptions struct {
	files      []string
	deletes    []string
	dryRun     bool
	ifRevision uint64
	wait       string
	exitCode   bool
	addBudgets bool
}

func configFlags(cmd *cobra.Command, o *configOptions) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "a `FILE`, a folder of .yaml files, or - for stdin; repeatable")
	f.StringArrayVar(&o.deletes, "delete", nil, "delete `KIND/[ENVIRONMENT/]NAME`, such as Pool/production/orders; repeatable")
	f.BoolVar(&o.addBudgets, "add-budgets", false,
		"let pools lead to one role of one database: PostgreSQL sees the sum of their budgets")
}

func (a *app) applyCommand() *cobra.Command {
	var o configOptions
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "change the cluster configuration: all of it or nothing",
		Long: `Compares the objects in the files with the cluster's and makes the difference in one
commit. What the files do not name stays as it is. The change is refused when the
configuration has been changed by others meanwhile.`,
		Example: "  armorctl apply -f cluster.yaml\n  armorctl apply --delete Identity/production/old --yes",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.apply(cmd.Context(), o) },
	}
	configFlags(cmd, &o)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "have the leader judge the change and make nothing")
	f.Uint64Var(&o.ifRevision, "if-revision", 0, "refuse when the configuration is newer than this `revision`, such as plan showed")
	f.StringVar(&o.wait, "wait", string(rpc.WaitAll),
		"return when `all` nodes enforce the change, when the leader has it, or at once: all, leader, none")
	return cmd
}

func (a *app) planCommand() *cobra.Command {
	var o configOptions
	cmd := &cobra.Command{
		Use: "plan -f FILE", Short: "show what apply would change",
		Example: "  armorctl plan -f cluster.yaml --exit-code", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context(), o) },
	}
	configFlags(cmd, &o)
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "exit with 10 when there are changes")
	return cmd
}

// planned is a change that was worked out against one state.
type planned struct {
	state   *armor.State
	changes []manifest.Change
	command armor.Apply
}

func (a *app) workOut(ctx context.Context, client *rpc.Client, o configOptions) (planned, error) {
	if len(o.files) == 0 && len(o.deletes) == 0 {
		return planned{}, &fault.Usage{Err: errors.New("nothing to do: say -f FILE or --delete KIND/ENVIRONMENT/NAME")}
	}
	set, err := a.readManifests(o.files)
	if err != nil {
		return planned{}, err
	}
	deletes, err := parseRefs(o.deletes)
	if err != nil {
		return planned{}, err
	}
	state, err := client.State(ctx, plannedOn(deletes)...)
	if err != nil {
		return planned{}, err
	}
	var terms []manifest.Term
	if o.addBudgets {
		terms = append(terms, manifest.AddBudgets)
	}
	changes, command, err := manifest.Plan(state, set, deletes, terms...)
	return planned{state, changes, command}, err
}

// readManifests reads every file that was named; nothing is applied when one is wrong.
func (a *app) readManifests(files []string) (manifest.Set, error) {
	var all manifest.Set
	for _, name := range files {
		paths, err := expand(name)
		if err != nil {
			return all, err
		}
		for _, path := range paths {
			set, err := a.readManifest(path)
			if err != nil {
				return all, err
			}
			if all, err = all.Merge(set); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func (a *app) readManifest(path string) (manifest.Set, error) {
	if path != "-" {
		text, err := issue.ReadFile(path)
		if err != nil {
			return manifest.Set{}, err
		}
		return manifest.Parse(path, text)
	}
	text, err := io.ReadAll(io.LimitReader(a.in, maxStdin))
	if err != nil {
		return manifest.Set{}, fmt.Errorf("read stdin: %w", err)
	}
	return manifest.Parse("stdin", text)
}

// maxStdin is one byte more than manifest.Parse takes, so that it is Parse that
// refuses.
const maxStdin = 4<<20 + 1

// expand lists the YAML files of a folder, in the order of their names.
func expand(name string) ([]string, error) {
	info, err := os.Stat(name)
	if name == "-" || err != nil || !info.IsDir() {
		return []string{name}, nil
	}
	var paths []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(name, pattern))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
		paths = append(paths, found...)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: folder %s holds no .yaml file", armor.ErrNotFound, name)
	}
	slices.Sort(paths)
	return paths, nil
}

// parseRefs reads KIND/NAME of an environment and KIND/ENVIRONMENT/NAME of the rest.
func parseRefs(texts []string) ([]armor.ObjectRef, error) {
	var refs []armor.ObjectRef
	for _, text := range texts {
		parts := strings.Split(text, "/")
		switch {
		case len(parts) == 2 && parts[0] == armor.KindEnvironment:
			refs = append(refs, armor.ObjectRef{Kind: parts[0], Name: parts[1]})
		case len(parts) == 3 && slices.Contains([]string{armor.KindDatabase, armor.KindPool, armor.KindIdentity}, parts[0]):
			refs = append(refs, armor.ObjectRef{Kind: parts[0], Environment: parts[1], Name: parts[2]})
		default:
			return nil, &fault.Usage{Err: fmt.Errorf(
				"--delete %q is neither Environment/NAME nor Database, Pool or Identity with /ENVIRONMENT/NAME", text)}
		}
	}
	return refs, nil
}

// planView is a plan as -o json shows it.
type planView struct {
	Revision uint64       `json:"revision"` // the plan was made at
	Changes  []objectView `json:"changes"`
}

type objectView struct {
	Op          string      `json:"op"`
	Kind        string      `json:"kind"`
	Environment string      `json:"environment,omitempty"`
	Name        string      `json:"name"`
	Fields      []fieldView `json:"fields,omitempty"`
}

type fieldView struct {
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

func (p planned) view() planView {
	v := planView{Revision: p.state.Revision, Changes: []objectView{}}
	for _, c := range p.changes {
		o := objectView{Op: string(c.Op), Kind: c.Kind, Environment: c.Environment, Name: c.Name}
		for _, f := range c.Fields {
			o.Fields = append(o.Fields, fieldView(f))
		}
		v.Changes = append(v.Changes, o)
	}
	return v
}

// table shows the changes as one line for each object and one for each field.
func (p planned) table() table {
	t := table{columns: []string{"change", "object", "field", "from", "to"}}
	for _, c := range p.changes {
		if len(c.Fields) == 0 {
			t.row(string(c.Op), objectName(c), "", "", "")
		}
		for _, f := range c.Fields {
			t.row(string(c.Op), objectName(c), f.Path, f.Old, f.New)
		}
	}
	return t
}

func objectName(c manifest.Change) string {
	if c.Environment == "" {
		return c.Kind + "/" + c.Name
	}
	return c.Kind + "/" + c.Environment + "/" + c.Name
}

func (a *app) plan(ctx context.Context, o configOptions) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	p, err := a.workOut(ctx, client, o)
	if err != nil {
		return err
	}
	t := p.table()
	t.empty = fmt.Sprintf("no changes at revision %d", p.state.Revision)
	if err := a.show(answer{data: p.view(), tables: []table{t}}); err != nil {
		return err
	}
	a.sayShared(p)
	if o.exitCode && len(p.changes) > 0 {
		return &verdict{exitChanges, "there are changes"}
	}
	return nil
}

// sayShared says of each pool that the change makes or leaves without isolation what that means.
func (a *app) sayShared(p planned) {
	for _, c := range p.changes {
		ref := armor.Pool{Environment: c.Environment, Name: c.Name}
		for _, pool := range p.command.Pools {
			if c.Kind == armor.KindPool && pool.Key() == ref.Key() && pool.Isolation == armor.NoIsolation {
				a.say("%s: %s", objectName(c), sharedWords)
			}
		}
	}
}

// sharedWords are what isolation: none means.
const sharedWords = "isolation: none, so a client can meet, and change, what another identity's has left in its session"

// applyView is the answer of apply.
type applyView struct {
	planView
	Result *changeView `json:"result,omitempty"` // absent when there was nothing to change, and of a dry run
}

func (a *app) apply(ctx context.Context, o configOptions) error {
	wait, err := waitFlag(o.wait)
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	p, err := a.workOut(reading, client, o)
	if err != nil {
		return err
	}
	if o.ifRevision != 0 {
		p.command.IfRevision = o.ifRevision
	}
	if len(p.changes) == 0 {
		a.say("no changes at revision %d", p.state.Revision)
		return a.show(answer{data: applyView{planView: p.view()}})
	}
	if o.dryRun {
		return a.dryRunApply(reading, client, p)
	}
	if err := a.confirmDeletes(ctx, p); err != nil {
		return err
	}
	return a.applyPlanned(ctx, client, p, wait)
}

func (a *app) dryRunApply(ctx context.Context, client *rpc.Client, p planned) error {
	if err := client.DryRun(ctx, p.command); err != nil {
		return fmt.Errorf("the leader would refuse this: %w", err)
	}
	a.say("the leader would accept this; nothing was changed")
	return a.show(answer{data: applyView{planView: p.view()}, tables: []table{p.table()}})
}

// confirmDeletes lists what will be gone. What is only changed is not asked about:
// plan shows it.
func (a *app) confirmDeletes(ctx context.Context, p planned) error {
	if len(p.command.Delete) == 0 {
		return nil
	}
	for _, c := range p.changes {
		if c.Op == manifest.Delete {
			a.say("will be deleted, and sessions that rest on it cut: %s", objectName(c))
		}
	}
	return a.confirm(ctx, "delete")
}

func (a *app) applyPlanned(ctx context.Context, client *rpc.Client, p planned, wait rpc.Wait) error {
	outcome, err := a.submitEnforced(ctx, client, p.command, wait, p.state)
	if err != nil && !errors.Is(err, armor.ErrUnconfirmed) {
		return err
	}
	result := viewOfChange(outcome)
	tables := []table{p.table(), enforcementTable(outcome.Enforcement, a.now())}
	if shown := a.show(answer{data: applyView{planView: p.view(), Result: &result}, tables: tables}); shown != nil {
		return shown
	}
	if err != nil {
		return err
	}
	if wait != rpc.WaitNone {
		a.say("applied as revision %d", outcome.Result.Revision)
	}
	return unconfirmed(outcome.Enforcement)
}

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "print the cluster configuration as apply takes it",
		Long: "Prints the environments, databases, pools and identities as YAML; with -o json as their objects' JSON. " +
			"Applying it again changes nothing.",
		Example: "  armorctl export > cluster.yaml", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := a.fetch(cmd.Context(), configTables...)
			if err != nil {
				return err
			}
			text, err := manifest.Marshal(state)
			if err != nil {
				return err
			}
			return a.showDocuments(text)
		},
	}
}
