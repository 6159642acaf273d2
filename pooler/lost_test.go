package pooler_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// ownPostgres is a server for tests that end it.
func ownPostgres(t *testing.T) *pgtest.Postgres {
	t.Helper()
	pg, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func TestBackendThatIsTerminatedSaysSoToItsClient(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client()
		h.startSleeping(c)
		h.query(h.observer(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'orders%' AND state = 'active'")
		fields := h.wantRefusal(lastWord(c), "FATAL", "57P01")
		if want := "terminating connection due to administrator command"; fields['M'] != want {
			t.Errorf("message %q, want PostgreSQL's own", fields['M'])
		}
		h.query(h.client(), "SELECT 1")
	})
}

func TestServerKilledInMidQuery(t *testing.T) {
	pg := ownPostgres(t)
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withHost(pg.Socket()))
		inTransaction, alone, idle := h.client(), h.client(), h.client()
		h.query(inTransaction, "BEGIN")
		h.must(inTransaction.Send(pgtest.Encode('Q', "SELECT pg_sleep(3600)")))
		h.must(alone.Send(pgtest.Encode('Q', "SELECT pg_sleep(3600)")))
		h.await("both run", func() bool {
			out, err := pg.SQL("postgres",
				"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sleep%' AND usename LIKE 'orders%'")
			h.must(err)
			return out == "2"
		})
		h.must(pg.Crash())
		h.wantRefusal(lastWord(inTransaction), "FATAL", "08006")
		h.wantRefusal(lastWord(alone), "FATAL", "08007")
		if mode == armor.SessionMode {
			h.wantRefusal(lastWord(idle), "FATAL", "08006")
		}
		h.must(pg.Restart())
		h.await("clients are served again", func() bool {
			c := h.dial()
			if c.Login("user", pgtest.Role, "database", "orders") != nil {
				return false
			}
			_, err := c.Query("SELECT 1")
			return err == nil
		})
		if mode == armor.TransactionMode {
			if got := h.query(idle, "SELECT 1"); got[0] != "1" {
				t.Errorf("the idle client got %q", got)
			}
		}
	})
}

func TestPostgresRestartIsOutlivedByIdleClients(t *testing.T) {
	pg := ownPostgres(t)
	h := newHouse(t, withHost(pg.TCP()))
	c := h.client()
	h.query(c, "SELECT 1")
	pg.Halt()
	h.await("the idle connection is gone", func() bool { return len(h.Held()) == 0 })
	h.must(pg.Restart())
	if got := h.query(c, "SELECT 1"); got[0] != "1" {
		t.Errorf("got %q", got)
	}
}

// TestRestartHoldsClients: those who ask for something, or come, while PostgreSQL is away.
func TestRestartHoldsClients(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		pg := ownPostgres(t)
		h := newHouse(t, inMode(mode), withHost(pg.TCP()), withQueryWait(patience))
		c := h.client()
		h.query(c, "SELECT 1")
		if mode == armor.SessionMode {
			h.must(c.Send(pgtest.Encode('X')))
		}
		pg.Halt()
		h.await("the connections are gone", func() bool { return len(h.Held()) == 0 })
		waits := make(chan error, 1)
		go func() {
			waiter := c
			if mode == armor.SessionMode {
				waiter = h.dial()
				if err := waiter.Login("user", pgtest.Role, "database", "orders"); err != nil {
					waits <- err
					return
				}
			}
			_, err := waiter.Query("SELECT 1")
			waits <- err
		}()
		h.await("it waits", func() bool { return h.status().Waiting == 1 && h.status().NotReady != "" })
		h.must(pg.Restart())
		h.must(<-waits)
	})
}

// TestPostgresThatStaysAwayIsSaidSo: when the wait is over, in the words of the failure.
func TestPostgresThatStaysAwayIsSaidSo(t *testing.T) {
	pg := ownPostgres(t)
	h := newHouse(t, withHost(pg.TCP()), withQueryWait(500*time.Millisecond))
	c := h.client()
	h.query(c, "SELECT 1")
	pg.Halt()
	h.await("the connections are gone", func() bool { return len(h.Held()) == 0 })
	_, err := c.Query("SELECT 1")
	if f := h.wantRefusal(err, "FATAL", "08006"); f['M'] != "PostgreSQL cannot be reached" {
		t.Errorf("told %q", f)
	}
}

// host and port of the pooler for PostgreSQL's own programs.
func (h *house) program(name string, args ...string) *exec.Cmd {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER="+pgtest.Role,
		"PGDATABASE=orders", "PGSSLMODE=disable", "PGOPTIONS=", "PGCONNECT_TIMEOUT=10")
	return cmd
}

func TestPgbench(t *testing.T) {
	pgbench, err := exec.LookPath("pgbench")
	if err != nil {
		t.Fatalf("pgbench is missing (Debian: apt-get install postgresql-contrib): %v", err)
	}
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(8))
		if out, err := h.program(pgbench, "-i", "-q").CombinedOutput(); err != nil {
			t.Fatalf("pgbench -i: %v: %s", err, out)
		}
		for _, protocol := range []string{"simple", "extended", "prepared"} {
			out, err := h.program(pgbench, "-n", "-M", protocol, "-c", "8", "-j", "2", "-t", "50").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "transactions actually processed: 400/400") ||
				!strings.Contains(string(out), "number of failed transactions: 0 ") {
				t.Errorf("pgbench -M %s: %v: %s", protocol, err, out)
			}
		}
		if got := h.query(h.client(),
			"SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)"); got[0] != "t" {
			t.Error("the books do not balance")
		}
	})
}

func TestPsql(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		psql := h.program("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1",
			"-c", `\d`, "-c", "SELECT 6 * 7", "-c", `\copy (SELECT 'copied') TO STDOUT`)
		out, err := psql.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "42\ncopied\n") {
			t.Errorf("psql: %v: %s", err, out)
		}
	})
}

func TestManyClientsShareFewConnections(t *testing.T) {
	h := newHouse(t, withBudget(3))
	var clients sync.WaitGroup
	for i := range 40 {
		c := h.client()
		clients.Go(func() {
			for j := range 20 {
				want := fmt.Sprint(i*1000 + j)
				if got, err := c.Query("SELECT " + want); err != nil || got[0] != want {
					t.Errorf("got %q, %v, want %s", got, err, want)
					return
				}
			}
		})
	}
	clients.Wait()
	if s := h.status(); s.Open > 3 || s.Waiting != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestClientThatLeavesATransactionLosesNoServerConnection: it is rolled back, whatever it has set
// is taken off, and the next client has it. In the middle of a command it is ended.
func TestClientThatLeavesATransactionLosesNoServerConnection(t *testing.T) {
	for _, mode := range []armor.PoolMode{armor.TransactionMode, armor.SessionMode} {
		for _, left := range []string{"SELECT 1", "SELECT 1/0", "SET LOCAL work_mem = '7MB'; SET TimeZone = 'Asia/Tokyo'", "SET work_mem = '7MB'"} {
			h := newHouse(t, inMode(mode), withBudget(1), withOnState(armor.KeepState))
			c := h.client()
			pid := h.query(c, "BEGIN; CREATE TABLE never (n int); SELECT pg_backend_pid()")
			_, _ = c.Query(left) // one of them fails
			h.must(c.Close())
			other := h.client()
			want := pid[0] + " UTC 4MB true"
			h.want(other, "SELECT pg_backend_pid() || ' ' || current_setting('TimeZone') || ' ' || current_setting('work_mem') || ' ' || "+
				"(to_regclass('never') IS NULL)", want)
		}
	}
}
