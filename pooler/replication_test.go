package pooler_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgtest"
)

// source is the test's server, which the usual role may replicate while the test runs.
func source(t *testing.T) *pgtest.Postgres {
	t.Helper()
	mayBeReplicated(t, postgres)
	t.Cleanup(func() {
		if _, err := postgres.SQL(pgtest.Database, "ALTER ROLE "+pgtest.Role+" NOREPLICATION", "DROP TABLE walked"); err != nil {
			t.Error(err)
		}
	})
	return postgres
}

func mayBeReplicated(t *testing.T, pg *pgtest.Postgres) {
	t.Helper()
	if _, err := pg.SQL(pgtest.Database, "ALTER ROLE "+pgtest.Role+" REPLICATION", "CREATE TABLE walked (n int)"); err != nil {
		t.Fatal(err)
	}
}

// replicating lets replication connections to pg in.
func replicating(pg *pgtest.Postgres) option {
	return func(h *house, c *pooler.Config) {
		on(pg, pg.TCP())(h, c)
		h.replication = true
	}
}

// tool runs one of PostgreSQL's clients against the house.
func (h *house) tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	cmd := exec.CommandContext(ctx, name, append([]string{"-h", host, "-p", port, "-U", pgtest.Role, "-w"}, args...)...)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGAPPNAME="+name, "PGCONNECT_TIMEOUT=20", "LC_ALL=C.UTF-8")
	return cmd
}

// runs is a tool that goes on until it is ended.
type runs struct {
	*exec.Cmd
	mu    sync.Mutex
	out   bytes.Buffer
	err   error
	ended chan struct{}
}

func (r *runs) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

func (r *runs) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func (r *runs) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (h *house) startTool(cmd *exec.Cmd) *runs {
	h.t.Helper()
	r := &runs{Cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r, r
	h.must(cmd.Start())
	go func() {
		r.err = cmd.Wait()
		close(r.ended)
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-r.ended
	})
	return r
}

// senders is what PostgreSQL's WAL senders are called, in order.
func (h *house) senders(observer *pgtest.Client) string {
	h.t.Helper()
	return strings.Join(h.query(observer,
		"SELECT application_name || ' ' || state FROM pg_stat_replication WHERE state <> 'startup' ORDER BY 1"), ", ")
}

func (h *house) awaitSenders(observer *pgtest.Client, want string) {
	h.t.Helper()
	h.await("PostgreSQL streams to "+want, func() bool { return h.senders(observer) == want })
}

// awaitQuiet waits until all that was streamed has arrived: a cut in the middle of a
// message cannot be explained to the client.
func (h *house) awaitQuiet(observer *pgtest.Client) {
	h.t.Helper()
	h.await("the log has arrived", func() bool {
		behind := h.query(observer, "SELECT count(*) FROM pg_stat_replication WHERE state <> 'startup' AND write_lsn IS DISTINCT FROM sent_lsn")
		return behind[0] == "0"
	})
}

// TestReplicationIsRefusedWithoutAGrant, in all of its spellings, and nothing reaches
// PostgreSQL.
func TestReplicationIsRefusedWithoutAGrant(t *testing.T) {
	h := newHouse(t)
	for value, code := range map[string]string{
		"true": "28000", "on": "28000", "YES": "28000", "1": "28000", "t": "28000", "database": "28000",
		"physical": "22023", "DATABASE": "22023", "": "22023", "o": "22023", "2": "22023",
		"false": "", "off": "", "0": "", "n": "",
	} {
		c := h.dial()
		err := c.Login("user", pgtest.Role, "database", "orders", "replication", value)
		if code == "" {
			h.must(err)
			continue
		}
		if fields := h.wantRefusal(err, "FATAL", code); code == "28000" && !strings.Contains(fields['M'], "replicate") {
			t.Errorf("%q: %q", value, fields['M'])
		}
	}
}

