package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options are what a comparison is asked for.
type Options struct {
	Bin       string        // folder of armord, armorctl and armor-chaos
	Dir       string        // where everything is kept; must not exist yet, or be empty
	Rounds    int           // each system once a round, in turn
	Length    time.Duration // of one measurement; its first second does not count
	Cells     []Cell        // what is measured
	PgBouncer string        // its program; empty: the one in PATH
	Odyssey   string        // its program; empty: it is left out
	GoRelay   bool          // have both relays, also where there is a C compiler
	Logf      func(string, ...any)
}

// Sample is one measurement of one system.
type Sample struct {
	System string
	Cell   string
	Round  int
	Rate   float64       // of the cell's units, by the second
	CPU    time.Duration // of the pooler for each of the cell's units, in user and kernel
}

// Gap is a measurement that failed.
type Gap struct {
	System string
	Cell   string // empty: the system did not start, and was not measured at all
	Round  int
	Err    error
}

// String is one line: what is missing, and the first line of why.
func (g Gap) String() string {
	why, _, _ := strings.Cut(strings.TrimSpace(g.Err.Error()), "\n")
	if g.Cell == "" {
		return fmt.Sprintf("%s: %s", g.System, why)
	}
	return fmt.Sprintf("%s, %s, round %d: %s", g.System, g.Cell, g.Round+1, why)
}

// Results are what a comparison came to, also when not all of it could be measured.
type Results struct {
	Samples []Sample
	Gaps    []Gap
}

// Missed reports whether a measurement of the system failed.
func (r Results) Missed(system string) bool {
	return slices.ContainsFunc(r.Gaps, func(g Gap) bool { return g.System == system })
}

// Run compares systems by what a query costs them: in every cell each system runs
// once a round, right after the others, and only the ratio within one round counts,
// because the machine is shared. What fails is a gap and the rest goes on; the error says
// why there was nothing to go on with.
func Run(ctx context.Context, o Options) (Results, error) {
	b := &comparison{Options: o}
	err := b.prepare(ctx)
	if err == nil {
		err = b.measure(ctx)
	}
	return b.results, errors.Join(err, b.end())
}

// comparison is a run of the benchmark.
type comparison struct {
	Options
	pgbench string
	systems []system
	ends    []func() error // in the order they were begun
	// certificates are the neighbours', as environments of their clients.
	certificates [][]string
	results      Results
}

// system is one way from pgbench to PostgreSQL.
type system struct {
	name string
	env  []string
	pid  func() int           // of the process whose CPU counts; nil: none
	fits func(cell Cell) bool // nil: every cell does
}

func (b *comparison) end() error {
	var errs []error
	for _, end := range slices.Backward(b.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// measure goes through all cells and rounds. It ends early only with ctx.
func (b *comparison) measure(ctx context.Context) error {
	for _, cell := range b.Cells {
		for round := range b.Rounds {
			for i := range b.systems {
				s := b.systems[(i+round)%len(b.systems)] // nobody is always first
				if s.fits != nil && !s.fits(cell) {
					continue
				}
				b.take(ctx, s, cell, round)
				if err := ctx.Err(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// take measures a system once and keeps what came of it.
func (b *comparison) take(ctx context.Context, s system, cell Cell, round int) {
	sample, err := cell.measure(ctx, b, s)
	switch {
	case ctx.Err() != nil: // cut off by us
	case err != nil:
		b.gap(Gap{System: s.name, Cell: cell.Name, Round: round, Err: err})
	default:
		sample.System, sample.Cell, sample.Round = s.name, cell.Name, round
		b.results.Samples = append(b.results.Samples, sample)
		b.Logf("%-14s %-12s %9.1f %s/s  %8.1f µs/%s", s.name, cell.Name, sample.Rate, cell.Unit, micro(sample.CPU), cell.Unit)
	}
}

func (b *comparison) gap(g Gap) {
	b.results.Gaps = append(b.results.Gaps, g)
	b.Logf("a gap: %s", g)
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// cpuOf is cpuTime of a system's process, 0 when it has none that counts.
func cpuOf(pid func() int) (time.Duration, error) {
	if pid == nil {
		return 0, nil
	}
	return cpuTime(pid())
}

// cpuTime is what all threads of a process have used, in user and kernel.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d has no threads: %w", pid, err)
	}
	var all time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		nanoseconds, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(nanoseconds, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		all += time.Duration(n)
	}
	return all, nil
}

// Ratios compares a system with another: the median of the ratios within each round,
// with the smallest and the largest.
type Ratios struct {
	Median, Min, Max float64
	Rounds           int
}

// Compare returns the ratios of a value of system to that of base, in one cell. Rounds
// in which one of them was not measured do not count.
func Compare(samples []Sample, system, base, cell string, value func(Sample) float64) Ratios {
	of := map[string]map[int]float64{system: {}, base: {}}
	for _, s := range samples {
		if rounds := of[s.System]; rounds != nil && s.Cell == cell {
			rounds[s.Round] = value(s)
		}
	}
	var all []float64
	for round, a := range of[system] {
		if b := of[base][round]; b > 0 {
			all = append(all, a/b)
		}
	}
	if len(all) == 0 {
		return Ratios{}
	}
	slices.Sort(all)
	return Ratios{Median: all[len(all)/2], Min: all[0], Max: all[len(all)-1], Rounds: len(all)}
}

// Machine describes what the numbers were taken on.
func Machine() string {
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d cores, %s, load average at the end %s", runtime.NumCPU(), runtime.Version(),
		strings.Join(strings.Fields(string(load))[:1], ""))
}

// Median returns the median of a system's value in one cell, 0 when it was not measured.
func Median(samples []Sample, system, cell string, value func(Sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		if s.System == system && s.Cell == cell {
			all = append(all, value(s))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
