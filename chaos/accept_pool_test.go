package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// bothModes runs a claim against a transaction pool and a session pool.
func bothModes(t *testing.T, claim func(t *testing.T, database string)) {
	for mode, database := range map[string]string{"transaction": "app", "session": "app_session"} {
		t.Run(mode, func(t *testing.T) { claim(t, database) })
	}
}

func TestPsqlWorksThroughTheLoadBalancer(t *testing.T) {
	a := acceptance(t)
	bothModes(t, func(t *testing.T, database string) {
		db := []string{"PGDATABASE=" + database}
		if got := a.psql(t, db, "-c", "select current_user, 6*7"); got != "app|42" {
			t.Errorf("a query answered %q", got)
		}
		table := "t_" + database
		a.psql(t, db, "-c", "create table "+table+" (id int primary key, v text)")
		defer a.psql(t, db, "-c", "drop table "+table)

		data := filepath.Join(t.TempDir(), "rows")
		var rows strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&rows, "%d\tvalue %d\n", i, i)
		}
		if err := os.WriteFile(data, []byte(rows.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := a.psql(t, db, "-c", `\copy `+table+` from '`+data+`'`); got != "COPY 5000" {
			t.Errorf(`\copy in said %q`, got)
		}
		if got := a.psql(t, db, "-c", `\copy (select * from `+table+` order by id) to stdout`); got+"\n" != rows.String() {
			t.Errorf(`\copy out returned %d bytes, not %d`, len(got), rows.Len())
		}
		script := "begin; update " + table + " set v = 'x' where id = 1; rollback; begin; update " + table +
			" set v = 'y' where id = 1; commit; select v from " + table + " where id = 1"
		if got := a.psql(t, db, "-c", script); !strings.HasSuffix(got, "y") {
			t.Errorf("transactions ended with %q", got)
		}
		_, errOut, err := a.run(t, db, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "select 1/0")
		if err == nil || !strings.Contains(errOut, "division by zero") {
			t.Errorf("an error came out as %v: %s", err, errOut)
		}
	})
}

func TestPgbenchKeepsItsBalancesInEveryProtocol(t *testing.T) {
	a := acceptance(t)
	pgbench := filepath.Join(binOfPostgres(t), "pgbench")
	a.psql(t, nil, "-c", "select 1")
	if _, errOut, err := a.run(t, nil, pgbench, "-i", "-q", "-s", "1"); err != nil {
		t.Fatalf("pgbench -i: %v: %s", err, errOut)
	}
	bothModes(t, func(t *testing.T, database string) {
		for _, protocol := range []string{"simple", "extended", "prepared"} {
			out, errOut, err := a.run(t, []string{"PGDATABASE=" + database}, pgbench, "-n", "-M", protocol, "-c", "6", "-j", "2", "-t", "100")
			if err != nil || !strings.Contains(out, "number of transactions actually processed: 600/600") {
				t.Errorf("pgbench -M %s: %v: %s%s", protocol, err, out, errOut)
			}
		}
	})
	balances := "select (select sum(abalance) from pgbench_accounts) - (select sum(bbalance) from pgbench_branches) || ' ' || (select sum(tbalance) from pgbench_tellers) - (select sum(delta) from pgbench_history)"
	if got := a.psql(t, nil, "-c", balances); got != "0 0" {
		t.Errorf("balances are off by %s", got)
	}
}

func binOfPostgres(t *testing.T) string {
	t.Helper()
	bin, err := site.PostgresBin()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// rssLimit is what a node may use at most, in bytes of resident memory.
const rssLimit = 300 << 20

func TestLargeResultPassesWithoutBeingHeld(t *testing.T) {
	a := acceptance(t)
	bothModes(t, func(t *testing.T, database string) {
		cmd := exec.CommandContext(t.Context(), "psql", "-XAt", "-v", "FETCH_COUNT=0", "-c",
			`\copy (select repeat('x', 999) from generate_series(1, 200000)) to stdout`)
		for name, value := range a.Env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"), "PGDATABASE="+database)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, out)
		if err := errors.Join(err, cmd.Wait()); err != nil || n != 200_000_000 {
			t.Errorf("%d bytes of 200000000: %v", n, err)
		}
		for node, rss := range a.memory(t) {
			if rss > rssLimit {
				t.Errorf("%s uses %d MiB", node, rss>>20)
			}
		}
	})
}

// memory returns the resident memory of each node, in bytes.
func (a *arena) memory(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, n := range a.Nodes {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.pid(t, n)), "status"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				fields := strings.Fields(kb)
				size, err := strconv.Atoi(fields[0])
				if err != nil {
					t.Fatal(err)
				}
				all[n.Name] = size << 10
			}
		}
	}
	return all
}

