package pooler_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

const (
	webApp   armor.Identity = "spiffe://test/app/web/host/a"
	webApp2  armor.Identity = "spiffe://test/app/web/host/b"
	otherApp armor.Identity = "spiffe://test/app/other"
)

func isolated(i armor.Isolation) option { return withPool(func(p *armor.Pool) { p.Isolation = i }) }

// hidden runs a command so that no text shows what it is.
func hidden(sql string) string {
	var parts []string
	for _, c := range sql {
		parts = append(parts, "chr("+strconv.Itoa(int(c))+")")
	}
	return "DO $$ BEGIN EXECUTE " + strings.Join(parts, "||") + "; END $$"
}

// left is what a client can leave behind, and how another one finds it.
var left = []struct{ what, leave, find, clean string }{
	{"a setting", "set search_path to pg_catalog, nowhere", "SHOW search_path", `"$user", public`},
	{"a tenant", "set app.tenant to 'one'", "SELECT coalesce(current_setting('app.tenant', true), '')", ""},
	{"a role", "set role orders_rw", "SELECT current_setting('role')", "none"},
	{"a temporary table", "create temp table loot as select 1", "SELECT coalesce(to_regclass('pg_temp.loot')::text, '')", ""},
	{"a lock", "select pg_advisory_lock(7)",
		"SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "0"},
	{"a channel", "listen gossip", "SELECT count(*)::text FROM pg_listening_channels()", "0"},
	{"a statement", "prepare loot as select 1", "SELECT count(*)::text FROM pg_prepared_statements WHERE name = 'loot'", "0"},
	{"a cursor", "declare loot cursor with hold for select 1", "SELECT count(*)::text FROM pg_cursors WHERE name = 'loot'", "0"},
}

// TestNothingPassesFromOneIdentityToAnother: whatever hid it from us.
func TestNothingPassesFromOneIdentityToAnother(t *testing.T) {
	for _, s := range left {
		t.Run(s.what, func(t *testing.T) {
			h := newHouse(t, withBudget(1))
			thief, host, victim := h.clientOf(webApp), h.clientOf(webApp2), h.clientOf(otherApp)
			h.query(thief, hidden(s.leave))
			if got := h.query(host, s.find); got[0] == s.clean {
				t.Errorf("nothing was left: the next machine of the same app finds %q", got)
			}
			if got := h.query(victim, s.find); got[0] != s.clean {
				t.Errorf("another app finds %q, want %q", got, s.clean)
			}
		})
	}
}

// TestIsolationIsChosenByThePool: always resets between any two clients, and not between two
// transactions of one; none trusts what the texts show.
func TestIsolationIsChosenByThePool(t *testing.T) {
	s := left[1]
	for isolation, finds := range map[armor.Isolation]struct{ same, other bool }{
		armor.IsolatedClients:    {false, false},
		armor.IsolatedIdentities: {true, false},
		armor.NoIsolation:        {true, true},
	} {
		for who, meets := range map[armor.Identity]bool{webApp2: finds.same, otherApp: finds.other} {
			h := newHouse(t, withBudget(1), isolated(isolation))
			first, second := h.clientOf(webApp), h.clientOf(who)
			h.query(first, hidden(s.leave))
			if got := h.query(first, s.find); got[0] == s.clean {
				t.Errorf("%q: a client is reset between its own transactions", isolation)
			}
			if got := h.query(second, s.find); (got[0] != s.clean) != meets {
				t.Errorf("%q: %s finds %q", isolation, who, got)
			}
		}
	}
}

// TestAnIdentityIsLentItsOwnConnection, so that nothing needs to be reset for it.
func TestAnIdentityIsLentItsOwnConnection(t *testing.T) {
	h := newHouse(t, withBudget(2))
	web, other := h.clientOf(webApp), h.clientOf(otherApp)
	h.query(web, "BEGIN")
	first := h.query(other, "SELECT pg_backend_pid()")
	h.query(web, "COMMIT")
	for range 5 {
		h.query(web, "SELECT 1")
		if again := h.query(other, "SELECT pg_backend_pid()"); again[0] != first[0] {
			t.Fatalf("it was lent %s and then %s", first, again)
		}
	}
}

// TestAnIdentityPrefersWhatNobodyHasUsed to what another has.
func TestAnIdentityPrefersWhatNobodyHasUsed(t *testing.T) {
	h := newHouse(t, withBudget(3), as(armor.RoleAuth{Role: pgtest.Role, Secret: "orders"}),
		withPool(func(p *armor.Pool) { p.MinSize, p.WarmUp = 3, true }))
	h.await("all are open", func() bool { return h.status().Idle >= 3 })
	seen := map[string]bool{}
	for _, who := range []armor.Identity{webApp, otherApp, "spiffe://test/app/third"} {
		seen[h.query(h.clientOf(who), "SELECT pg_backend_pid()")[0]] = true
	}
	if len(seen) != 3 {
		t.Errorf("three identities share %d of three connections", len(seen))
	}
}

// TestAResetThatFailsIsNotNoticed: the client is served by another connection.
func TestAResetThatFailsIsNotNoticed(t *testing.T) {
	h := newHouse(t, withBudget(1))
	web, other := h.clientOf(webApp), h.clientOf(otherApp, "timezone", "Asia/Tokyo")
	pid := h.query(web, "SELECT pg_backend_pid()")
	// What is to be dropped takes longer than the time that there is.
	h.query(web, "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE 'create te' || 'mp table t' || i || ' (n int)'; END LOOP; END $$")
	h.query(web, hidden("set statement_timeout to 1"))
	got := h.query(other, "SELECT pg_backend_pid() || current_setting('TimeZone')")
	if strings.HasPrefix(got[0], pid[0]) || !strings.HasSuffix(got[0], "Asia/Tokyo") {
		t.Errorf("got %s from %s", got, pid)
	}
	h.must(other.Send(pgtest.Encode('P', "kept", "SELECT 7", int16(0)), pgtest.Encode('S')))
	_, err := other.Answer()
	h.must(err)
	h.query(web, "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE 'create te' || 'mp table t' || i || ' (n int)'; END LOOP; END $$")
	h.query(web, hidden("set statement_timeout to 1"))
	h.must(other.Send(pgtest.Encode('B', "", "kept", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
	if got, err := other.Answer(); err != nil || len(got) != 1 || got[0] != "7" {
		t.Errorf("a statement on another connection: %v, %v", got, err)
	}
}

// TestResetInTransactionModeLeadsToTheStartupPacket, as without a pooler, also inside of a transaction.
func TestResetInTransactionModeLeadsToTheStartupPacket(t *testing.T) {
	h := newHouse(t, withBudget(1))
	c := h.client("timezone", "Asia/Tokyo", "search_path", "pg_catalog", "statement_timeout", "54321ms")
	show := "SELECT current_setting('TimeZone') || current_setting('search_path') || current_setting('statement_timeout')"
	const want = "Asia/Tokyopg_catalog54321ms"
	for _, reset := range []string{"RESET ALL", "RESET timezone", "RESET search_path", "DISCARD ALL", "RESET statement_timeout"} {
		h.query(c, "SET timezone TO 'CET'")
		h.query(c, reset)
		got := h.query(c, show)
		kept := reset == "RESET search_path" || reset == "RESET statement_timeout" // what was SET
		if !kept && got[0] != want || !strings.HasSuffix(got[0], "pg_catalog54321ms") {
			t.Errorf("after %s: %s", reset, got)
		}
	}
	h.query(c, "BEGIN")
	h.query(c, "RESET ALL")
	if got := h.query(c, show); got[0] != want {
		t.Errorf("inside of a transaction: %s", got)
	}
	h.query(c, "ROLLBACK")
	if got := h.query(c, show); got[0] != "CETpg_catalog54321ms" {
		t.Errorf("after it was rolled back: %s", got)
	}
}

// TestALoginWithNewSettingsWaitsForNothing while all server connections are lent.
func TestALoginWithNewSettingsWaitsForNothing(t *testing.T) {
	h := newHouse(t, withBudget(1), withQueryWait(time.Minute))
	c := h.client()
	h.query(c, "BEGIN")
	late := h.client("timezone", "Asia/Tokyo", "search_path", "nowhere")
	h.query(c, "COMMIT")
	if got := h.query(late, "SELECT current_setting('TimeZone') || current_setting('search_path')"); got[0] != "Asia/Tokyonowhere" {
		t.Errorf("got %s", got)
	}
}

// TestSettingsSurviveANeighboursEncoding: what is put in force is read alike in all of them.
func TestSettingsSurviveANeighboursEncoding(t *testing.T) {
	h := newHouse(t, withBudget(1))
	latin, c := h.client("client_encoding", "LATIN1"), h.client("search_path", `"schéma"`)
	for range 3 {
		h.query(latin, "SELECT 1")
		if got := h.query(c, "SHOW search_path"); got[0] != `"schéma"` {
			t.Errorf("got %q", got)
		}
	}
}

// TestNothingIsReplayedThatNobodyHasSet: a change of the server's configuration is told, and
// reaches clients that were there before it.
func TestNothingIsReplayedThatNobodyHasSet(t *testing.T) {
	pg := ownPostgres(t)
	h := newHouse(t, withBudget(2), on(pg, pg.Socket()))
	c, d := h.client(), h.client()
	h.query(c, "BEGIN")
	h.query(d, "SELECT 1")
	h.query(c, "COMMIT")
	if _, err := pg.SQL("postgres", "ALTER SYSTEM SET default_transaction_read_only TO on", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	h.await("it is in force", func() bool {
		return h.query(c, "SHOW default_transaction_read_only")[0] == "on" && h.query(d, "SHOW default_transaction_read_only")[0] == "on"
	})
	if got := h.query(h.client(), "SHOW default_transaction_read_only"); got[0] != "on" {
		t.Errorf("a new client: %s", got)
	}
}

// TestLastvalNeverAnswersWithAnothersNumber: neither as a simple query nor prepared, where the
// client has asked for it before or not.
func TestLastvalNeverAnswersWithAnothersNumber(t *testing.T) {
	h := newHouse(t, withBudget(1))
	h.query(h.client(), "CREATE TABLE numbered (n serial, t text)")
	mine, other := h.client(), h.client()
	refused := func(err error, how string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: another's number", how)
			return
		}
		h.wantRefusal(err, "ERROR", "55000")
	}
	for range 2 {
		h.query(mine, "INSERT INTO numbered (t) VALUES ('mine')")
		if got := h.query(mine, "SELECT lastval() - max(n) FROM numbered"); got[0] != "0" {
			t.Errorf("one's own number: off by %s", got)
		}
		h.query(other, "INSERT INTO numbered (t) VALUES ('other')")
		_, err := mine.Query("SELECT lastval()")
		refused(err, "a simple query")
		h.query(other, "INSERT INTO numbered (t) VALUES ('other')")
		h.must(mine.Send(pgtest.Encode('P', "", "SELECT currval('numbered_n_seq')", int16(0)),
			pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
		_, err = mine.Answer()
		refused(err, "an extended one")
	}
}

// TestAReloadIsToldToNewClients as soon as one server connection has heard of it, and RECONNECT
// forgets what was known.
func TestAReloadIsToldToNewClients(t *testing.T) {
	pg := ownPostgres(t)
	h := newHouse(t, withBudget(1), on(pg, pg.Socket()))
	c := h.client()
	if got := c.Parameters["TimeZone"]; got == "Asia/Tokyo" {
		t.Fatal("it is so already")
	}
	h.query(c, "SELECT 1")
	if _, err := pg.SQL("postgres", "ALTER SYSTEM SET timezone TO 'Asia/Tokyo'", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	h.await("it is in force", func() bool { return h.query(c, "SHOW timezone")[0] == "Asia/Tokyo" })
	h.await("a new client is told", func() bool { return h.client().Parameters["TimeZone"] == "Asia/Tokyo" }) // the connection is back by then
}
