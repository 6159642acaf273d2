package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Cell is one kind of work that systems are compared by.
type Cell struct {
	Name string  // as on the command line
	Unit string  // what is counted: query, connection, GB
	Base string  // the system that we have promised ourselves a ratio to
	Must float64 // the promise: the CPU's ratio to that system's

	pgbench []string // its arguments; nil: a COPY
	idle    int      // clients that are connected and do nothing meanwhile
	several bool     // each of the neighbours' identities does it, at the same time
}

// Cells are all there are, in the order of the table.
var Cells = []Cell{
	queries("simple", 1, PgBouncer, 1), queries("simple", 8, PlainRelay, 1.4), queries("simple", 64, PlainRelay, 1.6),
	queries("prepared", 1, PgBouncer, 1), queries("prepared", 8, PlainRelay, 1.4), queries("prepared", 64, PlainRelay, 1.6),
	{Name: "crowd", Unit: "query", Base: PgBouncer, Must: 0.85, pgbench: []string{"-M", "simple", "-c", "32"}, idle: 500},
	{Name: "neighbours", Unit: "query", Base: PgBouncerReset, Must: 0.7, pgbench: []string{"-M", "simple", "-c", "4"}, several: true},
	{Name: "connect", Unit: "connection", Base: PgBouncer, Must: 0.80, pgbench: []string{"-M", "simple", "-c", "4", "-C"}},
	{Name: "copy", Unit: "GB", Base: PgBouncer64k, Must: 1.05},
}

func queries(protocol string, clients int, base string, must float64) Cell {
	return Cell{
		Name: fmt.Sprintf("%s/%d", protocol, clients), Unit: "query", Base: base, Must: must,
		pgbench: []string{"-M", protocol, "-c", strconv.Itoa(clients)},
	}
}

// FindCells returns the cells of the names.
func FindCells(names []string) ([]Cell, error) {
	var found []Cell
	for _, name := range names {
		before := len(found)
		for _, c := range Cells {
			if c.Name == name {
				found = append(found, c)
			}
		}
		if len(found) == before {
			return nil, fmt.Errorf("there is no cell %q: the cells are %s", name, strings.Join(CellNames(), ", "))
		}
	}
	return found, nil
}

// CellNames are the names of all cells.
func CellNames() []string {
	var names []string
	for _, c := range Cells {
		names = append(names, c.Name)
	}
	return names
}

func (c Cell) prepared() bool { return strings.HasPrefix(c.Name, "prepared") }

// slack is how much longer than its length a measurement may take: a system that has lost
// a connection would hold up everything until PostgreSQL gives up on it.
const slack = 30 * time.Second

// measure runs the cell's work once.
func (c Cell) measure(ctx context.Context, b *comparison, s system) (Sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*b.Length+slack, errStuck)
	defer cancel()
	sample, err := c.work(ctx, b, s)
	if errors.Is(context.Cause(ctx), errStuck) {
		err = fmt.Errorf("%w: %w", errStuck, err)
	}
	return sample, err
}

func (c Cell) work(ctx context.Context, b *comparison, s system) (Sample, error) {
	if c.pgbench == nil {
		return b.copyOut(ctx, s)
	}
	idle, err := b.connectAll(ctx, s, c.idle)
	defer closeAll(ctx, idle)
	if err != nil {
		return Sample{}, err
	}
	run := b.once
	if c.several {
		run = b.together
	}
	sample, err := run(ctx, s, c.pgbench)
	for range 2 {
		if errors.Is(err, errNoProgress) {
			sample, err = run(ctx, s, c.pgbench)
		}
	}
	return sample, err
}

var (
	// errNoProgress is what a machine that is too busy gives instead of a measurement.
	errNoProgress = errors.New("pgbench has told of no progress")
	errStuck      = errors.New("it does not come to an end")
)

// progressLine is what pgbench -P prints each second.
var progressLine = regexp.MustCompile(`^progress: ([\d.]+) s, ([\d.]+) tps`)

// once runs pgbench and reads the system's CPU time at each of its progress lines.
func (b *comparison) once(ctx context.Context, s system, args []string) (Sample, error) {
	args = append([]string{"-n", "-S", "-j", "1", "-P", "1", "-T", strconv.Itoa(int(b.Length / time.Second))}, args...)
	cmd := exec.CommandContext(ctx, b.pgbench, args...)
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
	return sample, err
}

// watch adds up what happens between the first and the last progress line.
func watch(said io.Reader, pid func() int) (Sample, error) {
	var first, last time.Duration
	var begun, ended, done float64
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		m := progressLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		used, err := cpuOf(pid)
		if err != nil {
			return Sample{}, err
		}
		at, _ := strconv.ParseFloat(m[1], 64) // the pattern lets only numbers through
		rate, _ := strconv.ParseFloat(m[2], 64)
		if begun == 0 {
			begun, first = at, used
		} else {
			done += rate * (at - ended)
		}
		ended, last = at, used
	}
	if done == 0 {
		return Sample{}, errNoProgress
	}
	return Sample{Rate: done / (ended - begun), CPU: time.Duration(float64(last-first) / done)}, lines.Err()
}

// copies is how often the table is copied in one measurement.
const copies = 3

// copyOut has psql read a table by COPY, and throw it away.
func (b *comparison) copyOut(ctx context.Context, s system) (Sample, error) {
	args := []string{"-qXAt", "-v", "ON_ERROR_STOP=1"}
	for range copies {
		args = append(args, "-c", "COPY pgbench_accounts TO STDOUT")
	}
	cmd := exec.CommandContext(ctx, "psql", args...)
	var size counter
	var said strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), s.env...), &size, &said
	before, err := cpuOf(s.pid)
	if err != nil {
		return Sample{}, err
	}
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return Sample{}, fmt.Errorf("psql: %w: %s", err, said.String())
	}
	took := time.Since(begun)
	after, err := cpuOf(s.pid)
	gigabytes := float64(size) / 1e9
	return Sample{Rate: gigabytes / took.Seconds(), CPU: time.Duration(float64(after-before) / gigabytes)}, err
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
