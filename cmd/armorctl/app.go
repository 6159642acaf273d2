package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// app is one run of the program.
type app struct {
	in     *os.File
	out    io.Writer // written to by output.go only
	errOut io.Writer
	env    func(string) string
	now    func() time.Time

	globals globals
	used    []usedContext // to be told where the members are
	// begun is set once the command line was understood: errors before are usage.
	begun bool
}

// globals are the flags that every command takes.
type globals struct {
	context   string
	addresses []string
	timeout   time.Duration // zero: the command's own patience
	output    format
	requestID armor.RequestID
	yes       bool
	quiet     bool
	verbose   bool
}

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	a.globals.output = a.guessFormat(args)
	root := a.command()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.begun {
		err = &fault.Usage{Err: err}
	}
	a.keepMembers()
	return a.report(ctx, cmd.CommandPath(), err)
}

// command is the whole command line.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:                "armorctl",
		Short:              "operate an Armor cluster",
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true,
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:               knownVerb,
		RunE:               func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g := a.globalFlags(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.takeGlobals(cmd, *g); err != nil {
			return err
		}
		a.begun = true
		return nil
	}
	root.AddCommand(
		a.statusCommand(), a.doctorCommand(), a.explainCommand(), a.whoCanCommand(), a.revokeCommand(), a.scanCommand(), a.connectCommand(),
		a.initCommand(), a.contextCommand(), a.caCommand(), a.certCommand(), a.identityCommand(),
		a.applyCommand(), a.planCommand(), a.exportCommand(), a.importCommand(),
		a.nodeCommand(), a.joinTokenCommand(), a.operatorCommand(), a.peerCACommand(), a.poolCommand(), a.sessionCommand(), a.revocationCommand(),
		a.clusterCommand(), a.snapshotCommand(), a.backupCommand(),
		a.versionCommand(), a.completionCommand(root),
	)
	a.completeValues(root, g)
	return root
}

// given are the global flags as they were typed, before environment and defaults.
type given struct {
	context, timeout, output, requestID string
	addresses                           []string
	yes, quiet, verbose                 bool
}

func (a *app) globalFlags(root *cobra.Command) *given {
	g := &given{}
	f := root.PersistentFlags()
	f.StringVar(&g.context, "context", "", "the `context` to use (ARMOR_CONTEXT)")
	f.StringArrayVar(&g.addresses, "addr", nil, "peer `address` of a node instead of the context's; repeatable (ARMOR_ADDR, by commas)")
	f.StringVar(&g.timeout, "timeout", "", "how long to wait for the cluster, such as 15s (ARMOR_TIMEOUT)")
	f.StringVarP(&g.output, "output", "o", "", "table, wide, json or yaml (ARMOR_OUTPUT)")
	f.StringVar(&g.requestID, "request-id", "", "32 hex digits that make a retry of the same command safe")
	f.BoolVarP(&g.yes, "yes", "y", false, "do not ask")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "say nothing but errors on stderr")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "say more on stderr")
	return g
}

// takeGlobals settles the global flags: what was typed goes before the environment.
func (a *app) takeGlobals(cmd *cobra.Command, g given) error {
	typed := cmd.Flags().Changed
	text := func(flag, value, variable string) string {
		if !typed(flag) {
			return a.env(variable)
		}
		return value
	}
	output, err := parseFormat(text("output", g.output, "ARMOR_OUTPUT"))
	if err != nil {
		return err
	}
	a.globals = globals{
		context: text("context", g.context, "ARMOR_CONTEXT"), addresses: g.addresses, output: output,
		yes: g.yes, quiet: g.quiet, verbose: g.verbose,
	}
	if list := a.env("ARMOR_ADDR"); !typed("addr") && list != "" {
		a.globals.addresses = strings.Split(list, ",")
	}
	if t := text("timeout", g.timeout, "ARMOR_TIMEOUT"); t != "" {
		if a.globals.timeout, err = parsePositive("--timeout", t); err != nil {
			return err
		}
	}
	if g.requestID != "" {
		if a.globals.requestID, err = armor.ParseRequestID(g.requestID); err != nil {
			return err
		}
	}
	return nil
}

// guessFormat finds out how errors are to be shown when the command line may be too
// broken to be parsed.
func (a *app) guessFormat(args []string) format {
	text := a.env("ARMOR_OUTPUT")
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if value, found := outputFlag(args[i:]); found {
			text = value
		}
	}
	f, err := parseFormat(text)
	if err != nil {
		return formatTable
	}
	return f
}

// outputFlag reads -o or --output at the beginning of args, in any spelling.
func outputFlag(args []string) (string, bool) {
	if value, found := strings.CutPrefix(args[0], "--output="); found {
		return value, true
	}
	if args[0] == "-o" || args[0] == "--output" {
		return strings.Join(args[1:min(2, len(args))], ""), true
	}
	value, found := strings.CutPrefix(args[0], "-o")
	return strings.TrimPrefix(value, "="), found
}

// patience bounds a command that has none of its own.
const patience = 15 * time.Second

// within bounds ctx by --timeout, or by standard when it was not given.
func (a *app) within(ctx context.Context, standard time.Duration) (context.Context, context.CancelFunc) {
	if a.globals.timeout > 0 {
		standard = a.globals.timeout
	}
	return context.WithTimeout(ctx, standard)
}

// group makes a noun: a command that only holds verbs.
func group(noun, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: noun, Short: short, Args: knownVerb}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names := make([]string, len(verbs))
		for i, v := range verbs {
			names[i] = v.Name()
		}
		return &fault.Usage{Err: fmt.Errorf("%s needs a verb: %s", cmd.CommandPath(), strings.Join(names, ", "))}
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// suggestDistance is how many letters a word may be away from the verb that was meant.
const suggestDistance = 2

// knownVerb refuses the word that stands where a verb belongs.
func knownVerb(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		err := fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
		cmd.SuggestionsMinimumDistance = suggestDistance
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fault.Hinted(err, "did you mean %s %s?", cmd.CommandPath(), strings.Join(near, " or "))
		}
		return fault.Hinted(err, "%s --help", cmd.CommandPath())
	}
	return nil
}

// say tells people something that is not the answer. A program that asked for JSON
// finds nothing on stderr but the error, unless somebody sits before it.
func (a *app) say(text string, args ...any) {
	forProgram := a.globals.output == formatJSON && !a.globals.verbose && !a.interactive()
	if !a.globals.quiet && !forProgram {
		fmt.Fprintf(a.errOut, text+"\n", args...)
	}
}

// tell says what only -v wants to know.
func (a *app) tell(text string, args ...any) {
	if a.globals.verbose {
		a.say(text, args...)
	}
}

// interactive reports whether there is somebody to ask.
func (a *app) interactive() bool {
	return a.env("ARMOR_NO_INPUT") == "" && term.IsTerminal(int(a.in.Fd()))
}

// oneOf checks a flag that takes one of a few words.
func oneOf(flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return &fault.Usage{Err: fmt.Errorf("%s %q is not one of %s", flag, value, strings.Join(words, ", "))}
}
