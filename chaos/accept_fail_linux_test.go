package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/armordb/armordb/chaos/site"
)

// frail is one node in front of a PostgreSQL of its own, that fails in every way, on a
// file system of its own, that fills up. Meanwhile apps write a ledger.
type frail struct {
	*site.Cluster
	pg      *site.Postgres
	history *History
	app     site.Client
}

const (
	frailFileSystem     = "size=256m"
	frailMaxConnections = 20
	frailConfig         = `apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: dev}
spec: {database: app, mode: transaction, budget: 8}
`
)

// newFrail starts both, and the ledger's apps.
func newFrail(t *testing.T) *frail {
	t.Helper()
	a := acceptance(t)
	dir, err := os.MkdirTemp(a.dir, "frail-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's user must get through
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "postgres")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	switch err := syscall.Mount("tmpfs", disk, "tmpfs", 0, frailFileSystem); {
	case errors.Is(err, syscall.EPERM):
		t.Skip("mounts a file system to fill, which needs root")
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := &frail{history: NewHistory(io.Discard)}
	if f.pg, err = startServer(t.Context(), disk, fmt.Sprintf("max_connections=%d", frailMaxConnections),
		"restart_after_crash=on"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.pg.Stop() })
	if f.Cluster, err = site.Prepare(t.Context(),
		site.Plan{Bin: a.Bin, Dir: dir, Postgres: f.pg.URL(), Nodes: 1, Config: frailConfig}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.StopAll)
	if err := f.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.app, err = f.Demo(); err != nil {
		t.Fatal(err)
	}
	return f
}

// keepLedger lets apps write until the function that it returns is called, which checks
// that every acknowledged transaction is there once.
func (f *frail) keepLedger(t *testing.T) (check func()) {
	w := &workload{cluster: f.Cluster, history: f.history, logf: t.Logf}
	ctx, stop := context.WithCancel(t.Context())
	var apps errgroup.Group
	for id := range 4 {
		apps.Go(func() error { return w.ledger(ctx, id) })
	}
	return func() {
		stop()
		if err := apps.Wait(); err != nil {
			t.Error(err)
		}
		if err := w.readPostgres(t.Context(), f.pg); err != nil {
			t.Error(err)
		}
		events := f.history.Events()
		for _, message := range checkLedger(events) {
			t.Error(message)
		}
		counts := Coverage(events)
		t.Log(counts)
		if counts["commit ok"] == 0 || counts["commit fail"]+counts["commit unknown"] == 0 {
			t.Errorf("the apps have written nothing, or nothing has hit them: %v", counts)
		}
	}
}

func (f *frail) connect(t *testing.T) *pgconn.PgConn {
	t.Helper()
	conn, err := f.app.Connect(t.Context(), f.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.CloseConn(t.Context(), conn) })
	return conn
}

// asked sends a query and returns its end as it comes. The query is known to run when
// asked returns: its marker is seen in PostgreSQL.
func (f *frail) asked(t *testing.T, conn *pgconn.PgConn, sql string) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() {
		defer cancel()
		_, err := conn.Exec(ctx, sql).ReadAll()
		ended <- err
	}()
	eventually(t, sql+" runs", func() bool { return f.pidOf(t, sql) != 0 })
	return ended
}

// pidOf returns the backend that runs a query, or has run it last.
func (f *frail) pidOf(t *testing.T, sql string) int {
	t.Helper()
	conn, err := f.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		return 0 // it is down
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var pid int
	err = conn.QueryRow(t.Context(),
		"SELECT pid FROM pg_stat_activity WHERE usename = $1 AND query = $2 ORDER BY state = 'active' DESC LIMIT 1", site.AppRole, sql).Scan(&pid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Logf("look for a backend: %v", err)
	}
	return pid
}

func (f *frail) terminate(t *testing.T, pid int) {
	t.Helper()
	conn, err := f.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
}

