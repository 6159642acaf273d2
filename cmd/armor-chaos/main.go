// Command armor-chaos breaks a real Armor cluster from outside and checks what it
// promised. It knows flags and files; what is broken, and what counts as kept, is package
// chaos's. Exit codes: 0 every promise kept, 1 the run itself failed, 2 usage,
// 3 a promise was broken or the run observed too little to tell.
//
// Invariant: 0 means that something was observed, and that no checker found a promise
// broken.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/chaos"
)

// errBroken is returned when a checker found something.
var errBroken = errors.New("promises were broken")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	understood := false
	root := &cobra.Command{
		Use: "armor-chaos", Short: "break a cluster from outside, check what it promised", SilenceUsage: true, SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) { understood = true },
	}
	root.AddCommand(runCommand(), checkCommand(), benchCommand(), relayCommand())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errBroken):
		fmt.Fprintln(os.Stderr, "armor-chaos:", err)
		os.Exit(3)
	case !understood:
		fmt.Fprintf(os.Stderr, "armor-chaos: %v\nhint: armor-chaos --help\n", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "armor-chaos:", err)
		os.Exit(1)
	}
}

func runCommand() *cobra.Command {
	var o chaos.Options
	run := &cobra.Command{
		Use:   "run failover|load|hostile",
		Short: "start a cluster, break it, check the history",
		Example: "  armor-chaos run failover --seed 1 --duration 45s\n  armor-chaos run load --seed 1 --duration 10m --clients 200\n" +
			"  armor-chaos run hostile --key leader --seed 1 --duration 10m",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{
			"failover\tkill and stop the leader again and again",
			"load\tmany clients on few server connections, that cancel and break off at random",
			"hostile\tsomebody has one node's key, and says with it whatever may do harm",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Dir == "" {
				dir, err := os.MkdirTemp("", "armor-chaos-")
				if err != nil {
					return err
				}
				// PostgreSQL runs as another user and must reach its folder.
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
				o.Dir = dir
			}
			begun := time.Now()
			o.Logf = func(format string, args ...any) {
				fmt.Fprintf(os.Stderr, "%6.1fs %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
			}
			report, err := scenarios[args[0]](cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("seed %d, files in %s: %w", o.Seed, o.Dir, err)
			}
			return print(report)
		},
	}
	here, _ := os.Executable()
	run.Flags().Uint64Var(&o.Seed, "seed", 1, "seed of every random choice")
	run.Flags().DurationVar(&o.Duration, "duration", 45*time.Second, "how long faults go on")
	run.Flags().IntVar(&o.Clients, "clients", 200, "clients of the load")
	run.Flags().StringVar(&o.Key, "key", chaos.Keys[0], "whose key the thief of a hostile run has: "+strings.Join(chaos.Keys, ", "))
	run.Flags().StringSliceVar(&o.Without, "without", nil, "what that thief leaves out, such as \"api drain\"")
	run.Flags().StringVar(&o.Bin, "bin", filepath.Dir(here), "folder of armord and armorctl")
	run.Flags().StringVar(&o.Dir, "dir", "", "where the run's files are kept (default: a new temporary folder)")
	return run
}

var scenarios = map[string]func(context.Context, chaos.Options) (chaos.Report, error){
	"failover": chaos.Failover, "load": chaos.Load, "hostile": chaos.Hostile,
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check HISTORY",
		Short:   "check the history of an earlier run again",
		Example: "  armor-chaos check history.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			events, err := chaos.ReadHistory(args[0])
			if err != nil {
				return err
			}
			return print(chaos.Report{Coverage: chaos.Coverage(events), Missing: chaos.Missing(events), Violations: chaos.Check(events),
				History: args[0]})
		},
	}
}

// print writes the report to stdout as JSON.
func print(r chaos.Report) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(r); err != nil {
		return err
	}
	if r.Clean() {
		return nil
	}
	return fmt.Errorf("%w: %d violations, %d things unobserved, history in %s", errBroken, len(r.Violations), len(r.Missing), r.History)
}