// pid returns the process of a node, whoever started it.
func (a *arena) pid(t *testing.T, n *site.Node) int {
	t.Helper()
	pid, err := n.PID()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestCancelReachesTheQueryThroughAnyNode(t *testing.T) {
	a := acceptance(t)
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	bothModes(t, func(t *testing.T, database string) {
		for _, app.Protocol = range []string{"3.0", "3.2"} {
			for _, holder := range a.Nodes {
				for _, through := range a.Nodes {
					if err := a.cancelled(t, app, database, holder, through, sendCancel); err != nil {
						t.Errorf("a query on %s, by protocol %s, cancelled through %s: %v", holder.Name, app.Protocol, through.Name, err)
					}
				}
			}
		}
	})
}

// TestAnEnvironmentMayWantCancelRequestsOverTLS: those without are refused, whatever node
// they come to, and those over TLS still work.
func TestAnEnvironmentMayWantCancelRequestsOverTLS(t *testing.T) {
	a := acceptance(t)
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(cancel string) {
		file := filepath.Join(t.TempDir(), "environment.yaml")
		text := "apiVersion: armor/v1\nkind: Environment\nmetadata: {name: dev}\nspec: {cancel: " + cancel + "}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a.ctl(t, "apply", "-f", file, "--yes", "--wait", "all")
	}
	apply("tls-only")
	defer apply("any")
	for _, app.Protocol = range []string{"3.0", "3.2"} {
		for _, through := range a.Nodes {
			plaintextFirst := func(ctx context.Context, n *site.Node, pid uint32, key []byte) error {
				if err := sendCancel(ctx, n, pid, key); err != nil {
					return err
				}
				if a.admin(t, "select count(*)::text from pg_stat_activity where state = 'active' and query like 'select pg_sleep(60)%'") != "1" {
					return errors.New("a cancel request without TLS was obeyed")
				}
				return sendCancelOver(ctx, tlsTo(app), n, pid, key)
			}
			if err := a.cancelled(t, app, "app", a.Nodes[0], through, plaintextFirst); err != nil {
				t.Errorf("protocol %s, through %s: %v", app.Protocol, through.Name, err)
			}
		}
	}
}

// cancelled runs a long query on one node and sends its cancel request to another.
func (a *arena) cancelled(t *testing.T, app site.Client, database string, holder, through *site.Node, cancel cancelFunc) error {
	conn, err := app.ConnectTo(t.Context(), holder, database)
	if err != nil {
		return err
	}
	defer site.CloseConn(t.Context(), conn)
	comment := fmt.Sprintf("select pg_sleep(60) /* %s %s %s */", database, holder.Name, through.Name)
	running := "select count(*)::text from pg_stat_activity where state = 'active' and query = '" + comment + "'"
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), comment).ReadAll()
		ended <- err
	}()
	eventually(t, "the query runs", func() bool { return a.admin(t, running) == "1" })
	key := conn.SecretKey()
	if err := cancel(t.Context(), through, conn.PID(), key); err != nil {
		return err
	}
	select {
	case err := <-ended:
		if refusal := (*pgconn.PgError)(nil); !errors.As(err, &refusal) || refusal.Code != "57014" {
			return fmt.Errorf("it ended with %w", err)
		}
	case <-time.After(20 * time.Second):
		return errors.New("it still runs")
	}
	return site.Exec(t.Context(), conn, "select 1") // the session goes on
}

func TestSessionModeKeepsWhatASessionHas(t *testing.T) {
	a := acceptance(t)
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := app.ConnectTo(t.Context(), a.Nodes[0], "app_session")
	if err != nil {
		t.Fatal(err)
	}
	defer site.CloseConn(t.Context(), conn)
	for _, sql := range []string{"set work_mem = '7MB'", "create temp table mine (a int)", "prepare p as select 1", "listen here",
		"select pg_advisory_lock(4711)"} {
		if err := site.Exec(t.Context(), conn, sql); err != nil {
			t.Fatal(err)
		}
	}
	got := value(t, conn, "select current_setting('work_mem') || ' ' || count(*) || ' ' || (select count(*) from pg_prepared_statements) || ' ' || (pg_backend_pid() = "+strconv.Itoa(int(conn.PID()))+")::text from mine")
	if got != "7MB 0 1 true" {
		t.Errorf("the session has %q", got)
	}
}

func TestTransactionModeLeavesNothingToTheNextClient(t *testing.T) {
	a := acceptance(t)
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range a.Nodes {
		first, err := app.ConnectTo(t.Context(), n, "app")
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"set work_mem = '7MB'", "create temp table leak (a int)", "prepare leak as select 1",
			"select pg_advisory_lock(4712)", "select set_config('app.secret', 'x', false)"} {
			if err := site.Exec(t.Context(), first, sql); err != nil {
				t.Fatal(err)
			}
		}
		second, err := app.ConnectTo(t.Context(), n, "app")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			got := value(t, second, "select current_setting('work_mem') || ' ' || coalesce(to_regclass('pg_temp.leak')::text, 'none') || ' ' || (select count(*) from pg_prepared_statements where name = 'leak') || ' ' || coalesce(current_setting('app.secret', true), '')")
			if got != "4MB none 0 " {
				t.Fatalf("the next client on %s finds %q", n.Name, got)
			}
		}
		site.CloseConn(t.Context(), first)
		site.CloseConn(t.Context(), second)
	}
	if got := a.admin(t, "select count(*)::text from pg_locks where locktype = 'advisory' and objid = 4712"); got != "0" {
		t.Errorf("%s advisory locks were left", got)
	}
}

// value returns the one value of a query's answer.
func value(t *testing.T, conn *pgconn.PgConn, sql string) string {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 {
		t.Fatalf("%s: %d rows", sql, len(last.Rows))
	}
	return string(last.Rows[0][0])
}
