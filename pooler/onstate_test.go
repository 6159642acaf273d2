package pooler_test

import (
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

func withOnState(s armor.OnState) option { return withPool(func(p *armor.Pool) { p.OnState = s }) }

// TestPinnedStateStaysWithTheClient: as in session mode, from the first command that
// leaves state to DISCARD ALL or the client's end, and nobody else meets it.
func TestPinnedStateStaysWithTheClient(t *testing.T) {
	h := newHouse(t, withBudget(1), withOnState(armor.PinState))
	c, other := h.client(), h.client()
	h.query(c, "SELECT 1")
	h.query(other, "SELECT 1") // of the same server connection
	h.query(c, "SET statement_timeout = 4321")
	h.query(c, "CREATE TEMP TABLE mine (n int)")
	h.query(c, "INSERT INTO mine VALUES (7)")
	if got := h.query(c, "SELECT n, pg_sleep(0) FROM mine"); len(got) != 1 || got[0] != "7" {
		t.Errorf("got %v", got)
	}
	h.must(other.Send(pgtest.Encode('Q', "SHOW statement_timeout")))
	h.await("the other waits", func() bool { return h.status().Waiting == 1 })
	if got := h.query(c, "SHOW statement_timeout"); got[0] != "4321ms" {
		t.Errorf("got %s", got)
	}
	h.query(c, "DISCARD ALL")
	messages, err := other.Until('Z')
	h.must(err)
	for _, m := range messages {
		if m.Type == 'D' && string(m.Body[6:]) != "0" {
			t.Errorf("the other sees %q", m.Body)
		}
	}
	h.query(c, "SET statement_timeout = 4321")
	h.must(c.Send(pgtest.Encode('X')))
	if got := h.query(other, "SHOW statement_timeout"); got[0] != "0" {
		t.Errorf("the other sees %s", got)
	}
}

// TestStateIsRefused: what the words tell does not run, the transaction is aborted as by
// any other error, and the session goes on.
func TestStateIsRefused(t *testing.T) {
	h := newHouse(t, withBudget(1), withOnState(armor.RefuseState))
	c := h.client()
	for _, sql := range []string{
		"SET statement_timeout = 4321", "CREATE TEMP TABLE mine (n int)", "LISTEN x", "PREPARE p AS SELECT 1",
		"SELECT pg_advisory_lock(1)", "SELECT 1; SET statement_timeout = 4321", "SELECT set_config('statement_timeout', '4321', false)",
	} {
		_, err := c.Query(sql)
		if f := h.wantRefusal(err, "ERROR", "0A000"); f['M'] != "this pool refuses commands that leave session state behind" {
			t.Errorf("%s: %q", sql, f)
		}
	}
	h.query(c, "BEGIN")
	h.query(c, "SET LOCAL statement_timeout = 4321")
	if got := h.query(c, "SHOW statement_timeout"); got[0] != "4321ms" {
		t.Errorf("SET LOCAL: %s", got)
	}
	_, err := c.Query("SET statement_timeout = 4321")
	h.wantRefusal(err, "ERROR", "0A000")
	_, err = c.Query("SELECT 1")
	h.wantRefusal(err, "ERROR", "25P02")
	h.query(c, "ROLLBACK")
	h.must(c.Send(pgtest.Encode('P', "", "SELECT set_config('a.b', $1, false)", int16(0)),
		pgtest.Encode('B', "", "", int16(0), int16(1), 1, []byte("x"), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
	_, err = c.Answer()
	h.wantRefusal(err, "ERROR", "0A000")
	_, err = c.Query("DO $$ BEGIN PERFORM set_config('statement_timeout', '4321', false); END $$")
	h.must(err) // no word tells; it is reset
	if got := h.query(c, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"); got[0] != "0" {
		t.Errorf("%s advisory locks", got)
	}
}

// TestSetThatLooksHarmlessDoesNotLeak: whatever stands around its words.
func TestSetThatLooksHarmlessDoesNotLeak(t *testing.T) {
	for _, set := range []string{"SET /* LOCAL */ statement_timeout = 4321",
		"SET -- local\nstatement_timeout = 4321", "SET local.x = 'leaked'", `SET "local".x = 'leaked'`} {
		h := newHouse(t, withBudget(1))
		c, other := h.client(), h.client()
		_, err := c.Query(set)
		h.must(err)
		if got := h.query(other, "SELECT current_setting('statement_timeout') || coalesce(current_setting('local.x', true), '')"); got[0] != "0" {
			t.Errorf("%s: the next client sees %q", set, got[0])
		}
	}
}