// TestALoginOfItsOwn: with the client's settings, for this client alone, inside of the
// pool's budget, and ended with it.
func TestALoginOfItsOwn(t *testing.T) {
	pg := source(t)
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), replicating(pg), withBudget(2))
		observer := h.observer()
		for _, kind := range []string{"true", "database"} {
			c := h.client("replication", kind, "application_name", "walker", "options", "-c work_mem=77kB", "DateStyle", "SQL, DMY")
			if got := c.Parameters["DateStyle"] + "; " + c.Parameters["application_name"]; got != "SQL, DMY; walker" {
				t.Errorf("%s: told of %q", kind, got)
			}
			if got := h.query(c, "SHOW work_mem")[0]; got != "77kB" {
				t.Errorf("%s: work_mem is %s", kind, got)
			}
			if system := h.query(c, "IDENTIFY_SYSTEM"); len(system) != 1 {
				t.Errorf("%s: IDENTIFY_SYSTEM says %q", kind, system)
			}
			row := h.query(observer,
				fmt.Sprintf("SELECT backend_type || ' ' || application_name || ' ' || pid FROM pg_stat_activity WHERE usename = '%s'", pgtest.Role))
			if want := fmt.Sprintf("walsender walker %d", c.PID); len(row) != 1 || row[0] != want {
				t.Errorf("%s: PostgreSQL has %q, want %q", kind, row, want)
			}
			if held := h.Held()["production/orders"]; held != 1 {
				t.Errorf("%s: %d places are held", kind, held)
			}
			same := h.client("replication", kind, "application_name", "walker", "options", "-c work_mem=77kB", "DateStyle", "SQL, DMY")
			if same.PID == c.PID {
				t.Errorf("%s: two clients have one server connection", kind)
			}
			h.must(c.Send(pgtest.Encode('X')))
			h.must(same.Send(pgtest.Encode('X')))
			h.await("both end", func() bool { return h.Held()["production/orders"] == 0 })
			if left := h.backends(observer); left != 0 {
				t.Errorf("%s: %d backends are left", kind, left)
			}
		}
		c := h.client() // after all that, SQL is served as ever
		if got := h.query(c, "SHOW work_mem")[0]; got != "4MB" {
			t.Errorf("work_mem is %s", got)
		}
	})
}

// TestReplicationIsInsideOfTheBudget: who finds it spent waits, and an idle connection
// of the pool makes room.
func TestReplicationIsInsideOfTheBudget(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg), withBudget(1), withQueryWait(300*time.Millisecond))
	h.query(h.client(), "SELECT 1") // leaves an idle one behind
	walker := h.client("replication", "true")
	_, err := h.client().Query("SELECT 1")
	h.wantRefusal(err, "FATAL", "53300")
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders", "replication", "true"), "FATAL", "53300")
	h.must(walker.Send(pgtest.Encode('X')))
	h.await("its place is free", func() bool { return h.Held()["production/orders"] == 0 })
	h.query(h.client(), "SELECT 1")
}

// TestAServerConnectionThatReplicatedIsNotLentAgain, not even to one who waits for its
// like.
func TestAServerConnectionThatReplicatedIsNotLentAgain(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg), withBudget(1))
	first, second := h.client("replication", "database"), h.dial()
	h.must(second.Send(pgtest.Startup("user", pgtest.Role, "database", "orders", "replication", "database")))
	h.await("it waits", func() bool { return h.status().Waiting == 1 })
	h.must(first.Send(pgtest.Encode('X')))
	greeting, err := second.Until('Z')
	h.must(err)
	if key := ofType(greeting, 'K'); binary.BigEndian.Uint32(key[0]) == first.PID {
		t.Error("it was")
	}
}

// TestWhatPostgreSQLRefusesIsTold: no attribute REPLICATION, a setting that there is not,
// and words that are no settings.
func TestWhatPostgreSQLRefusesIsTold(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg))
	fields := h.wantRefusal(h.dial().Login("user", pgtest.OtherRole, "database", "orders", "replication", "true"), "FATAL", "42501")
	if !strings.Contains(fields['M'], "replication role") {
		t.Errorf("the message is %q", fields['M'])
	}
	if reason := h.status().NotReady; reason != "" {
		t.Errorf("the pool is not ready: %s", reason)
	}
	fields = h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders", "replication", "true", "no_such", "1"), "FATAL", "42704")
	if !strings.Contains(fields['M'], "no_such") {
		t.Errorf("the message is %q", fields['M'])
	}
	for _, options := range []string{"-c user=postgres", "-c database=postgres",
		"-c replication=false", "-c options=-cfsync=off", "--_pq_.x=1"} {
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders", "replication", "true", "options", options), "FATAL", "42704")
	}
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders", "replication", "true", "tcp_user_timeout", "0"), "FATAL", "0A000")
}

