package main

import (
	"errors"
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
			results, err := bench.Run(cmd.Context(), o)
			if len(results.Samples) > 0 {
				printRatios(cmd.OutOrStdout(), o, results.Samples)
			}
			printGaps(cmd.OutOrStdout(), results.Gaps)
			if err == nil && results.Missed(bench.Armor) {
				err = errors.New("not all of armor was measured")
			}
			return err
		},
	}
	here, _ := os.Executable()
	f := cmd.Flags()
	f.StringVar(&o.Bin, "bin", filepath.Dir(here), "folder of armord and armorctl")
	f.IntVar(&o.Rounds, "rounds", 5, "how often each system is measured in each cell")
	f.DurationVar(&o.Length, "length", 5*time.Second, "of one measurement; its first second does not count")
	f.StringSliceVar(&cells, "cells", bench.CellNames(),
		"what is measured: pgbench's protocol and number of clients; crowd (32 among 500 idle), connect, copy")
	f.IntVar(&idle, "idle", 0, "measure instead what so many idle clients keep")
	f.StringVar(&o.Odyssey, "odyssey", os.Getenv("BENCH_ODYSSEY"), "Odyssey's program (default: it is left out)")
	f.BoolVar(&o.GoRelay, "go-relay", false, "also measure the relay in Go, which stands in where there is no C compiler")
	f.StringVar(&o.PgBouncer, "pgbouncer", os.Getenv("BENCH_PGBOUNCER"), "PgBouncer's program (default: the one in PATH)")
	return cmd
}

func printIdle(cmd *cobra.Command, o bench.Options, clients int) error {
	all, gaps, err := bench.MeasureIdle(cmd.Context(), o, clients)
	for _, i := range all {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %.1f KB for each of %d idle clients\n", i.System, float64(i.Bytes)/1000, i.Clients)
	}
	printGaps(cmd.OutOrStdout(), gaps)
	return err
}

func cpu(s bench.Sample) float64  { return float64(s.CPU) / float64(time.Microsecond) }
func rate(s bench.Sample) float64 { return s.Rate }

// printRatios writes Markdown tables: the medians of paired ratios, and what stands behind
// them.
func printRatios(w io.Writer, o bench.Options, samples []bench.Sample) {
	fmt.Fprintf(w, "%s; %d rounds of %s; medians of the ratios within a round (smallest–largest)\n\n", bench.Machine(), o.Rounds, o.Length)
	columns := []string{"CPU: armor / pgbouncer", "armor / relay", "pgbouncer / relay", "armor must", "and does", "rate: armor / pgbouncer"}
	row(w, append([]string{""}, columns...)...)
	row(w, slices.Repeat([]string{"---"}, len(columns)+1)...)
	for _, c := range o.Cells {
		of := func(system, base string) string { return ratio(bench.Compare(samples, system, base, c.Name, cpu)) }
		row(w, c.Name, of(bench.Armor, bench.PgBouncer), of(bench.Armor, bench.PlainRelay), of(bench.PgBouncer, bench.PlainRelay),
			fmt.Sprintf("%.2f of %s", c.Must, c.Base), of(bench.Armor, c.Base), ratio(bench.Compare(samples, bench.Armor, bench.PgBouncer, c.Name, rate)))
	}
	systems := systemsOf(samples)
	fmt.Fprint(w, "\nmedians: µs of CPU, and rate by the second\n\n")
	row(w, append([]string{"", "unit"}, systems...)...)
	row(w, slices.Repeat([]string{"---"}, len(systems)+2)...)
	for _, c := range o.Cells {
		cells := []string{c.Name, c.Unit}
		for _, system := range systems {
			cells = append(cells, both(bench.Median(samples, system, c.Name, cpu), bench.Median(samples, system, c.Name, rate)))
		}
		row(w, cells...)
	}
}

func row(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

// printGaps says what was not measured, and why.
func printGaps(w io.Writer, gaps []bench.Gap) {
	if len(gaps) > 0 {
		fmt.Fprint(w, "\nnot measured:\n\n")
	}
	for _, g := range gaps {
		fmt.Fprintf(w, "- %s\n", g)
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
