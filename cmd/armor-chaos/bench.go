package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/chaos"
)

func benchCommand() *cobra.Command {
	var o chaos.BenchOptions
	var idle int
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "compare what a query costs Armor and PgBouncer, side by side",
		Example: "  armor-chaos bench --rounds 5 --clients 1,8,64",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "armor-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			if err := os.Chmod(dir, 0o755); err != nil { // for PostgreSQL's and PgBouncer's user
				return err
			}
			o.Dir = dir
			begun := time.Now()
			o.Logf = func(format string, args ...any) {
				fmt.Fprintf(os.Stderr, "%6.1fs %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
			}
			if idle > 0 {
				return printIdle(cmd, o, idle)
			}
			samples, err := chaos.Bench(cmd.Context(), o)
			if err != nil {
				return err
			}
			printRatios(cmd.OutOrStdout(), o, samples)
			return nil
		},
	}
	here, _ := os.Executable()
	f := cmd.Flags()
	f.StringVar(&o.Bin, "bin", filepath.Dir(here), "folder of armord and armorctl")
	f.IntVar(&o.Rounds, "rounds", 5, "how often each system is measured in each cell")
	f.DurationVar(&o.Length, "length", 5*time.Second, "of one measurement; its first second does not count")
	f.IntSliceVar(&o.Clients, "clients", []int{1, 8, 64}, "numbers of clients")
	f.StringSliceVar(&o.Protocols, "protocols", []string{"simple"}, "of pgbench: simple, extended, prepared")
	f.IntVar(&idle, "idle", 0, "measure instead what so many idle clients keep")
	f.StringVar(&o.PgBouncer, "pgbouncer", os.Getenv("BENCH_PGBOUNCER"), "PgBouncer's program (default: the one in PATH)")
	return cmd
}

func printIdle(cmd *cobra.Command, o chaos.BenchOptions, clients int) error {
	all, err := chaos.BenchIdle(cmd.Context(), o, clients)
	for _, i := range all {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %.1f KB for each of %d idle clients\n", i.System, float64(i.Bytes)/1000, i.Clients)
	}
	return err
}

// printRatios writes a Markdown table of the medians of paired ratios.
func printRatios(w io.Writer, o chaos.BenchOptions, samples []chaos.Sample) {
	fmt.Fprintf(w, "%s; %d rounds of %s, armor to pgbouncer, median of the ratios within a round (smallest–largest)\n\n", chaos.Machine(), o.Rounds, o.Length)
	fmt.Fprintln(w, "| protocol | clients | CPU/query | tps | armor µs/query | pgbouncer µs/query |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	cpu := func(s chaos.Sample) float64 { return float64(s.CPU) / float64(time.Microsecond) }
	tps := func(s chaos.Sample) float64 { return s.TPS }
	for _, protocol := range o.Protocols {
		for _, clients := range o.Clients {
			c := chaos.Compare(samples, "armor", "pgbouncer", protocol, clients, cpu)
			r := chaos.Compare(samples, "armor", "pgbouncer", protocol, clients, tps)
			fmt.Fprintf(w, "| %s | %d | %s | %s | %.1f | %.1f |\n", protocol, clients, ratio(c), ratio(r),
				chaos.Median(samples, "armor", protocol, clients, cpu), chaos.Median(samples, "pgbouncer", protocol, clients, cpu))
		}
	}
}

func ratio(r chaos.Ratios) string {
	if r.Rounds == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Min, r.Max)
}
