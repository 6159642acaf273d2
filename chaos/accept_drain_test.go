package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// bookkeeper is an app that writes one row in each transaction, reconnects when it is
// sent away between two of them, and knows what was acknowledged.
type bookkeeper struct {
	app     site.Client
	through *site.Node // the load balancer
	name    string

	acknowledged []string
	sentAway     int     // between transactions, with 57P01
	broken       []error // transactions that had begun
}

func (b *bookkeeper) run(ctx context.Context) {
	var conn *pgconn.PgConn
	for n := 0; ctx.Err() == nil; n++ {
		if conn == nil {
			var err error
			if conn, err = b.app.Connect(ctx, b.through); err != nil {
				conn = nil
				site.Sleep(ctx, 20*time.Millisecond) // nothing had begun
				continue
			}
		}
		if b.transaction(conn, fmt.Sprintf("%s-%d", b.name, n)); conn.IsClosed() {
			conn = nil
		}
	}
	if conn != nil {
		site.CloseConn(ctx, conn)
	}
}

// transaction has begun once BEGIN is answered: from then on it may not fail.
func (b *bookkeeper) transaction(conn *pgconn.PgConn, key string) {
	ctx := context.Background() // what has begun is brought to its end
	if err := site.Exec(ctx, conn, "BEGIN"); err != nil {
		refusal := (*pgconn.PgError)(nil)
		if errors.As(err, &refusal) && refusal.Code == "57P01" {
			b.sentAway++
		} else if !errors.As(err, &refusal) && !pgconn.SafeToRetry(err) {
			b.broken = append(b.broken, fmt.Errorf("%s: BEGIN: %w", key, err))
		}
		site.CloseConn(ctx, conn)
		return
	}
	for _, sql := range []string{fmt.Sprintf("INSERT INTO ledger VALUES ('%s')", key), "SELECT pg_sleep(0.02)", "COMMIT"} {
		if err := site.Exec(ctx, conn, sql); err != nil {
			b.broken = append(b.broken, fmt.Errorf("%s: %s: %w", key, sql, err))
			site.CloseConn(ctx, conn)
			return
		}
	}
	b.acknowledged = append(b.acknowledged, key)
}

// TestRollingRestartBreaksNoTransaction restarts one node after the other, by SIGTERM or
// as an operator, while apps write through the load balancer.
func TestRollingRestartBreaksNoTransaction(t *testing.T) {
	a := acceptance(t)
	port, err := strconv.Atoi(a.Env["PGPORT"])
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	books := make([]*bookkeeper, 9)
	for i := range books {
		books[i] = &bookkeeper{app: a.demoClient(t), through: &site.Node{Name: "balancer", Port: port},
			name: fmt.Sprintf("rolling%d-%d", time.Now().UnixNano(), i)}
		working.Go(func() { books[i].run(ctx) })
	}
	drained := func(n *site.Node) { a.ctl(t, "node", "drain", n.Name, "--yes") }
	for i, end := range []func(*site.Node){a.terminate(t), drained, a.terminate(t)} {
		site.Sleep(ctx, time.Second)
		a.restart(t, a.Nodes[i], end)
	}
	site.Sleep(ctx, time.Second)
	stop()
	working.Wait()
	var acknowledged []string
	sentAway := 0
	for _, b := range books {
		acknowledged = append(acknowledged, b.acknowledged...)
		sentAway += b.sentAway
		for _, err := range b.broken {
			t.Error(err)
		}
	}
	t.Logf("%d transactions, %d times sent away between two", len(acknowledged), sentAway)
	a.inLedger(t, acknowledged)
}

// terminate ends a node's process by SIGTERM.
func (a *arena) terminate(t *testing.T) func(*site.Node) {
	return func(n *site.Node) {
		if err := syscall.Kill(a.pid(t, n), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
}

// restart has a node's process end and starts it again.
func (a *arena) restart(t *testing.T, n *site.Node, end func(*site.Node)) {
	t.Helper()
	pid := a.pid(t, n)
	end(n)
	eventually(t, n.Name+" has ended", func() bool { return syscall.Kill(pid, 0) != nil })
	if err := a.Start(n); err != nil {
		t.Fatal(err)
	}
	if err := a.AwaitServing(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
}

// inLedger checks that what was acknowledged is there, once each.
func (a *arena) inLedger(t *testing.T, acknowledged []string) {
	t.Helper()
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	rows, err := committed(t.Context(), a.pg)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows)
	for _, key := range acknowledged {
		first, found := slices.BinarySearch(rows, key)
		if !found {
			t.Errorf("%s was acknowledged and is not there", key)
		} else if first+1 < len(rows) && rows[first+1] == key {
			t.Errorf("%s is there more than once", key)
		}
	}
}
