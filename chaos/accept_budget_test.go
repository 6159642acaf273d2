package chaos

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/armordb/armordb/chaos/site"
)

// TestKilledNodeKeepsTheBudget: PostgreSQL goes on with what a killed node's clients run, if they
// have asked it to, and the node that starts again opens nothing beside it.
func TestKilledNodeKeepsTheBudget(t *testing.T) {
	const budget = 18 // of the arena's pool
	a := acceptance(t)
	pg, err := a.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(context.WithoutCancel(t.Context()))
	// Those of other tests' pools go, and are gone before anybody can be lent one.
	if _, err := pg.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM "+appsBackends); err != nil {
		t.Fatal(err)
	}
	for _, n := range a.Nodes {
		eventually(t, n.Name+" serves", func() bool { return a.demoClient(t).Ping(t.Context(), n) == nil })
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	for _, n := range a.Nodes {
		for _, conn := range a.crowd(t, a.demoClient(t), n, budget/3) {
			working.Go(func() {
				defer site.CloseConn(context.WithoutCancel(ctx), conn)
				_ = site.Exec(ctx, conn, "SET client_connection_check_interval = 0; SELECT pg_sleep(3600)") // it is cut
			})
		}
	}
	eventually(t, "PostgreSQL has as many as it may", func() bool { return backends(t, pg) == budget })
	most := 0
	working.Go(func() {
		for site.Sleep(ctx, 20*time.Millisecond) {
			most = max(most, backends(t, pg))
		}
	})
	killed := a.Nodes[0]
	a.restart(t, killed, func(n *site.Node) {
		if err := syscall.Kill(a.pid(t, n), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
	served := a.crowd(t, a.demoClient(t), killed, budget/3)
	stop()
	working.Wait()
	for _, conn := range served {
		site.CloseConn(t.Context(), conn)
	}
	if most > budget {
		t.Errorf("%d backends of %d", most, budget)
	}
}

// backends is how many of the app's PostgreSQL has.
func backends(t *testing.T, pg *pgx.Conn) (n int) {
	t.Helper()
	if err := pg.QueryRow(context.WithoutCancel(t.Context()), "SELECT count(*) FROM "+appsBackends).Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

const appsBackends = "pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'"
