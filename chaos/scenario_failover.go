package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// The scenario's size: three nodes on a pool of nine server connections, six ledger
// clients, two that must always be served, two that live through revocations.
const (
	failoverName     = "failover"
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
	return run(ctx, o, Event{Kind: KindSettings, Subject: failoverName, Budget: failoverBudget, Patience: patienceLive}, failover)
}

func failover(ctx context.Context, o Options, history *History) error {
	pg, err := startPostgresIn(ctx, o.Dir)
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
	return w.readPostgres(ctx, pg)
}

// readPostgres records what PostgreSQL says of the run: its ledger, and its backends.
func (w *workload) readPostgres(ctx context.Context, pg *postgres) error {
	keys, err := committed(ctx, pg)
	if err != nil {
		return err
	}
	slices.Sort(keys)
	for _, key := range keys {
		w.history.Add(Event{Kind: KindLedger, Subject: key})
	}
	backends, err := readBackends(pg, w.history.At)
	for _, e := range backends {
		w.history.Add(e)
	}
	return err
}
