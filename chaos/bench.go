package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BenchOptions are what a comparison is asked for.
type BenchOptions struct {
	Bin       string        // folder of armord and armorctl
	Dir       string        // where everything is kept; must not exist yet, or be empty
	Rounds    int           // each system once a round, in turn
	Length    time.Duration // of one measurement; its first second does not count
	Clients   []int         // numbers of clients to try
	Protocols []string      // pgbench's -M
	PgBouncer string        // its program; empty: the one in PATH
	Logf      func(string, ...any)
}

// Sample is one measurement of one system.
type Sample struct {
	System   string
	Protocol string
	Clients  int
	Round    int
	TPS      float64
	CPU      time.Duration // of the pooler for each query, in user and kernel
	Latency  time.Duration // the mean
}

// Bench compares systems by what a query costs them: in every cell (protocol, number of
// clients) each system runs once a round, right after the others, and only the ratio
// within one round counts, because the machine is shared.
func Bench(ctx context.Context, o BenchOptions) ([]Sample, error) {
	b := &bench{BenchOptions: o}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.end())
	}
	samples, err := b.measure(ctx)
	return samples, errors.Join(err, b.end())
}

type bench struct {
	BenchOptions
	pgbench string
	systems []system
	ends    []func() error // in the order they were begun
}

// system is one way from pgbench to PostgreSQL.
type system struct {
	name  string
	env   []string
	pid   func() int // of the process whose CPU counts; nil: none
	skips func(protocol string) bool
}

func (b *bench) end() error {
	var errs []error
	for _, end := range slices.Backward(b.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func (b *bench) measure(ctx context.Context) ([]Sample, error) {
	var all []Sample
	for _, protocol := range b.Protocols {
		for _, clients := range b.Clients {
			for round := range b.Rounds {
				for i := range b.systems {
					s := b.systems[(i+round)%len(b.systems)] // nobody is always first
					if s.skips != nil && s.skips(protocol) {
						continue
					}
					sample, err := b.once(ctx, s, protocol, clients)
					if err != nil {
						return all, fmt.Errorf("%s, %s, %d clients: %w", s.name, protocol, clients, err)
					}
					sample.Round = round
					all = append(all, sample)
					b.Logf("%-10s %-8s c=%-3d %8.0f tps  %6.1f µs/query", s.name, protocol, clients, sample.TPS, micro(sample.CPU))
				}
			}
		}
	}
	return all, nil
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// progressLine is what pgbench -P prints each second.
var progressLine = regexp.MustCompile(`^progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+) ms`)

// once runs pgbench and reads the system's CPU time at each of its progress lines.
func (b *bench) once(ctx context.Context, s system, protocol string, clients int) (Sample, error) {
	cmd := exec.CommandContext(ctx, b.pgbench, "-n", "-S", "-M", protocol, "-c", strconv.Itoa(clients), "-j", "1", "-P", "1",
		"-T", strconv.Itoa(int(b.Length/time.Second)))
	cmd.Env = append(os.Environ(), s.env...)
	said, err := cmd.StderrPipe()
	if err != nil {
		return Sample{}, err
	}
	var rest strings.Builder
	if err := cmd.Start(); err != nil {
		return Sample{}, err
	}
	sample, err := watch(io.TeeReader(said, &rest), s.pid)
	if waited := cmd.Wait(); waited != nil {
		return Sample{}, fmt.Errorf("pgbench: %w: %s", waited, rest.String())
	}
	sample.System, sample.Protocol, sample.Clients = s.name, protocol, clients
	return sample, err
}

// watch adds up what happens between the first and the last progress line.
func watch(said io.Reader, pid func() int) (Sample, error) {
	var sample Sample
	var first, last time.Duration
	var begun, ended, queries, latency float64
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		m := progressLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		used := time.Duration(0)
		if pid != nil {
			var err error
			if used, err = cpuTime(pid()); err != nil {
				return sample, err
			}
		}
		at, _ := strconv.ParseFloat(m[1], 64) // the pattern lets only numbers through
		tps, _ := strconv.ParseFloat(m[2], 64)
		wait, _ := strconv.ParseFloat(m[3], 64)
		if begun == 0 {
			begun, first = at, used
		} else {
			queries += tps * (at - ended)
			latency += wait * tps * (at - ended)
		}
		ended, last = at, used
	}
	if queries == 0 {
		return sample, errors.New("pgbench has told of no progress")
	}
	sample.TPS = queries / (ended - begun)
	sample.CPU = time.Duration(float64(last-first) / queries)
	sample.Latency = time.Duration(latency / queries * float64(time.Millisecond))
	return sample, lines.Err()
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

// Compare returns the ratios of a value of system to that of base, in one cell.
func Compare(samples []Sample, system, base, protocol string, clients int, value func(Sample) float64) Ratios {
	find := func(name string, round int) (float64, bool) {
		for _, s := range samples {
			if s.System == name && s.Round == round && s.Protocol == protocol && s.Clients == clients {
				return value(s), true
			}
		}
		return 0, false
	}
	var all []float64
	for round := 0; ; round++ {
		a, ok := find(system, round)
		if !ok {
			break
		}
		if b, ok := find(base, round); ok && b > 0 {
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
	return fmt.Sprintf("%d cores, %s, load average at the end %s", runtime.NumCPU(), runtime.Version(), strings.Join(strings.Fields(string(load))[:1], ""))
}

// Median returns the median of a system's value in one cell, 0 when it was not measured.
func Median(samples []Sample, system, protocol string, clients int, value func(Sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		if s.System == system && s.Protocol == protocol && s.Clients == clients {
			all = append(all, value(s))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