// TestRealToolsReplicate: a base backup with its log beside it, of which a standby is
// made that streams; the log by itself; and decoded changes.
func TestRealToolsReplicate(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg), func(h *house, _ *pooler.Config) { // none of these ends what streams
		const soon = 200 * time.Millisecond
		h.pool.IdleInTransaction, h.pool.QueryTimeout, h.pool.TransactionTimeout, h.pool.ClientIdle = soon, soon, soon, soon
	})
	ctx, stop := context.WithTimeout(t.Context(), 2*patience)
	defer stop()
	observer := h.observer()

	dir := t.TempDir()
	if out, err := h.tool(ctx, "pg_basebackup", "-D", filepath.Join(dir, "base"),
		"-X", "stream", "-c", "fast", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
	if out, err := exec.Command(pg.Program("pg_verifybackup"), filepath.Join(dir, "base")).CombinedOutput(); err != nil {
		t.Errorf("pg_verifybackup: %v: %s", err, out)
	}

	h.must(os.Mkdir(filepath.Join(dir, "log"), 0o700))
	wal := h.startTool(h.tool(ctx, "pg_receivewal", "-D", filepath.Join(dir, "log"), "--no-sync", "-n", "-s", "1"))
	h.must(h.tool(ctx, "pg_recvlogical", "-d", "orders", "-S", "decoded", "-P", "test_decoding", "--create-slot").Run())
	decoded := h.startTool(h.tool(ctx, "pg_recvlogical", "-d", "orders", "-S", "decoded", "--start", "-n", "-f", "-", "-s", "1"))
	h.awaitSenders(observer, "pg_receivewal streaming, pg_recvlogical streaming")
	for i := range 5 {
		if _, err := pg.SQL(pgtest.Database, fmt.Sprintf("INSERT INTO walked VALUES (%d)", i)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // longer than the time-outs, all together
	}
	h.await("the changes are decoded", func() bool { return strings.Contains(decoded.said(), "walked: INSERT: n[integer]:4") })
	if wal.hasEnded() || decoded.hasEnded() {
		t.Errorf("a stream has ended: %s%s", wal.said(), decoded.said())
	}
	_, err := pg.SQL(pgtest.Database, "SELECT pg_switch_wal()")
	h.must(err)
	h.await("a whole segment has come", func() bool {
		whole, _ := filepath.Glob(filepath.Join(dir, "log", "????????????????????????"))
		return len(whole) > 0
	})
	for _, tool := range []*runs{wal, decoded} { // they leave in good order
		h.must(tool.Process.Signal(syscall.SIGINT))
		h.awaitClosed("the tool ends", tool.ended)
		if tool.err != nil {
			t.Errorf("%v: %s", tool.err, tool.said())
		}
	}
	h.must(h.tool(ctx, "pg_recvlogical", "-d", "orders", "-S", "decoded", "--drop-slot").Run())
	h.await("their places are free", func() bool { return h.Held()["production/orders"] == 0 })
}

// TestAStandbyStreamsThroughArmor, and goes on where it was when its session was cut.
func TestAStandbyStreamsThroughArmor(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg))
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	standby, err := pg.ReplicaThrough(fmt.Sprintf("host=%s port=%s user=%s sslmode=disable application_name=standby", host, port, pgtest.Role))
	h.must(err)
	defer standby.Stop() //nolint:errcheck // it was only read from
	observer := h.observer()
	h.awaitSenders(observer, "standby streaming")
	arrives := func(n int) {
		t.Helper()
		_, err := pg.SQL(pgtest.Database, fmt.Sprintf("INSERT INTO walked VALUES (%d)", n))
		h.must(err)
		h.await("it arrives", func() bool {
			got, err := standby.SQL(pgtest.Database, fmt.Sprintf("SELECT count(*) FROM walked WHERE n = %d", n))
			return err == nil && got == "1"
		})
	}
	arrives(1)
	for _, g := range h.all() {
		g.cut(&armor.Denial{Reason: armor.ReasonShutdown, Message: "this node is shutting down"})
	}
	h.awaitSenders(observer, "standby streaming") // it comes back by itself
	arrives(2)
}

// TestACutEndsWhatStreams: confirmed, the place free, and the tool told why.
func TestACutEndsWhatStreams(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg))
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	observer := h.observer()
	wal := h.startTool(h.tool(ctx, "pg_receivewal", "-D", t.TempDir(), "--no-sync", "-n", "-s", "1"))
	h.awaitSenders(observer, "pg_receivewal streaming")
	h.awaitQuiet(observer)
	g := h.last()
	g.cut(&armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked"})
	h.awaitClosed("the cut is confirmed", g.confirmed)
	h.awaitClosed("pg_receivewal ends", wal.ended)
	if wal.err == nil || !strings.Contains(wal.said(), "client certificate is revoked") {
		t.Errorf("%v: %s", wal.err, wal.said())
	}
	h.awaitSenders(observer, "")
	h.await("its place is free", func() bool { return h.Held()["production/orders"] == 0 })
}

