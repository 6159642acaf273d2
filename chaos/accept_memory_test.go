package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/armordb/armordb/chaos/site"
)

// What docs/operate.md says that a node takes: so much for each client that is
// connected, and so much more for each that is busy, in bytes of anonymous memory. An
// idle client takes about 20 KB, and the collector as much again before it runs.
const (
	idleClients, idleBytes = 5000, 32 << 10
	busyClients, busyBytes = 500, 64 << 10
)

// TestMemoryIsBoundedByClients: by their number, whatever they ask for, how slowly they
// read, and how much they write.
func TestMemoryIsBoundedByClients(t *testing.T) {
	a := acceptance(t)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Max < 2*idleClients {
		t.Skipf("needs %d open files, the limit is %d (%v)", 2*idleClients, files.Max, err)
	}
	app, n := a.demoClient(t), a.Nodes[0]
	pid := a.pid(t, n)
	before := taken(t, pid)
	idle := a.crowd(t, app, n, idleClients)
	allowed := before + idleClients*idleBytes
	eventually(t, fmt.Sprintf("%d idle clients take %d KB each or less", idleClients, idleBytes>>10), func() bool {
		now := taken(t, pid)
		t.Logf("idle: %d KB each", (now-before)/idleClients>>10)
		return now <= allowed
	})
	busy := a.crowd(t, app, n, busyClients)
	allowed += busyClients * (idleBytes + busyBytes)
	for _, phase := range []struct {
		name string
		work func(ctx context.Context, conn *pgconn.PgConn)
	}{
		{"ask and read", askAndRead}, {"read slowly", readSlowly}, {"write and do not read", writeOnly},
	} {
		highest := underWork(t, pid, busy, phase.work)
		t.Logf("%s: up to %d MiB of %d", phase.name, highest>>20, allowed>>20)
		if highest > allowed {
			t.Errorf("while %d clients %s the node takes %d MiB, at most %d were promised", busyClients, phase.name, highest>>20, allowed>>20)
		}
	}
	for _, conn := range append(idle, busy...) {
		reset(conn)
	}
	eventually(t, "all sessions have ended", func() bool {
		levels, err := nodeLevels(t.Context(), n)
		return err == nil && levels["sessions"] == 0
	})
}

func taken(t *testing.T, pid int) int {
	t.Helper()
	bytes, err := site.AnonymousMemory(pid)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// crowd connects clients that have run one query.
func (a *arena) crowd(t *testing.T, app site.Client, n *site.Node, count int) []*pgconn.PgConn {
	t.Helper()
	config, err := app.Config(n, site.AppDatabase, site.AppRole)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*pgconn.PgConn, count)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range all {
		group.Go(func() error {
			var err error
			if all[i], err = pgconn.ConnectConfig(ctx, config.Copy()); err != nil {
				return err
			}
			_, err = all[i].Exec(ctx, "SELECT 1").ReadAll()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// underWork lets every client work for a while and returns the most that the node took.
func underWork(t *testing.T, pid int, clients []*pgconn.PgConn, work func(context.Context, *pgconn.PgConn)) (highest int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var working sync.WaitGroup
	for _, conn := range clients {
		working.Go(func() { work(ctx, conn) })
	}
	for site.Sleep(ctx, 100*time.Millisecond) {
		highest = max(highest, taken(t, pid))
	}
	working.Wait()
	return highest
}

func askAndRead(ctx context.Context, conn *pgconn.PgConn) {
	for ctx.Err() == nil {
		if _, err := conn.Exec(context.WithoutCancel(ctx), "SELECT repeat('x', 10000)").ReadAll(); err != nil {
			return
		}
	}
}

// readSlowly asks for far more than it reads. The connection is of no use afterwards
// except for writing.
func readSlowly(ctx context.Context, conn *pgconn.PgConn) {
	end, _ := ctx.Deadline()
	conn.Conn().SetDeadline(end)
	conn.Conn().Write(message('Q', "SELECT repeat('x', 1000000) FROM generate_series(1, 100)\x00"))
	buf := make([]byte, 1024)
	for site.Sleep(ctx, 20*time.Millisecond) {
		conn.Conn().Read(buf)
	}
}

// writeOnly sends queries for as long as they are taken.
func writeOnly(ctx context.Context, conn *pgconn.PgConn) {
	end, _ := ctx.Deadline()
	conn.Conn().SetDeadline(end)
	query := message('Q', "SELECT '"+strings.Repeat("x", 100_000)+"'\x00")
	for ctx.Err() == nil {
		if _, err := conn.Conn().Write(query); err != nil {
			return
		}
	}
}
