package pooler_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// console logs in to the admin console.
func (h *house) console(role string, parameters ...string) *pgtest.Client {
	h.t.Helper()
	c := h.dial()
	h.must(c.Login(append([]string{"user", role, "database", "pgbouncer"}, parameters...)...))
	return c
}

// result is an answer with rows.
type result struct {
	columns []string
	types   []uint32
	rows    [][]string
	tag     string
	notice  map[byte]string
}

// ask runs a command in the simple protocol.
func ask(c *pgtest.Client, sql string) (r result, err error) {
	if err := c.Send(pgtest.Encode('Q', sql)); err != nil {
		return r, err
	}
	messages, err := c.Until('Z')
	if err != nil {
		return r, err
	}
	return readResult(messages)
}

func readResult(messages []pgtest.Message) (r result, err error) {
	for _, m := range messages {
		switch m.Type {
		case 'T':
			r.columns, r.types = readDescription(m.Body)
		case 'D':
			r.rows = append(r.rows, readRow(m.Body))
		case 'C':
			r.tag = strings.TrimSuffix(string(m.Body), "\x00")
		case 'N':
			r.notice = m.Fields()
		case 'E':
			err = &pgtest.Refusal{Fields: m.Fields()}
		}
	}
	return r, err
}

func readDescription(b []byte) (names []string, types []uint32) {
	for b = b[2:]; len(b) > 0; {
		name, _, _ := strings.Cut(string(b), "\x00")
		b = b[len(name)+1:]
		names, types = append(names, name), append(types, binary.BigEndian.Uint32(b[6:]))
		b = b[18:]
	}
	return names, types
}

func readRow(b []byte) (values []string) {
	for b = b[2:]; len(b) > 0; {
		n := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n < 0 {
			values = append(values, "NULL")
			continue
		}
		values, b = append(values, string(b[:n])), b[n:]
	}
	return values
}

// show runs a command that must succeed.
func (h *house) show(c *pgtest.Client, sql string) result {
	h.t.Helper()
	r, err := ask(c, sql)
	if err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
	return r
}

// cell is the value in a column of the row whose first columns begin with key.
func (r result) cell(t *testing.T, column string, key ...string) string {
	t.Helper()
	i := slices.Index(r.columns, column)
	for _, row := range r.rows {
		if i >= 0 && slices.Equal(row[:len(key)], key) {
			return row[i]
		}
	}
	t.Fatalf("no column %q or no row %v in %v %v", column, key, r.columns, r.rows)
	return ""
}

// wantTexts checks the message of a refusal.
func (h *house) wantText(err error, code, text string) {
	h.t.Helper()
	if fields := h.wantRefusal(err, "ERROR", code); fields['M'] != text {
		h.t.Fatalf("got %q, want %q", fields['M'], text)
	}
}

