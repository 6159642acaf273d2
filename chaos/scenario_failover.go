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

	"github.com/armordb/armordb/chaos/site"
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
	pg, err := startServer(ctx, filepath.Join(o.Dir, "postgres"))
	if err != nil {
		return err
	}
	defer pg.Stop()
	plan := site.Plan{Bin: o.Bin, Dir: o.Dir, Postgres: pg.URL(), Nodes: failoverNodes, Config: clusterConfig(failoverBudget)}
	c, err := site.Prepare(ctx, plan)
	if err != nil {
		return err
	}
	defer c.StopAll()
	if err := c.StartAll(ctx); err != nil {
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
func (w *workload) settle(ctx context.Context, pg *site.Postgres) error {
	if names := w.cluster.Crashed(); len(names) > 0 {
		return fmt.Errorf("%s ended by itself", strings.Join(names, ", "))
	}
	if err := w.cluster.AwaitServing(ctx, time.Minute); err != nil {
		return err
	}
	for _, e := range w.history.Events() {
		if e.Kind != KindRevoke || e.Outcome != OK {
			continue
		}
		dir := filepath.Join(w.dir, e.Subject)
		app, err := site.LoadClient(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), w.cluster.Env["PGSSLROOTCERT"])
		if err != nil {
			return err
		}
		w.knock(ctx, app, e.Subject)
	}
	w.cluster.StopAll()
	return w.readPostgres(ctx, pg)
}

// readPostgres records what PostgreSQL says of the run: its ledger, and its backends.
func (w *workload) readPostgres(ctx context.Context, pg *site.Postgres) error {
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

// clusterConfig narrows the pool that `armord dev` makes, so that the budget is tight.
func clusterConfig(budget int) string {
	return fmt.Sprintf(`apiVersion: armor/v1
kind: Pool
metadata: {name: %[1]s, environment: dev}
spec: {database: %[1]s, mode: transaction, budget: %[2]d}
`, site.AppDatabase, budget)
}