// documented checks that an error is what docs/pooling.md says under "When PostgreSQL
// fails" that clients read in this case.
func documented(t *testing.T, what string, err error) {
	t.Helper()
	page, readErr := os.ReadFile("../docs/pooling.md")
	if readErr != nil {
		t.Fatal(readErr)
	}
	_, section, _ := strings.Cut(string(page), "\n## When PostgreSQL fails\n")
	section, _, _ = strings.Cut(section, "\n## ")
	e := (*pgconn.PgError)(nil)
	if !errors.As(err, &e) {
		t.Errorf("%s: the client reads %v", what, err)
		return
	}
	message, _, _ := strings.Cut(e.Message, ` "base/`) // a file's name
	for row := range strings.Lines(section) {
		if strings.HasPrefix(row, "| "+what+" |") {
			if !strings.Contains(row, fmt.Sprintf("| %s %s `%s`", e.Severity, e.Code, message)) {
				t.Errorf("%s: the client reads %s %s `%s` (%s), the page says:\n%s", what, e.Severity, e.Code, e.Message, e.Detail, row)
			}
			return
		}
	}
	t.Errorf("%s: the page does not speak of it; the client reads %s %s `%s` (%s)", what, e.Severity, e.Code, e.Message, e.Detail)
}

// recovers waits until new clients are served, and one that was idle all the time is.
func (f *frail) recovers(t *testing.T, idle *pgconn.PgConn) {
	t.Helper()
	eventually(t, "new clients are served", func() bool { return f.app.Ping(t.Context(), f.Nodes[0]) == nil })
	if err := site.Exec(t.Context(), idle, "SELECT 1"); err != nil {
		t.Errorf("a client that was idle all the time: %v", err)
	}
}

// TestWhatClientsSeeWhenPostgreSQLFails goes through the table of docs/pooling.md, while
// apps write a ledger.
func TestWhatClientsSeeWhenPostgreSQLFails(t *testing.T) {
	f := newFrail(t)
	check := f.keepLedger(t)
	idle := f.connect(t)
	if err := site.Exec(t.Context(), idle, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		fail func(*testing.T)
	}{
		{"a backend is terminated", f.backendIsTerminated},
		{"a backend is killed", f.backendIsKilled},
		{"it is stopped fast", func(t *testing.T) { f.isStopped(t, syscall.SIGINT, "PostgreSQL is stopped (fast)") }},
		{"it is stopped immediately", func(t *testing.T) { f.isStopped(t, syscall.SIGQUIT, "PostgreSQL is stopped (immediate)") }},
		{"others take all connections", f.hasNoConnectionsLeft},
		{"the disk is full", f.diskIsFull},
		{"the disk of the log is full", f.logIsFull},
	} {
		t.Run(c.name, func(t *testing.T) { c.fail(t); f.recovers(t, idle) })
	}
	if names := f.Crashed(); len(names) > 0 {
		t.Errorf("%v ended by itself", names)
	}
	check()
}

func (f *frail) backendIsTerminated(t *testing.T) {
	const query, waits = "SELECT 'terminated', pg_sleep(30)", "SELECT 'terminated in a transaction'"
	ended := f.asked(t, f.connect(t), query)
	f.terminate(t, f.pidOf(t, query))
	documented(t, "`pg_terminate_backend`, in a query", <-ended)

	conn := f.connect(t)
	for _, sql := range []string{"BEGIN", waits} {
		if err := site.Exec(t.Context(), conn, sql); err != nil {
			t.Fatal(err)
		}
	}
	f.terminate(t, f.pidOf(t, waits))
	documented(t, "`pg_terminate_backend`, in a transaction, between two queries", told(t, conn))
}

// told waits for what the server says unasked to a client that waits.
func told(t *testing.T, conn *pgconn.PgConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return conn.WaitForNotification(ctx)
}

