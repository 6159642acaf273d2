package pooler_test

import (
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// keeping makes a house of one pool in which n server connections keep their clients' state.
func keeping(t *testing.T, n int, more ...func(*armor.Pool)) *house {
	return newHouse(t, withBudget(n), withPool(func(p *armor.Pool) {
		p.OnState = armor.KeepState
		for _, change := range more {
			change(p)
		}
	}))
}

// want fails unless a query gives one row with these values, joined by commas.
func (h *house) want(c *pgtest.Client, sql, want string) {
	h.t.Helper()
	if got := strings.Join(h.query(c, sql), ","); got != want {
		h.t.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// TestSettingsAreKept: whatever a client has set, in whatever way, is in force in its next
// transaction and in nobody else's, on one server connection that both use in turn.
func TestSettingsAreKept(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.KeepSettings = []string{"app.hidden"} })
	_, err := h.superuser(pgtest.Database).Query("DROP ROLE IF EXISTS kept_other; CREATE ROLE kept_other; GRANT kept_other TO " + pgtest.Role + ";" +
		"CREATE OR REPLACE FUNCTION public.sets_two() RETURNS void LANGUAGE plpgsql AS $$ BEGIN " +
		"PERFORM set_config('work_mem', '7MB', false); PERFORM set_config('app.hidden', 'x', false); END $$")
	h.must(err)
	const settings = "SELECT current_setting('work_mem') || ' ' || current_setting('statement_timeout') || ' ' || current_user || ' ' || " +
		"coalesce(current_setting('app.tenant', true), '') || ' ' || coalesce(current_setting('app.hidden', true), '')"
	c, other := h.client(), h.client()
	for _, step := range []struct{ sql, want string }{
		{"SET work_mem = '5MB'", "5MB 0 orders_rw  "},
		{"SET app.tenant = 'O''Neill \\ é'", `5MB 0 orders_rw O'Neill \ é `},
		{"SET ROLE kept_other", `5MB 0 kept_other O'Neill \ é `},
		{"SELECT set_config('statement_timeout', '4321', false)", `5MB 4321ms kept_other O'Neill \ é `},
		{"BEGIN; SET work_mem = '9MB'; ROLLBACK", `5MB 4321ms kept_other O'Neill \ é `},
		{"BEGIN; SET LOCAL work_mem = '9MB'; COMMIT", `5MB 4321ms kept_other O'Neill \ é `},
		{"RESET ROLE; SELECT public.sets_two()", `7MB 4321ms orders_rw O'Neill \ é x`},
		{"DO $$ BEGIN PERFORM set_config('app.tenant', '', false); END $$", "7MB 4321ms orders_rw  x"},
		{"RESET work_mem", "4MB 4321ms orders_rw  x"},
		{"SET statement_timeout TO DEFAULT", "4MB 0 orders_rw  x"},
		{"SET work_mem = '5MB'", "5MB 0 orders_rw  x"},
		{"RESET ALL", "4MB 0 orders_rw  "},
		{"SET work_mem = '5MB'; SET app.tenant = 'a'", "5MB 0 orders_rw a "},
		{"DISCARD ALL", "4MB 0 orders_rw  "},
	} {
		_, err := c.Query(step.sql)
		h.must(err)
		h.want(other, settings, "4MB 0 orders_rw  ")
		h.want(c, settings, step.want)
	}
}

// TestResetOfTheLoginsValueLeadsToTheStartupPacket though PostgreSQL reports nothing then.
func TestResetOfTheLoginsValueLeadsToTheStartupPacket(t *testing.T) {
	h := keeping(t, 1)
	for _, reset := range []string{"RESET datestyle", "SET datestyle TO DEFAULT", "RESET ALL", "SET work_mem TO DEFAULT; RESET datestyle"} {
		for _, steps := range [][]string{
			{"SET datestyle TO iso", reset},
			{"SET datestyle TO iso", "BEGIN", reset},
			{"SET datestyle TO iso; " + reset},
			{"SET datestyle TO sql", reset},
			{"SET datestyle TO sql", "BEGIN", reset, "SELECT 1"},
		} {
			c := h.client("DateStyle", "Postgres, MDY")
			for _, sql := range steps {
				_, err := c.Query(sql)
				h.must(err)
			}
			if got := c.Parameters["DateStyle"]; got != "Postgres, MDY" {
				t.Errorf("%v: the client is told %s", steps, got)
			}
			h.want(c, "SELECT date '2026-02-01'", "02-01-2026")
			_, err := c.Query("COMMIT; BEGIN; SET datestyle TO iso; COMMIT; BEGIN; " + reset + "; ROLLBACK")
			h.must(err)
			h.want(c, "SELECT date '2026-02-01'", "2026-02-01")
		}
	}
}

// lesserRole makes kept_lesser, which the clients may SET, and not what they may set.
func (h *house) lesserRole() {
	h.t.Helper()
	_, err := h.superuser(pgtest.Database).Query("DROP ROLE IF EXISTS kept_lesser; CREATE ROLE kept_lesser; " +
		"GRANT kept_lesser TO " + pgtest.Role + "; GRANT SET ON PARAMETER log_min_duration_statement TO " + pgtest.Role)
	h.must(err)
}

// TestARoleIsInForceBesideWhatItMayNotSet: of two clients in one role, one has set before what only
// the login may set.
func TestARoleIsInForceBesideWhatItMayNotSet(t *testing.T) {
	h := keeping(t, 1)
	h.lesserRole()
	c, other := h.client(), h.client()
	for _, step := range []struct {
		c   *pgtest.Client
		sql string
	}{{c, "SET log_min_duration_statement = '1h'"}, {c, "SET ROLE kept_lesser"}, {other, "SET ROLE kept_lesser"}} {
		_, err := step.c.Query(step.sql)
		h.must(err)
	}
	const settings = "SELECT current_setting('log_min_duration_statement') || ' ' || current_user"
	for range 2 {
		h.want(c, settings, "1h kept_lesser")
		h.want(other, settings, "-1 kept_lesser")
	}
}

// TestAResetLeavesNothingOfTheStartupPacket for the next client, whatever it has reset.
func TestAResetLeavesNothingOfTheStartupPacket(t *testing.T) {
	h := keeping(t, 1)
	other := h.client()
	for _, sql := range []string{"RESET timezone", "SET timezone TO DEFAULT", "SET timezone TO 'UTC'; RESET timezone", "RESET ALL",
		"RESET ALL; SELECT 1/0",
		"RESET timezone; SELECT 1/0", "BEGIN; RESET timezone; ROLLBACK", "BEGIN; RESET ALL; ROLLBACK", "DISCARD ALL"} {
		for _, startup := range [][]string{{"DateStyle", "German"}, {"DateStyle", "German", "TimeZone", "Asia/Tokyo"}} {
			c := h.client(startup...)
			for range 2 {
				c.Query(sql)
				h.want(other, "SELECT current_setting('datestyle') || ' ' || current_setting('timezone')",
					"ISO, MDY "+other.Parameters["TimeZone"])
				h.want(c, "SELECT current_setting('datestyle')", "German, DMY")
			}
		}
	}
}

// TestSessionAuthorizationEndsTheRole also on the next server connection.
func TestSessionAuthorizationEndsTheRole(t *testing.T) {
	h := keeping(t, 1)
	h.lesserRole()
	c, other := h.client(), h.client()
	for _, sql := range []string{"RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION " + pgtest.Role} {
		for _, sql := range []string{"SET ROLE kept_lesser", sql} {
			_, err := c.Query(sql)
			h.must(err)
			h.want(other, "SELECT current_user", pgtest.Role)
		}
		h.want(c, "SELECT current_user", pgtest.Role)
	}
}

// TestResetRoleHolds before it is asked for: in a block, and while the client is pinned.
func TestResetRoleHolds(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.MaxPinned = 1 })
	h.lesserRole()
	c := h.client("DateStyle", "Postgres, MDY")
	for _, begin := range []string{"BEGIN", "LISTEN x"} {
		for _, sql := range []string{"SET ROLE kept_lesser", begin, "RESET ROLE", "RESET datestyle"} {
			_, err := c.Query(sql)
			h.must(err)
		}
		h.want(c, "SELECT current_user || ' ' || date '2026-02-01'", "orders_rw 02-01-2026")
		_, err := c.Query("COMMIT")
		h.must(err)
	}
}

