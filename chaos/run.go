package chaos

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Options are what a run is asked for.
type Options struct {
	Bin      string        // folder of armord and armorctl
	Dir      string        // where everything of the run is kept; must not exist yet, or be empty
	Seed     uint64        // of every random choice; the interleaving is the machine's
	Duration time.Duration // of the faults, without start and final checks
	Clients  int           // of the load
	Key      string        // whose key the thief of a hostile run has: one of Keys
	Without  []string      // what that thief does not do, by the names in its report
	Logf     func(string, ...any)
}

// Report is what a run came to.
type Report struct {
	Seed       uint64         `json:"seed"`
	Coverage   map[string]int `json:"coverage"`
	Missing    []string       `json:"missing,omitempty"` // what should have been observed and was not
	Violations []Violation    `json:"violations,omitempty"`
	History    string         `json:"history"`
}

// Clean reports whether the run observed what it should and found nothing broken.
func (r Report) Clean() bool { return len(r.Missing) == 0 && len(r.Violations) == 0 }

// run lets a scenario write a history that begins with its settings, and checks it.
func run(ctx context.Context, o Options, settings Event, scenario func(context.Context, Options, *History) error) (Report, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return Report{}, err
	}
	path := filepath.Join(o.Dir, "history.jsonl")
	file, err := os.Create(path)
	if err != nil {
		return Report{}, err
	}
	defer file.Close()
	history := NewHistory(file)
	history.Add(settings)
	if err := scenario(ctx, o, history); err != nil {
		return Report{}, errors.Join(err, history.Flush())
	}
	events := history.Events()
	report := Report{Seed: o.Seed, Coverage: Coverage(events), Missing: Missing(events), Violations: Check(events), History: path}
	return report, history.Flush()
}
