package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

// completionPatience is how long a shell waits for names: somebody is in the middle of a word.
const completionPatience = 2 * time.Second

// maxCompleted is how many identities of an environment are offered.
const maxCompleted = 100

// source finds the words that may stand where typed has been begun. What it finds beside those is
// left out by whoever asks.
type source func(ctx context.Context, a *app, typed string) ([]string, error)

// What may stand as a command's argument, and behind a flag of any command, or of one. What is not
// listed is a file, or not for the cluster to know.
var (
	argumentSources = map[string]source{
		"ca retire": anchorNames, "ca show": anchorNames,
		"connect": identityNames, "cert issue": identityNames, "identity show": identityNames, "revoke": identityNames,
		"context remove": contextNames, "context set": contextNames, "context show": contextNames, "context use": contextNames,
		"node approve": joiningNames, "node drain": memberNames, "node remove": memberNames, "node renew": memberNames, "node replace": memberNames,
		"operator remove": operatorNames, "operator rescue": operatorNames, "operator renew": operatorNames,
		"pool disable": poolNames, "pool enable": poolNames, "pool kill": poolNames, "pool pause": poolNames, "pool reconnect": poolNames,
		"pool resume": poolNames, "pool show": poolNames,
		"who-can": databaseNames, "completion": words("bash", "zsh", "fish", "powershell"),
	}
	flagSources = map[string]source{
		"context": contextNames, "environment": environmentNames, "database": databaseNames, "explain identity": identityNames, "revoke identity": identityNames,
		"output":    words(string(formatTable), string(formatWide), string(formatJSON), string(formatYAML)),
		"wait":      words(string(rpc.WaitNone), string(rpc.WaitLeader), string(rpc.WaitAll)),
		"inventory": words(string(armor.InventoryOpen), string(armor.InventoryRequired)),
		"reason": words(string(armor.Unspecified), string(armor.KeyCompromise), string(armor.CACompromise), string(armor.AffiliationChanged),
			string(armor.Superseded), string(armor.CessationOfOperation)),
	}
)

// completeValues has the shell complete what the cluster, or the contexts file, has names for.
func (a *app) completeValues(root *cobra.Command, g *given) {
	for _, cmd := range allCommands(root) {
		path := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		if from := argumentSources[path]; from != nil {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return a.complete(cmd, g, from, typed)
			}
		}
		for name, from := range flagSources {
			flag := strings.TrimPrefix(name, path+" ")
			if cmd.Flags().Lookup(flag) == nil && cmd.PersistentFlags().Lookup(flag) == nil {
				continue
			}
			err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return a.complete(cmd, g, from, typed)
			})
			if err != nil {
				panic(fmt.Sprintf("flag --%s of %s: %v", flag, path, err))
			}
		}
	}
}

func allCommands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		all = append(all, allCommands(child)...)
	}
	return all
}

// complete asks a source, and offers nothing when that fails: what is wrong is told when the
// command is run.
func (a *app) complete(cmd *cobra.Command, g *given, from source, typed string) ([]string, cobra.ShellCompDirective) {
	const only = cobra.ShellCompDirectiveNoFileComp
	if err := a.takeGlobals(cmd, *g); err != nil {
		return nil, only
	}
	a.globals.quiet, a.globals.yes, a.globals.verbose = true, false, false
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	found, err := from(ctx, a, typed)
	if err != nil {
		return nil, only
	}
	slices.Sort(found)
	return slices.Compact(kept(found, func(word string) bool { return strings.HasPrefix(word, typed) })), only
}

// words is the source of what never changes.
func words(all ...string) source {
	return func(context.Context, *app, string) ([]string, error) { return slices.Clone(all), nil }
}

// named is the source of the names of a table's rows.
func named(t rpc.Table, names func(*armor.State) []string) source {
	return func(ctx context.Context, a *app, _ string) ([]string, error) {
		state, err := a.fetch(ctx, t)
		if err != nil {
			return nil, err
		}
		return names(state), nil
	}
}

// namesOf are the names of rows.
func namesOf[T armor.Row](rows armor.Table[T], name func(T) string) (names []string) {
	for row := range rows.Values() {
		names = append(names, name(row))
	}
	return names
}

var (
	environmentNames = named(armor.Environments, func(s *armor.State) []string {
		return namesOf(s.Environments, func(e armor.Environment) string { return e.Name })
	})
	anchorNames = named(armor.Anchors, func(s *armor.State) []string {
		return namesOf(s.Anchors, func(t armor.TrustAnchor) string { return t.Name })
	})
	memberNames = named(armor.Members, func(s *armor.State) []string {
		return namesOf(s.Members, func(m armor.Member) string { return string(m.ID) })
	})
	joiningNames = named(armor.Joins, func(s *armor.State) []string {
		return namesOf(s.Joins, func(j armor.JoinRequest) string { return string(j.Node) })
	})
	operatorNames = named(armor.Operators, func(s *armor.State) []string {
		return namesOf(s.Operators, func(o armor.Operator) string { return o.Name })
	})
	poolNames = named(armor.Pools, func(s *armor.State) []string {
		return namesOf(s.Pools, func(p armor.Pool) string { return p.Name })
	})
	databaseNames = named(armor.Databases, func(s *armor.State) []string {
		return namesOf(s.Databases, func(d armor.Database) string { return d.Name })
	})
)

// identityNames asks for those that begin so only: there may be a great many.
func identityNames(ctx context.Context, a *app, typed string) ([]string, error) {
	state, _, err := a.ask(ctx, armor.Question{Names: armor.NamesBegun{Prefix: typed, Limit: maxCompleted}}, armor.Identities, armor.Environments)
	if err != nil {
		return nil, err
	}
	return namesOf(state.Identities, func(i armor.IdentityConfig) string { return i.Name }), nil
}

func contextNames(_ context.Context, a *app, _ string) (names []string, err error) {
	f, err := a.loadContexts()
	if err != nil {
		return nil, err
	}
	for _, c := range f.Contexts {
		names = append(names, c.Name)
	}
	return names, nil
}