func TestConsoleSpeaksAsPgBouncer(t *testing.T) {
	h := newHouse(t)
	c := h.console("admin", "application_name", "probe", "extra_float_digits", "2")
	for name, want := range map[string]string{"server_version": "1.25.2/bouncer",
		"client_encoding": "UTF8", "standard_conforming_strings": "on", "application_name": "probe"} {
		if got := c.Parameters[name]; got != want {
			t.Errorf("%s is reported as %q, want %q", name, got, want)
		}
	}
	if got := h.show(c, "show version;").rows[0][0]; got != "PgBouncer 1.25.2 compatible, Armor test" {
		t.Errorf("version %q", got)
	}
	if r := h.show(c, "SHOW HELP"); r.notice['M'] != "Console usage" ||
		!strings.Contains(r.notice['D'], "SHOW STATS|STATS_TOTALS") || r.columns != nil {
		t.Errorf("help: %+v", r)
	}
	if r := h.show(c, "SHOW client_encoding"); r.columns[0] != "client_encoding" || r.rows[0][0] != "UTF-8" {
		t.Errorf("client_encoding: %+v", r)
	}
	for _, sql := range []string{"SET extra_float_digits = 3", "SET application_name TO 'é'", `set "timezone" = 'GMT';`} {
		if r := h.show(c, sql); r.tag != "SET" || r.notice['M'] != "SET ignored" {
			t.Errorf("%s: %+v", sql, r)
		}
	}
	if r := h.show(c, " ; -- nothing\n;"); r.tag != "" || r.rows != nil {
		t.Errorf("nothing: %+v", r)
	}
	for _, c := range []struct{ sql, code, text string }{
		{"SELECT 1", "42601", "invalid command 'SELECT 1', use SHOW HELP;"},
		{"BEGIN", "42601", "invalid command 'BEGIN', use SHOW HELP;"},
		{"SHOW nonsense", "42601", "invalid command 'SHOW nonsense', use SHOW HELP;"},
		{"PAUSE a b", "42601", "invalid command 'PAUSE a b', use SHOW HELP;"},
		{"SHOW (", "42601", "invalid command 'SHOW (', use SHOW HELP;"},
		{"PAUSE " + strings.Repeat("x", 64), "42601", "bad arguments"},
		{"PAUSE nosuch", "3D000", "no such database: nosuch"},
		{"PAUSE pgbouncer", "55000", "cannot pause admin db: pgbouncer"},
		{"RESUME", "55000", "pooler is not paused/suspended"},
		{"RESUME orders", "55000", "database orders is not paused"},
		{"DISABLE", "42601", "a database is required"},
		{"KILL_CLIENT x", "42601", "invalid client pointer supplied"},
		{"KILL_CLIENT 999999", "42704", "client not found"},
		{"SET pool_mode = session", "0A000", "SET failed"},
		{"SHOW FDS", "0A000", "SHOW FDS is not available"},
		{"SUSPEND", "0A000", "SUSPEND is not available"},
		{"SHUTDOWN", "0A000", "SHUTDOWN is not available"},
		{"SHUTDOWN now", "42601", "invalid command 'SHUTDOWN now', use SHOW HELP;"},
	} {
		_, err := ask(h.console("admin"), c.sql)
		h.wantText(err, c.code, c.text)
	}
}

func TestStatsMayOnlyLook(t *testing.T) {
	h := newHouse(t)
	c := h.console("stats")
	h.show(c, "SHOW POOLS")
	for _, sql := range []string{"PAUSE", "PAUSE orders", "RESUME", "RECONNECT", "KILL",
		"KILL orders", "KILL_CLIENT 1", "DISABLE orders", "ENABLE orders", "RELOAD",
		"WAIT_CLOSE", "SHUTDOWN", "SUSPEND", "SET pool_mode = session"} {
		_, err := ask(c, sql)
		h.wantText(err, "42501", "admin access needed")
	}
	h.query(h.client(), "SELECT 1") // nothing has happened
}

func TestPauseWaitsForTransactionsAndHoldsNewOnes(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(3), withQueryWait(300*time.Millisecond))
		busy := h.client()
		h.query(busy, "BEGIN")
		admin, observer := h.console("admin"), h.console("stats")
		h.must(admin.Send(pgtest.Encode('Q', "PAUSE orders")))
		h.await("the pool is paused", func() bool { return h.status().Paused })
		h.query(busy, "SELECT 1") // goes on
		held := h.dial()
		h.must(held.Send(pgtest.Startup("user", pgtest.Role, "database", "orders"), pgtest.Encode('Q', "SELECT 7")))
		h.await("the other client waits", func() bool { return h.status().Waiting == 1 })
		h.query(busy, "COMMIT")
		if mode == armor.SessionMode {
			h.must(busy.Send(pgtest.Encode('X')))
		}
		if r, err := readAnswer(admin); err != nil || r.tag != "PAUSE" {
			t.Fatalf("PAUSE: %+v, %v", r, err)
		}
		if n := h.status().Open; n != 0 {
			t.Errorf("%d server connections are open after PAUSE", n)
		}
		if got := h.show(observer, "SHOW DATABASES").cell(t, "paused", "orders"); got != "1" {
			t.Errorf("SHOW DATABASES: paused is %s", got)
		}
		time.Sleep(600 * time.Millisecond) // twice the query wait, which must not run out
		if n := h.status().Waiting; n != 1 {
			t.Fatalf("%d clients wait", n)
		}
		h.show(admin, "RESUME orders")
		for {
			m, err := held.Receive()
			h.must(err)
			if m.Type == 'E' {
				t.Fatal(m)
			}
			if m.Type == 'D' {
				break
			}
		}
	})
}

