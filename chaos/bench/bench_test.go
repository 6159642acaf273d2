package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

func sample(system string, round int, cpu time.Duration) Sample {
	return Sample{System: system, Cell: "c", Round: round, CPU: cpu}
}

func TestOnlyRoundsWithBothAreCompared(t *testing.T) {
	samples := []Sample{
		sample(Armor, 0, 10), sample(Armor, 1, 30), sample(Armor, 3, 80),
		sample(PlainRelay, 1, 10), sample(PlainRelay, 2, 1), sample(PlainRelay, 3, 20),
	}
	got := Compare(samples, Armor, PlainRelay, "c", func(s Sample) float64 { return float64(s.CPU) })
	if want := (Ratios{Median: 4, Min: 3, Max: 4, Rounds: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFailedMeasurementIsAGapAndTheRestGoesOn(t *testing.T) {
	b := &comparison{Options: Options{Rounds: 2, Cells: []Cell{{Name: "c", pgbench: []string{}}}, Length: time.Second, Logf: t.Logf}}
	b.pgbench = "/there/is/no/pgbench"
	b.systems = []system{{name: Armor}, {name: PlainRelay, fits: func(Cell) bool { return false }}}
	if err := b.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := b.results; len(r.Gaps) != 2 || !r.Missed(Armor) || r.Missed(PlainRelay) {
		t.Errorf("gaps: %v", r.Gaps)
	}
}

func TestWorkOfNeighboursAddsUp(t *testing.T) {
	// Half a second of CPU in each second: 100 and 300 queries were done in it.
	got := sumOf([]Sample{{Rate: 100, CPU: 5 * time.Millisecond}, {Rate: 300, CPU: 500 * time.Millisecond / 300}})
	if off := got.CPU - 1250*time.Microsecond; got.Rate != 400 || off.Abs() > time.Microsecond {
		t.Errorf("got %+v", got)
	}
}

func TestInterruptedRunKeepsWhatItHas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &comparison{Options: Options{Rounds: 2, Cells: []Cell{{Name: "c", pgbench: []string{}}}, Logf: t.Logf}}
	b.systems = []system{{name: Armor}}
	b.results.Samples = []Sample{sample(Armor, 0, 1)}
	if err := b.measure(ctx); !errors.Is(err, context.Canceled) || len(b.results.Samples) != 1 || len(b.results.Gaps) != 0 {
		t.Errorf("measure: %v; %+v", err, b.results)
	}
}
