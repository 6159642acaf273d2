package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/chaos/bench"
)

func benchCommand() *cobra.Command {
	var o bench.Options
	var idle int
	var cells []string
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "compare what work costs Armor and PgBouncer, side by side",
		Example: "  armor-chaos bench --rounds 5 --cells simple/8,prepared/8,copy",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Cells, err = bench.FindCells(cells); err != nil {
				return err
			}
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
			samples, err := bench.Run(cmd.Context(), o)
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
	f.StringSliceVar(&cells, "cells", bench.CellNames(), "what is measured: pgbench's protocol and number of clients; crowd (32 among 500 idle), connect, copy")
	f.IntVar(&idle, "idle", 0, "measure instead what so many idle clients keep")
	f.StringVar(&o.Odyssey, "odyssey", os.Getenv("BENCH_ODYSSEY"), "Odyssey's program (default: it is left out)")
	f.StringVar(&o.PgBouncer, "pgbouncer", os.Getenv("BENCH_PGBOUNCER"), "PgBouncer's program (default: the one in PATH)")
	return cmd
}

func printIdle(cmd *cobra.Command, o bench.Options, clients int) error {
	all, err := bench.MeasureIdle(cmd.Context(), o, clients)
	for _, i := range all {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %.1f KB for each of %d idle clients\n", i.System, float64(i.Bytes)/1000, i.Clients)
	}
	return err
}

// printRatios writes Markdown tables: the medians of paired ratios with PgBouncer, and
// what stands behind them.
func printRatios(w io.Writer, o bench.Options, samples []bench.Sample) {
	fmt.Fprintf(w, "%s; %d rounds of %s; armor to pgbouncer, median of the ratios within a round (smallest–largest)\n\n", bench.Machine(), o.Rounds, o.Length)
	fmt.Fprintln(w, "| | CPU | must | rate |")
	fmt.Fprintln(w, "|---|---|---|---|")
	cpu := func(s bench.Sample) float64 { return float64(s.CPU) / float64(time.Microsecond) }
	rate := func(s bench.Sample) float64 { return s.Rate }
	for _, c := range o.Cells {
		fmt.Fprintf(w, "| %s | %s | %.2f | %s |\n", c.Name, ratio(bench.Compare(samples, bench.Armor, bench.PgBouncer, c.Name, cpu)),
			c.Must, ratio(bench.Compare(samples, bench.Armor, bench.PgBouncer, c.Name, rate)))
	}
	systems := systemsOf(samples)
	fmt.Fprintf(w, "\nmedians: µs of CPU, and rate by the second\n\n| | unit | %s |\n|---|---|%s\n", strings.Join(systems, " | "), strings.Repeat("---|", len(systems)))
	for _, c := range o.Cells {
		fmt.Fprintf(w, "| %s | %s |", c.Name, c.Unit)
		for _, system := range systems {
			fmt.Fprintf(w, " %s |", both(bench.Median(samples, system, c.Name, cpu), bench.Median(samples, system, c.Name, rate)))
		}
		fmt.Fprintln(w)
	}
}

func systemsOf(samples []bench.Sample) []string {
	var all []string
	for _, s := range samples {
		if !slices.Contains(all, s.System) {
			all = append(all, s.System)
		}
	}
	return all
}

// both writes what was measured; a system without a process of its own has only a rate.
func both(cpu, rate float64) string {
	switch {
	case rate == 0:
		return "–"
	case cpu == 0:
		return fmt.Sprintf("%.3g", rate)
	}
	return fmt.Sprintf("%.3g, %.3g", cpu, rate)
}

func ratio(r bench.Ratios) string {
	if r.Rounds == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Min, r.Max)
}