func readAnswer(c *pgtest.Client) (result, error) {
	messages, err := c.Until('Z')
	if err != nil {
		return result{}, err
	}
	return readResult(messages)
}

func TestPauseOfEverythingIsKeptForPoolsToCome(t *testing.T) {
	h := newHouse(t)
	c := h.console("admin")
	h.show(c, "PAUSE")
	_, err := ask(c, "PAUSE")
	h.wantText(err, "55000", "already suspended/paused")
	_, err = ask(c, "KILL")
	h.wantText(err, "55000", "already suspended/paused")
	if r := h.show(c, "SHOW STATE"); r.cell(t, "value", "paused") != "yes" || r.cell(t, "value", "active") != "no" {
		t.Errorf("%v", r.rows)
	}
	second := h.pool
	second.Name = "second"
	h.Configure([]armor.Database{h.database}, []armor.Pool{h.pool, second})
	if r := h.show(c, "SHOW ARMOR_POOLS"); r.cell(t, "paused", "production", "second") != "1" {
		t.Errorf("%v", r.rows)
	}
	h.show(c, "RESUME")
	if r := h.show(c, "SHOW ARMOR_POOLS"); r.cell(t, "paused", "production", "second") != "0" ||
		r.cell(t, "paused", "production", "orders") != "0" {
		t.Errorf("%v", r.rows)
	}
}

func TestOnePoolIsResumedOutOfAPauseOfEverything(t *testing.T) {
	h := newHouse(t)
	second := h.pool
	second.Name = "second"
	h.Configure([]armor.Database{h.database}, []armor.Pool{h.pool, second})
	c := h.console("admin")
	h.show(c, "PAUSE")
	status, err := h.Order(armor.PoolOrder{Verb: armor.ResumePool, Environment: "production", Pool: "second"})
	if err != nil || status.Paused || status.Pool != "production/second" {
		t.Errorf("%+v, %v", status, err)
	}
	if got := h.show(c, "SHOW ARMOR_POOLS").cell(t, "paused", "production", "orders"); got != "1" {
		t.Errorf("the other pool: paused is %s", got)
	}
	_, err = h.Order(armor.PoolOrder{Verb: armor.ResumePool, Environment: "production", Pool: "nosuch"})
	if err == nil {
		t.Error("a pool that there is not was resumed")
	}
}

func TestCancelTakesAPauseBack(t *testing.T) {
	h := newHouse(t)
	busy := h.client()
	h.query(busy, "BEGIN")
	admin := h.console("admin")
	h.must(admin.Send(pgtest.Encode('Q', "PAUSE")))
	h.await("the pool is paused", func() bool { return h.status().Paused })
	cancel := func() bool {
		return h.Cancel(t.Context(), armor.CancelKey{PID: admin.PID, Secret: admin.Secret}, false)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := readAnswer(admin)
		answered <- err
	}()
	h.await("the command ends", func() bool {
		if !cancel() {
			t.Fatal("the key is not known")
		}
		return len(answered) == 1
	})
	h.wantText(<-answered, "57014", "canceling statement due to user request")
	if h.status().Paused {
		t.Error("the pool is still paused")
	}
	h.query(busy, "COMMIT")
	h.query(busy, "SELECT 1")
}