// TestAShutdownOfPostgreSQLReadsAsItself: it ends a stream without an error of its own,
// and there is none of ours.
func TestAShutdownOfPostgreSQLReadsAsItself(t *testing.T) {
	pg, err := pgtest.Start() // a server of its own to shut down
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Stop() //nolint:errcheck // nothing is asked of it any more
	mayBeReplicated(t, pg)
	h := newHouse(t, replicating(pg))
	c := h.client("replication", "true")
	at := h.query(c, "IDENTIFY_SYSTEM")
	if len(at) != 1 {
		t.Fatalf("IDENTIFY_SYSTEM says %q", at)
	}
	position, err := pg.SQL("postgres", "SELECT pg_current_wal_flush_lsn()")
	h.must(err)
	h.must(c.Send(pgtest.Encode('Q', "START_REPLICATION PHYSICAL "+position)))
	_, err = c.Until('W')
	h.must(err)
	halted := make(chan struct{})
	go func() {
		defer close(halted)
		pg.Halt()
	}()
	var last pgtest.Message
	for {
		m, err := c.Receive()
		if err != nil {
			break
		}
		if last = m; m.Type == 'd' && m.Body[0] == 'k' { // answer, or it would wait for us
			h.must(c.Send(pgtest.Encode('d', []byte("r"), m.Body[1:9], m.Body[1:9], m.Body[1:9], make([]byte, 9))))
		}
	}
	<-halted
	if last.Type != 'C' {
		t.Errorf("the last word is %s", last)
	}
}

// TestADrainWaitsForWhatStreams: as for a long transaction; who asks for it cuts it.
func TestADrainWaitsForWhatStreams(t *testing.T) {
	pg := source(t)
	h := newHouse(t, replicating(pg))
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	idle := h.client("replication", "true")
	wal := h.startTool(h.tool(ctx, "pg_receivewal", "-D", t.TempDir(), "--no-sync", "-n", "-s", "1"))
	observer := h.observer()
	h.awaitSenders(observer, "pg_receivewal streaming")
	limited, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	if err := h.Drain(limited); err == nil {
		t.Error("it was drained with a stream going on")
	}
	m, err := idle.Receive()
	if err != nil || m.Fields()['C'] != "57P01" {
		t.Errorf("between two commands: %v, %v", m, err)
	}
	if wal.hasEnded() {
		t.Errorf("pg_receivewal has ended: %s", wal.said())
	}
	h.awaitQuiet(observer)
	h.last().cut(&armor.Denial{Reason: armor.ReasonShutdown, Message: "this node is shutting down"})
	h.awaitClosed("pg_receivewal ends", wal.ended)
	if !strings.Contains(wal.said(), "this node is shutting down") {
		t.Errorf("it says %s", wal.said())
	}
}

// TestALoginThatNobodyWaitsForAnyMoreIsEnded: it is of no use to anybody else.
func TestALoginThatNobodyWaitsForAnyMoreIsEnded(t *testing.T) {
	pg := source(t)
	dialing, gate := make(chan struct{}, 10), make(chan struct{})
	h := newHouse(t, replicating(pg), func(_ *house, c *pooler.Config) {
		dial := c.Dial
		if dial == nil {
			dial = backend.DefaultDialer.DialContext
		}
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialing <- struct{}{}
			<-gate
			return dial(ctx, network, address)
		}
	})
	h.must(h.dial().Send(pgtest.Startup("user", pgtest.Role, "database", "orders", "replication", "true")))
	h.awaitClosed("PostgreSQL is dialled", asClosed(dialing))
	h.last().cut(&armor.Denial{Reason: armor.ReasonShutdown, Message: "this node is shutting down"})
	h.awaitClosed("the session ends", h.last().ended)
	close(gate)
	h.await("its place is free", func() bool { return h.Held()["production/orders"] == 0 })
	if left := h.backends(h.observer()); left != 0 {
		t.Errorf("%d backends are left", left)
	}
}

// asClosed is closed once a value has come.
func asClosed(ch <-chan struct{}) <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		<-ch
		close(closed)
	}()
	return closed
}
