package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options are what a run is asked for.
type Options struct {
	Bin      string        // folder of armord and armorctl
	Dir      string        // where everything of the run is kept; must not exist yet, or be empty
	Seed     uint64        // of every random choice; the interleaving is the machine's
	Duration time.Duration // of the faults, without start and final checks
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

// The scenario's size: three nodes on a pool of nine server connections, six ledger
// clients, two that must always be served, two that live through revocations.
const (
	failoverNodes    = 3
	failoverBudget   = 9
	failoverLedgers  = 6
	failoverReachers = 2
	failoverRevokers = 2
	// patienceLive is T_live: within it a valid client finds a node that serves it.
	patienceLive = 15 * time.Second
)

// Failover kills and stops the leader again and again while apps write, certificates
// are issued and revoked, and valid clients knock on every node.
func Failover(ctx context.Context, o Options) (Report, error) {
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
	history.Add(Event{Kind: KindSettings, Budget: failoverBudget, Patience: patienceLive})
	if err := failover(ctx, o, history); err != nil {
		return Report{}, errors.Join(err, history.Flush())
	}
	events := history.Events()
	report := Report{Seed: o.Seed, Coverage: Coverage(events), Missing: Missing(events), Violations: Check(events), History: path}
	return report, history.Flush()
}

func failover(ctx context.Context, o Options, history *History) error {
	pgDir := filepath.Join(o.Dir, "postgres")
	if err := os.MkdirAll(pgDir, 0o755); err != nil {
		return err
	}
	pg, err := startPostgres(ctx, pgDir)
	if err != nil {
		return err
	}
	defer pg.stop()
	c, err := prepare(ctx, o.Bin, o.Dir, pg.url(), failoverNodes, clusterConfig(failoverBudget))
	if err != nil {
		return err
	}
	defer c.stopAll()
	if err := c.startAll(ctx); err != nil {
		return err
	}
	w := &workload{cluster: c, history: history, seed: o.Seed, dir: filepath.Join(o.Dir, "certificates"), logf: o.Logf}
	if err := w.underFire(ctx, o); err != nil {
		return err
	}
	return w.settle(ctx, pg)
}

// underFire runs every client and the nemesis for the run's duration.
func (w *workload) underFire(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	id := 0
	spawn := func(count int, run func(context.Context, int) error) {
		for range count {
			id++
			mine := id
			group.Go(func() error { return run(ctx, mine) })
		}
	}
	spawn(failoverLedgers, w.ledger)
	spawn(failoverReachers, w.reach)
	spawn(failoverRevokers, w.revoke)
	m := &nemesis{cluster: w.cluster, history: w.history, random: rand.New(rand.NewPCG(o.Seed, 0)), logf: o.Logf}
	group.Go(func() error { return m.run(ctx) })
	return group.Wait()
}

// settle waits until every node serves again, knocks once more with every revoked
// certificate, and reads what PostgreSQL says of it all.
func (w *workload) settle(ctx context.Context, pg *postgres) error {
	if names := w.cluster.crashed(); len(names) > 0 {
		return fmt.Errorf("%s ended by itself", strings.Join(names, ", "))
	}
	if err := w.cluster.awaitServing(ctx, time.Minute); err != nil {
		return err
	}
	for _, e := range w.history.Events() {
		if e.Kind != KindRevoke || e.Outcome != OK {
			continue
		}
		dir := filepath.Join(w.dir, e.Subject)
		app, err := loadClient(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), w.cluster.env["PGSSLROOTCERT"])
		if err != nil {
			return err
		}
		w.knock(ctx, app, e.Subject)
	}
	w.cluster.stopAll()
	keys, err := pg.ledger(ctx)
	if err != nil {
		return err
	}
	slices.Sort(keys)
	for _, key := range keys {
		w.history.Add(Event{Kind: KindLedger, Subject: key})
	}
	backends, err := pg.backends(w.history.At)
	for _, e := range backends {
		w.history.Add(e)
	}
	return err
}