func TestPauseStaysWhenItsClientLeaves(t *testing.T) {
	h := newHouse(t)
	busy := h.client()
	h.query(busy, "BEGIN")
	admin := h.console("admin")
	session := h.last()
	h.must(admin.Send(pgtest.Encode('Q', "PAUSE orders")))
	h.await("the pool is paused", func() bool { return h.status().Paused })
	h.must(admin.Close())
	h.awaitClosed("the console ends", session.ended)
	if !h.status().Paused {
		t.Error("the pause has gone with the client")
	}
	h.query(busy, "COMMIT")
	h.await("the last server connection ends", func() bool { return h.status().Open == 0 })
	h.show(h.console("admin"), "RESUME orders")
	h.query(busy, "SELECT 1")
}

func TestReconnectReplacesServerConnections(t *testing.T) {
	h := newHouse(t, withBudget(2))
	busy, other := h.client(), h.client()
	h.query(busy, "BEGIN")
	old := h.query(busy, "SELECT pg_backend_pid()")[0]
	idle := h.query(other, "SELECT pg_backend_pid()")[0]
	admin := h.console("admin")
	h.show(admin, "RECONNECT orders")
	if got := h.show(admin, "SHOW SERVERS"); countCells(got, "close_needed", "1") == 0 {
		t.Errorf("no connection is marked: %v", got.rows)
	}
	h.must(admin.Send(pgtest.Encode('Q', "WAIT_CLOSE orders")))
	if got := h.query(other, "SELECT pg_backend_pid()")[0]; got == idle || got == old {
		t.Errorf("backend %s was lent again", got)
	}
	if got := h.query(busy, "SELECT pg_backend_pid()")[0]; got != old {
		t.Errorf("the transaction moved from backend %s to %s", old, got)
	}
	h.query(busy, "COMMIT")
	if r, err := readAnswer(admin); err != nil || r.tag != "WAIT_CLOSE" {
		t.Fatalf("WAIT_CLOSE: %+v, %v", r, err)
	}
	if got := h.query(busy, "SELECT pg_backend_pid()")[0]; got == old {
		t.Errorf("backend %s was lent again", got)
	}
}

func countCells(r result, column, value string) (n int) {
	i := slices.Index(r.columns, column)
	for _, row := range r.rows {
		if row[i] == value {
			n++
		}
	}
	return n
}

func TestKillEndsSessionsAndPauses(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(1))
		busy := h.client()
		h.query(busy, "BEGIN")
		session := h.last()
		waiting := h.dial()
		h.must(waiting.Send(pgtest.Startup("user", pgtest.Role, "database", "orders"), pgtest.Encode('Q', "SELECT 7")))
		h.await("a client waits", func() bool { return h.status().Waiting == 1 })
		admin := h.console("admin")
		h.show(admin, "KILL orders")
		for _, c := range []*pgtest.Client{busy, waiting} {
			messages, err := c.Until('E')
			h.must(err)
			if f := messages[len(messages)-1].Fields(); f['V'] != "FATAL" || f['C'] != "57P01" || f['M'] != "admin forced disconnect" {
				t.Errorf("got %v", f)
			}
		}
		h.awaitClosed("the session ends", session.ended)
		h.await("all server connections end", func() bool { return h.status().Open == 0 })
		if !h.status().Paused {
			t.Error("the pool is not paused")
		}
		h.show(admin, "RESUME orders")
		h.query(h.client(), "SELECT 1")
	})
}

func TestKillClientEndsOneSession(t *testing.T) {
	h := newHouse(t)
	victim, other := h.client("application_name", "victim"), h.client()
	admin := h.console("admin")
	id := ""
	r := h.show(admin, "SHOW CLIENTS")
	for _, row := range r.rows {
		if row[slices.Index(r.columns, "application_name")] == "victim" {
			id = row[slices.Index(r.columns, "id")]
		}
	}
	h.show(admin, "KILL_CLIENT "+id)
	messages, err := victim.Until('E')
	h.must(err)
	if f := messages[0].Fields(); f['C'] != "57P01" {
		t.Errorf("got %v", f)
	}
	if _, err := victim.Receive(); err != io.EOF {
		t.Errorf("after the FATAL: %v", err)
	}
	h.query(other, "SELECT 1")
	h.await("the client is forgotten", func() bool {
		_, err := ask(admin, "KILL_CLIENT "+id)
		return err != nil
	})
}

