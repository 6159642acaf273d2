package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/armordb/armordb/chaos/site"
)

// The scenario's size: two nodes that share ten server connections, in a pool of each
// mode. Of ten clients six come to the pool in transaction mode, two to each other one.
const (
	loadName              = "load"
	loadNodes             = 2
	loadTransactionBudget = 4
	loadSessionBudget     = 4
	loadStatementBudget   = 2
	loadAccounts          = 50
	loadWarmers           = 20 // clients, for loadWarmUp
	loadWarmUp            = 3 * time.Second
)

// Load lets many clients work through few server connections, cancel, and break off in
// every way, while nobody breaks anything else.
func Load(ctx context.Context, o Options) (Report, error) {
	budget := loadTransactionBudget + loadSessionBudget + loadStatementBudget
	return run(ctx, o, Event{Kind: KindSettings, Subject: loadName, Budget: budget}, load)
}

func load(ctx context.Context, o Options, history *History) error {
	pg, err := startServer(ctx, filepath.Join(o.Dir, "postgres"))
	if err != nil {
		return err
	}
	defer pg.Stop()
	if err := openAccounts(ctx, pg); err != nil {
		return err
	}
	c, err := site.Prepare(ctx, site.Plan{Bin: o.Bin, Dir: o.Dir, Postgres: pg.URL(), Nodes: loadNodes, Config: loadConfig(pg.Port)})
	if err != nil {
		return err
	}
	defer c.StopAll()
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	w := &workload{cluster: c, history: history, seed: o.Seed, dir: filepath.Join(o.Dir, "certificates"), logf: o.Logf}
	// Connections between the nodes, for cancel requests, come once and stay.
	if err := w.underLoad(ctx, loadWarmUp, o.Clients, loadWarmers); err != nil {
		return err
	}
	before, err := w.nodeLevels(ctx)
	if err != nil {
		return err
	}
	if err := w.underLoad(ctx, o.Duration, 0, o.Clients); err != nil {
		return err
	}
	return w.comeToRest(ctx, pg, before)
}

// loadConfig has a pool in each mode in front of the same database.
func loadConfig(port int) string {
	config := ""
	for _, mode := range []string{"session", "statement"} {
		config += fmt.Sprintf(`---
apiVersion: armor/v1
kind: Database
metadata: {name: app_%[1]s, environment: dev}
spec:
  hosts: ["127.0.0.1:%[2]d"]
  dbname: app
  tls: {mode: disable}
  auth: {roles: {app: {secret: app}}}
`, mode, port)
	}
	for _, p := range []struct {
		name, mode string
		budget     int
	}{
		{"app", "transaction", loadTransactionBudget},
		{"app_session", "session", loadSessionBudget},
		{"app_statement", "statement", loadStatementBudget},
	} {
		config += fmt.Sprintf(`---
apiVersion: armor/v1
kind: Pool
metadata: {name: %[1]s, environment: dev}
spec: {database: %[1]s, mode: %[2]s, budget: %[3]d}
`, p.name, p.mode, p.budget)
	}
	return config + `---
apiVersion: armor/v1
kind: Identity
metadata: {name: demo, environment: dev}
spec:
  id: spiffe://dev.armor-dev.internal/app/demo
  owner: chaos
  grants:
  - {database: app, roles: [app], pool: app}
  - {database: app_session, roles: [app], pool: app_session}
  - {database: app_statement, roles: [app], pool: app_statement}
`
}

// openAccounts makes the accounts between which the ledger moves, and a role that the
// clients' own may SET.
func openAccounts(ctx context.Context, p *site.Postgres) error {
	conn, err := p.Admin(ctx, site.AppDatabase)
	if err != nil {
		return fmt.Errorf("open accounts: %w", err)
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, fmt.Sprintf(`
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
ALTER TABLE accounts OWNER TO %[1]s;
INSERT INTO accounts SELECT id, 0 FROM generate_series(0, %[2]d) id;
CREATE ROLE other; GRANT other TO %[1]s;`, site.AppRole, loadAccounts-1))
	return err
}

// balances records every account.
func (w *workload) balances(ctx context.Context, p *site.Postgres) error {
	conn, err := p.Admin(ctx, site.AppDatabase)
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id::text, balance FROM accounts ORDER BY id")
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	var id string
	var balance int
	_, err = pgx.ForEachRow(rows, []any{&id, &balance}, func() error {
		w.history.Add(Event{Kind: KindBalance, Subject: id, Found: balance})
		return nil
	})
	return err
}

// underLoad runs clients, numbered from first on, for a while. What they have begun they
// end.
func (w *workload) underLoad(ctx context.Context, length time.Duration, first, count int) error {
	app, err := w.cluster.Demo()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for i := range count {
		group.Go(func() error { return newLoader(w, app, first+i).run(ctx) })
	}
	return group.Wait()
}

// nodeLevels returns each node's, by its name.
func (w *workload) nodeLevels(ctx context.Context) (map[string]levels, error) {
	all := map[string]levels{}
	for _, n := range w.cluster.Nodes {
		var err error
		if all[n.Name], err = highest(ctx, n); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// comeToRest waits until nothing of the clients is left, and reads what they have done.
func (w *workload) comeToRest(ctx context.Context, pg *site.Postgres, before map[string]levels) error {
	for _, n := range w.cluster.Nodes {
		allowed := levels{
			"goroutines":  before[n.Name]["goroutines"] + levelSlack,
			"descriptors": before[n.Name]["descriptors"] + levelSlack,
		}
		if err := w.comeBack(ctx, n.Name, allowed, func(ctx context.Context) (levels, error) { return nodeLevels(ctx, n) }); err != nil {
			return err
		}
	}
	left := func(ctx context.Context) (levels, error) { return serverLevels(ctx, pg) }
	if err := w.comeBack(ctx, "PostgreSQL", nil, left); err != nil {
		return err
	}
	w.cluster.StopAll()
	if err := w.balances(ctx, pg); err != nil {
		return err
	}
	return w.readPostgres(ctx, pg)
}
