package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/leak"
)

// scanOptions are the flags of scan.
type scanOptions struct {
	history, offline bool
}

func (a *app) scanCommand() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "scan PATH...",
		Short: "find private keys in files and in git's history, whose they are, and how to revoke them",
		Long: `Looks through files, folders and, as -, stdin for private keys: PEM, also indented or escaped in
YAML, JSON and .env; DER; base64 of either, as in a Secret of Kubernetes; and PKCS #12 that opens
with an empty or a usual password. With --history all that the git repository of each PATH has ever
held is looked through, too.

For each key it asks the cluster whose it is, and prints the command that takes it away. The key
itself is never shown. Exit code 3 when there is one.`,
		Example: "  armorctl scan . --history\n  armorctl scan deploy .env --offline",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s needs a PATH, or - for stdin", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.scan(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.history, "history", false, "also look through all that the git repository of each PATH has")
	f.BoolVar(&o.offline, "offline", false, "ask no cluster whose the keys are")
	return cmd
}

// scanView is the answer of scan.
type scanView struct {
	Found []foundView `json:"found"`
	// Asked is false when no cluster said whose the keys are.
	Asked  bool       `json:"asked"`
	Unread []leftView `json:"unread"` // could not be looked through
	Left   []leftView `json:"left"`   // was left out, as is documented
}

// foundView is a private key that was found.
type foundView struct {
	Path      string `json:"path"`
	Line      int    `json:"line"`
	Object    string `json:"object,omitempty"` // of git
	Commit    string `json:"commit,omitempty"` // the first that has it
	By        string `json:"by,omitempty"`     // who made that
	When      string `json:"when,omitempty"`
	Form      string `json:"form"`
	Algorithm string `json:"algorithm,omitempty"`
	// Key is the SHA-256 of the public key, as revoke --key takes it; empty when it cannot be read.
	Key     string          `json:"key,omitempty"`
	Holders []keyHolderView `json:"holders"`
	Revoked bool            `json:"revoked"` // the key itself is
	// Revoke is the command that takes the key away; empty when that is done, or nobody knows whose it is.
	Revoke string `json:"revoke,omitempty"`
}

// leftView is what was not looked through, and why.
type leftView struct {
	Path   string `json:"path"`
	Object string `json:"object,omitempty"`
	Why    string `json:"why"`
}

func (a *app) scan(ctx context.Context, paths []string, o scanOptions) error {
	v := scanView{Found: []foundView{}, Unread: []leftView{}, Left: []leftView{}}
	if err := a.lookThrough(ctx, paths, o, v.report()); err != nil {
		return err
	}
	for i, f := range v.Found {
		v.Found[i].Revoke = unknownKey(f.Key)
	}
	if len(v.Found) > 0 && !o.offline {
		if err := a.attribute(ctx, &v); err != nil {
			a.say("whose the keys are is not known: %v", err)
		}
	}
	for _, l := range v.Unread {
		a.say("not looked through: %s: %s", strings.TrimSpace(l.Path+" "+l.Object), l.Why)
	}
	for _, l := range v.Left {
		a.say("left out: %s: %s", strings.TrimSpace(l.Path+" "+l.Object), l.Why)
	}
	if err := a.show(answer{data: v, tables: v.tables()}); err != nil {
		return err
	}
	return v.verdict()
}

// report gathers what is found.
func (v *scanView) report() leak.Report {
	return leak.Report{
		Found: func(p leak.Place, k leak.Key) {
			f := foundView{Path: p.Path, Line: k.Line, Object: p.Object, Commit: p.Commit, By: p.By, When: p.When,
				Form: k.Form, Algorithm: k.Algorithm, Holders: []keyHolderView{}}
			if !k.Unread() {
				f.Key = k.Digest.String()
			}
			v.Found = append(v.Found, f)
		},
		Unread: func(p leak.Place, why error) { v.Unread = append(v.Unread, leftView{p.Path, p.Object, why.Error()}) },
		Left:   func(p leak.Place, why string) { v.Left = append(v.Left, leftView{p.Path, p.Object, why}) },
	}
}

func (a *app) lookThrough(ctx context.Context, paths []string, o scanOptions, r leak.Report) error {
	if o.history && slices.Contains(paths, "-") {
		return &fault.Usage{Err: errors.New("--history is of repositories, and stdin is none")}
	}
	for _, path := range paths {
		var err error
		if path == "-" {
			err = r.Reader("-", a.in)
		} else {
			err = r.Files(ctx, path)
		}
		if err == nil && o.history {
			err = r.History(ctx, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tables shows the keys one by one, and each command once.
func (v scanView) tables() []table {
	t := table{
		columns: []string{"where", "what", "key", "whose", "owner", "state"}, wide: []string{"commit", "by"},
		empty: "no private key was found",
	}
	commands := table{title: "To take them away:"}
	told := map[string]bool{}
	for _, f := range v.Found {
		whose, owner, state := f.people(v.Asked)
		t.row(f.where(), strings.TrimSpace(f.Form+" "+f.Algorithm), shortSerial(f.Key), whose, owner, state, f.Commit, f.By)
		if f.Revoke != "" && !told[f.Revoke] {
			commands.row("  " + f.Revoke)
			told[f.Revoke] = true
		}
	}
	return []table{t, commands}
}

// where is what people look for.
func (f foundView) where() string {
	where := fmt.Sprintf("%s:%d", f.Path, f.Line)
	switch {
	case f.Commit != "":
		return where + " in " + f.Commit[:min(len(f.Commit), 2*minPrefix)]
	case f.Object != "":
		return where + " in object " + f.Object[:min(len(f.Object), 2*minPrefix)]
	}
	return where
}

// people sums up the holders of a key.
func (f foundView) people(asked bool) (whose, owner, state string) {
	var names, owners, states []string
	for _, h := range f.Holders {
		names, owners, states = appendOnce(names, h.Name), appendOnce(owners, h.Owner), appendOnce(states, h.State)
	}
	switch {
	case f.Key == "":
		states = []string{"cannot be read"}
	case f.Revoked:
		states = []string{"revoked"}
	case len(f.Holders) == 0 && asked:
		states = []string{"not registered"}
	}
	return strings.Join(names, ", "), strings.Join(owners, ", "), strings.Join(states, ", ")
}

func appendOnce(list []string, word string) []string {
	if word == "" || slices.Contains(list, word) {
		return list
	}
	return append(list, word)
}

// verdict is for CI: a key is a problem, and so is what nobody could look into.
func (v scanView) verdict() error {
	if n := len(v.Found); n > 0 {
		what := "a private key was found"
		if n > 1 {
			what = fmt.Sprintf("%d private keys were found", n)
		}
		return fault.Hinted(&verdict{exitProblems, what},
			"whoever could read that place may have the key: take it away, issue another, then remove the file")
	}
	if n := len(v.Unread); n > 0 {
		return fmt.Errorf("nothing was found, and %d files could not be looked through: the first is %s", n,
			cmp.Or(v.Unread[0].Path, v.Unread[0].Object))
	}
	return nil
}