func TestDisableRefusesNewClients(t *testing.T) {
	h := newHouse(t)
	old := h.client()
	admin := h.console("admin")
	h.show(admin, "DISABLE orders")
	err := h.dial().Login("user", pgtest.Role, "database", "orders")
	if f := h.wantRefusal(err, "FATAL", "57P03"); f['M'] != `database "orders" is disabled` {
		t.Errorf("got %v", f)
	}
	h.query(old, "SELECT 1")
	h.show(admin, "ENABLE orders")
	h.query(h.client(), "SELECT 1")
}

func TestConsoleKnowsOnlyItsEnvironment(t *testing.T) {
	h := newHouse(t)
	client := h.client()
	foreign, database := h.pool, h.database
	foreign.Environment, foreign.Name, foreign.Database = "staging", "payroll", "payroll"
	database.Environment, database.Name = "staging", "payroll"
	h.Configure([]armor.Database{h.database, database}, []armor.Pool{h.pool, foreign})
	admin := h.console("admin")
	for _, sql := range []string{"SHOW POOLS", "SHOW DATABASES", "SHOW STATS", "SHOW ARMOR_POOLS", "SHOW CLIENTS", "SHOW SERVERS"} {
		if got := fmt.Sprint(h.show(admin, sql).rows); strings.Contains(got, "payroll") || strings.Contains(got, "staging") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	_, err := ask(admin, "PAUSE payroll")
	h.wantText(err, "3D000", "no such database: payroll")
	h.show(admin, "PAUSE")
	for _, s := range h.Status() {
		if s.Paused != (s.Pool == "production/orders") {
			t.Errorf("%+v", s)
		}
	}
	h.show(admin, "RESUME")
	h.query(client, "SELECT 1")
}

func TestStatsCountWhatClientsDo(t *testing.T) {
	h := newHouse(t, withBudget(1))
	stats := h.console("stats")
	c, other := h.client(), h.client()
	before := h.show(stats, "SHOW STATS_TOTALS")
	if n := number(t, before, "client_login_count"); n != 2 {
		t.Errorf("%d logins", n)
	}
	h.query(c, "SELECT 1")
	h.query(c, "BEGIN")
	h.query(c, "SELECT repeat('x', 10000)")
	h.must(other.Send(pgtest.Encode('P', "", "SELECT 5", int16(0)),
		pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
	h.await("the other client waits", func() bool { return h.show(stats, "SHOW POOLS").cell(t, "cl_waiting", "orders", pgtest.Role) == "1" })
	h.await("time in a transaction is seen", func() bool { return number(t, h.show(stats, "SHOW STATS"), "total_xact_time") > 0 })
	h.query(c, "COMMIT")
	if _, err := other.Answer(); err != nil {
		t.Fatal(err)
	}
	h.await("the last server connection has come back", func() bool { return h.status().Idle == 1 })
	after := h.show(stats, "SHOW STATS_TOTALS")
	for column, want := range map[string]int{"xact_count": 3, "query_count": 5,
		"server_assignment_count": 3, "client_parse_count": 1, "server_parse_count": 1, "bind_count": 1} {
		if got := number(t, after, column) - number(t, before, column); got != want {
			t.Errorf("%s rose by %d, want %d", column, got, want)
		}
	}
	if sent := number(t, after, "bytes_sent") - number(t, before, "bytes_sent"); sent < 10_000 || sent > 12_000 {
		t.Errorf("bytes_sent rose by %d", sent)
	}
	if received := number(t, after, "bytes_received") - number(t, before, "bytes_received"); received < 80 || received > 300 {
		t.Errorf("bytes_received rose by %d", received)
	}
	if number(t, after, "wait_time") <= number(t, before, "wait_time") {
		t.Error("the wait was not counted")
	}
}

// number is a value of the row of the test's database.
func number(t *testing.T, r result, column string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(r.cell(t, column, "orders"), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