func (f *frail) backendIsKilled(t *testing.T) {
	const query, other, waits = "SELECT 'killed', pg_sleep(30)", "SELECT 'not killed', pg_sleep(30)", "SELECT 'in a transaction'"
	ended, others := f.asked(t, f.connect(t), query), f.asked(t, f.connect(t), other)
	conn := f.connect(t)
	for _, sql := range []string{"BEGIN", waits} {
		if err := site.Exec(t.Context(), conn, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(f.pidOf(t, query), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	documented(t, "a backend crashes, in its query", <-ended)
	documented(t, "… in the query of another", <-others)
	documented(t, "… in another's transaction, between two queries", told(t, conn))
}

func (f *frail) isStopped(t *testing.T, how os.Signal, what string) {
	query := "SELECT '" + what + "', pg_sleep(30)"
	ended := f.asked(t, f.connect(t), query)
	waiting := f.connect(t)
	if err := f.pg.End(how); err != nil {
		t.Fatal(err)
	}
	documented(t, what+", in a query", <-ended)
	held := make(chan error, 1)
	go func() { held <- site.Exec(t.Context(), waiting, "SELECT 1") }()
	if err := f.pg.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Errorf("who asked while PostgreSQL was down reads %v", err)
	}
}

// hasNoConnectionsLeft lets a superuser's clients take what there is.
func (f *frail) hasNoConnectionsLeft(t *testing.T) {
	client := f.connect(t)
	var all []*pgx.Conn
	defer func() {
		for _, conn := range all {
			conn.Close(context.WithoutCancel(t.Context()))
		}
	}()
	fill := func() {
		for {
			conn, err := f.pg.Admin(t.Context(), "postgres")
			if err != nil {
				return
			}
			all = append(all, conn)
		}
	}
	fill()
	if err := site.Exec(t.Context(), client, "SELECT 1"); err != nil {
		t.Errorf("the pool has connections, and its client reads %v", err)
	}
	if len(all) == 0 {
		t.Fatal("others found no connection free")
	}
	// The pool's connections end, and others are faster, sooner or later.
	var refusal error
	eventually(t, "clients are told that there is no connection left", func() bool {
		if _, err := all[0].Exec(t.Context(), "SELECT pg_terminate_backend(pid, 100) FROM pg_stat_activity WHERE usename = $1",
			site.AppRole); err != nil {
			t.Fatal(err)
		}
		fill()
		refusal = f.app.Ping(t.Context(), f.Nodes[0])
		e := (*pgconn.PgError)(nil)
		return errors.As(refusal, &e) && (strings.Contains(e.Detail, "too many clients already") ||
			strings.Contains(e.Detail, "remaining connection slots"))
	})
	documented(t, "`max_connections` is reached, and the pool has none", refusal)
}

// fill takes all the space of the server's file system, and returns how to free it.
func (f *frail) fill(t *testing.T) (free func()) {
	t.Helper()
	path := filepath.Join(f.pg.Dir, "ballast")
	out, err := exec.Command("dd", "if=/dev/zero", "of="+path, "bs=64k").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No space left") {
		t.Fatalf("the file system did not fill up: %v: %s", err, out)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func (f *frail) diskIsFull(t *testing.T) {
	conn := f.connect(t)
	free := f.fill(t)
	insert := "CREATE TABLE IF NOT EXISTS large (t text); INSERT INTO large SELECT repeat(md5(i::text), 20) FROM generate_series(1, 2000) i"
	documented(t, "no space for a table", site.Exec(t.Context(), conn, insert))
	if err := site.Exec(t.Context(), conn, "SELECT 1"); err != nil {
		t.Errorf("afterwards its session: %v", err)
	}
	free()
	if err := site.Exec(t.Context(), conn, insert); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// logIsFull leaves no space for the next segment of the write-ahead log, so that
// PostgreSQL stops.
func (f *frail) logIsFull(t *testing.T) {
	const query = "SELECT 'before the end', pg_sleep(30)"
	ended := f.asked(t, f.connect(t), query)
	free := f.fill(t)
	admin, err := f.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.WithoutCancel(t.Context()))
	for range 100 {
		if _, err = admin.Exec(t.Context(), "SELECT pg_switch_wal() FROM (SELECT pg_logical_emit_message(false, 'x', 'x')) x"); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("the log did not fill up")
	}
	documented(t, "no space for the write-ahead log, in a query", <-ended)
	free()
	if err := f.pg.Stop(); err != nil {
		t.Error(err)
	}
	if err := f.pg.Start(); err != nil {
		t.Fatal(err)
	}
}