// TestStateThatCannotFollowPins: the client finds it again, nobody else meets it or gets that
// connection, and when it is gone the connection is anybody's.
func TestStateThatCannotFollowPins(t *testing.T) {
	for _, state := range []struct{ what, makes, finds, found, ends string }{
		{"temporary table", "CREATE TEMP TABLE mine AS SELECT 7 AS n", "SELECT n FROM mine", "7", "DROP TABLE mine"},
		{"temporary table", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 7'", "SELECT pg_temp.f()", "7", "DROP FUNCTION pg_temp.f()"},
		{"LISTEN", "LISTEN news", "SELECT pg_listening_channels()", "news", "UNLISTEN *"},
		{"advisory lock", "SELECT pg_advisory_lock(4711)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1",
			"SELECT pg_advisory_unlock_all()"},
		{"WITH HOLD cursor", "DECLARE c CURSOR WITH HOLD FOR VALUES (7)", "FETCH FIRST FROM c", "7", "CLOSE c"},
		{"PREPARE", "PREPARE p AS SELECT 7", "EXECUTE p", "7", "DEALLOCATE p"},
		{"temporary table", "DO $$ BEGIN CREATE TEMP TABLE hidden AS SELECT 7 AS n; END $$", "SELECT n FROM hidden", "7", "DO $$ BEGIN DROP TABLE hidden; END $$"},
	} {
		h := keeping(t, 2)
		c, other := h.client(), h.client()
		if _, err := c.Query("BEGIN; " + state.makes + "; ROLLBACK"); err == nil && h.status().Pinned > 0 && state.what != "advisory lock" && state.what != "PREPARE" {
			t.Errorf("%s: rolled back, and %d pinned", state.makes, h.status().Pinned)
		}
		_, err := c.Query("SELECT pg_advisory_unlock_all(); DEALLOCATE ALL")
		h.must(err)
		_, err = c.Query(state.makes)
		h.must(err)
		if got := h.status().Pinned; got != 1 {
			t.Errorf("%s: %d pinned", state.makes, got)
		}
		h.want(c, "SELECT count(*) FROM generate_series(1, 2)", "2")
		h.want(other, "SELECT count(*) FROM pg_listening_channels()", "0")
		h.want(c, state.finds, state.found)
		_, err = c.Query(state.ends)
		h.must(err)
		if got := h.status().Pinned; got != 0 {
			t.Errorf("%s: %d pinned after its end", state.makes, got)
		}
		_, err = c.Query(state.makes)
		h.must(err)
		h.must(c.Send(pgtest.Encode('X')))
		h.await("the pin is given back", func() bool { return h.status().Pinned == 0 })
		for range 4 {
			h.want(h.client(), "SELECT (SELECT count(*) FROM pg_listening_channels()) + (SELECT count(*) FROM pg_cursors) + "+
				"(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())", "0")
		}
	}
}

// TestPinsAreBounded: beyond maxPinned what shows in the text is refused, in both protocols and
// without harm to the session, and what a function hides is taken off, with a warning.
func TestPinsAreBounded(t *testing.T) {
	h := keeping(t, 2) // half of it: one
	first, c := h.client(), h.client()
	h.query(first, "CREATE TEMP TABLE mine (n int)")
	for _, sql := range []string{"CREATE TEMP TABLE mine (n int)", "LISTEN x", "SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1"} {
		_, err := c.Query(sql)
		h.wantRefusal(err, "ERROR", "53300")
		h.must(c.Send(pgtest.Encode('P', "", sql, int16(0)), pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)),
			pgtest.Encode('E', "", 0), pgtest.Encode('S')))
		_, err = c.Answer()
		h.wantRefusal(err, "ERROR", "53300")
	}
	h.query(c, "CREATE TEMP TABLE gone (n int) ON COMMIT DROP")
	h.must(c.Send(pgtest.Encode('Q', "DO $$ BEGIN CREATE TEMP TABLE hidden (n int); END $$")))
	messages, err := c.Until('Z')
	h.must(err)
	warned := false
	for _, m := range messages {
		warned = warned || m.Type == 'N' && strings.Contains(string(m.Body), "temporary table is not kept")
	}
	if !warned {
		t.Errorf("no warning: %v", messages)
	}
	_, err = c.Query("SELECT * FROM hidden")
	h.wantRefusal(err, "ERROR", "42P01")
	h.query(first, "DROP TABLE mine")
	h.query(c, "CREATE TEMP TABLE mine (n int)")
	_, err = first.Query("LISTEN x")
	h.wantRefusal(err, "ERROR", "53300")
}

// TestShortTimeOutIsKept: not even one that ends every question of ours.
func TestShortTimeOutIsKept(t *testing.T) {
	h := keeping(t, 1)
	c, other := h.client(), h.client()
	h.query(c, "SET app.tenant = 'x'")
	_, err := c.Query("DO $$ BEGIN PERFORM set_config('statement_timeout', '1ms', false); END $$")
	h.must(err)
	h.want(other, "SHOW statement_timeout", "0")
	for range 20 {
		if _, err = c.Query("SHOW statement_timeout"); err == nil {
			break
		}
	}
	h.must(err)
	h.want(c, "BEGIN; SET LOCAL statement_timeout = 0; SELECT current_setting('app.tenant'); COMMIT", "x")
	_, err = c.Query("SET statement_timeout = 0")
	h.must(err)
	h.want(other, "SELECT current_setting('app.tenant', true)", "")
}
