package pooler_test

import (
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

const (
	connectTwo = "SET search_path = pg_catalog, public; SET work_mem = '6MB'; SET app.pooled = 'yes'; SET TimeZone = 'Europe/Berlin'"
	givenNow   = "SELECT concat_ws(' ', current_setting('search_path'), current_setting('work_mem'), current_setting('app.pooled', true), " +
		"current_setting('TimeZone'))"
	givenAll = "pg_catalog, public 6MB yes Europe/Berlin"
)

func withConnect(query string) option {
	return withPool(func(p *armor.Pool) { p.ConnectQuery = query })
}

// everyState runs a test for each way in which a pool of transactions deals with session state.
func everyState(t *testing.T, test func(t *testing.T, state armor.OnState)) {
	for _, state := range []armor.OnState{armor.ResetState, armor.KeepState, armor.PinState} {
		t.Run("onState "+string(state), func(t *testing.T) { test(t, state) })
	}
}

func withState(state armor.OnState) option {
	return withPool(func(p *armor.Pool) { p.OnState = state })
}

// TestWhatAPoolsQueryHasSetHoldsForEveryClient: of whatever identity, whatever the one before it
// has done to the server connection, of which there is one.
func TestWhatAPoolsQueryHasSetHoldsForEveryClient(t *testing.T) {
	everyState(t, func(t *testing.T, state armor.OnState) {
		h := newHouse(t, withBudget(1), withConnect(connectTwo), withState(state))
		one, other := armor.Identity("spiffe://production.acme.internal/app/one"), armor.Identity("spiffe://production.acme.internal/app/two")
		for _, did := range []string{
			"SELECT 1", "SET work_mem = '9MB'", "SET work_mem = '9MB'; RESET work_mem", "SET app.pooled = 'no'", "RESET app.pooled",
			"SET TimeZone = 'UTC'", "RESET TimeZone", "RESET ALL", "DISCARD ALL", "SELECT set_config('search_path', '', false)",
			"SELECT set_config('work_mem', NULL, false)", "BEGIN; SET work_mem = '9MB'; ROLLBACK", "BEGIN; SET LOCAL work_mem = '9MB'; COMMIT",
		} {
			a := h.clientOf(one)
			h.want(a, givenNow, givenAll)
			_, err := a.Query(did)
			h.must(err)
			h.must(a.Send(pgtest.Encode('X'))) // a pinned connection goes back
			h.want(h.clientOf(one), givenNow, givenAll)
			h.want(h.clientOf(other), givenNow, givenAll)
		}
	})
}

// TestAClientsOwnSettingsComeFirst, its startup packet's and what it has SET; a RESET leads to
// the pool's, from the next transaction on.
func TestAClientsOwnSettingsComeFirst(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.ConnectQuery = connectTwo })
	a, b := h.client(), h.client("work_mem", "5MB", "TimeZone", "Asia/Tokyo")
	const ofB = "pg_catalog, public 5MB yes Asia/Tokyo"
	for _, step := range []struct{ does, then string }{
		{"SELECT 1", givenAll},
		{"SET work_mem = '7MB'", "pg_catalog, public 7MB yes Europe/Berlin"},
		{"SET work_mem = '6MB'", givenAll},
		{"SET app.pooled = 'mine'; SET TimeZone = 'Asia/Tokyo'", "pg_catalog, public 6MB mine Asia/Tokyo"},
		{"RESET app.pooled", "pg_catalog, public 6MB yes Asia/Tokyo"},
		{"RESET TimeZone", givenAll},
		{"SET search_path = public", "public 6MB yes Europe/Berlin"},
		{"RESET ALL", givenAll},
		{"SET work_mem = '7MB'", "pg_catalog, public 7MB yes Europe/Berlin"},
		{"DISCARD ALL", givenAll},
	} {
		_, err := a.Query(step.does)
		h.must(err)
		h.want(b, givenNow, ofB)
		h.want(a, givenNow, step.then)
		h.want(b, givenNow, ofB)
	}
	_, err := b.Query("SET work_mem = '6MB'")
	h.must(err)
	h.want(a, givenNow, givenAll)
	h.want(b, givenNow, "pg_catalog, public 6MB yes Asia/Tokyo")
	_, err = b.Query("RESET ALL")
	h.must(err)
	h.want(b, givenNow, ofB)
	if pinned := h.status().Pinned; pinned != 0 {
		t.Errorf("%d clients are pinned", pinned)
	}
}

// TestWhatAPoolsQueryHasSetIsNobodysOwn: it costs a client that has set something else no reset.
func TestWhatAPoolsQueryHasSetIsNobodysOwn(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.ConnectQuery = connectTwo + "; SET application_name = 'ran'" })
	observer := h.observer()
	a := h.client()
	_, err := a.Query("SET statement_timeout = '1h'")
	h.must(err)
	h.must(a.Send(pgtest.Encode('P', "kept", "SELECT 41", int16(0)), pgtest.Encode('S')))
	_, err = a.Until('Z')
	h.must(err)
	h.want(a, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 41'", "1")
	h.want(h.client(), "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 41'", "1")
	h.want(observer, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ran'", "1")
}

// TestPoolsQueryInSessionMode: each client meets it, with its own settings in front.
func TestPoolsQueryInSessionMode(t *testing.T) {
	h := newHouse(t, withBudget(1), inMode(armor.SessionMode), withConnect(connectTwo))
	for _, does := range []string{"SELECT 1", "SET work_mem = '9MB'", "DISCARD ALL"} {
		a := h.client()
		h.want(a, givenNow, givenAll)
		_, err := a.Query(does)
		h.must(err)
		h.must(a.Send(pgtest.Encode('X')))
	}
	for range 2 {
		a := h.client("work_mem", "5MB")
		h.want(a, givenNow, strings.Replace(givenAll, "6MB", "5MB", 1))
		_, err := a.Query("SET work_mem = '9MB'")
		h.must(err)
		h.must(a.Send(pgtest.Encode('X')))
	}
}

// TestEveryClientIsApartWithAPoolsQuery: the pool resets where it else has the fence do it.
func TestEveryClientIsApartWithAPoolsQuery(t *testing.T) {
	h := newHouse(t, withBudget(1), withConnect(connectTwo), withPool(func(p *armor.Pool) { p.Isolation = armor.IsolatedClients }))
	_, err := h.superuser(pgtest.Database).Query("CREATE OR REPLACE FUNCTION public.hides() RETURNS void LANGUAGE plpgsql AS " +
		"$$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$")
	h.must(err)
	a, b := h.client(), h.client()
	for range 3 {
		_, err := a.Query("SELECT public.hides()")
		h.must(err)
		h.want(b, givenNow, givenAll)
	}
}

// TestFailingPoolsQueryIsNotAWrongPassword.
func TestFailingPoolsQueryIsNotAWrongPassword(t *testing.T) {
	for _, query := range []string{"SET nonsense = 1", "SELECT 1; DO $$ BEGIN RAISE EXCEPTION 'not you' USING ERRCODE = '28P01'; END $$"} {
		h := newHouse(t, withConnect(query))
		fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
		if !strings.HasPrefix(fields['D'], "PostgreSQL has refused the pool's connectQuery: ") || !strings.Contains(fields['D'], "(SQLSTATE ") {
			t.Errorf("detail %q", fields['D'])
		}
		h.pool.ConnectQuery = "SET work_mem = '6MB'"
		h.configure()
		h.want(h.client(), "SHOW work_mem", "6MB")
	}
}

// TestPoolsQueryThatFailsLaterEndsTheConnection: a new one is no better, and its clients are told.
func TestPoolsQueryThatFailsLaterEndsTheConnection(t *testing.T) {
	h := newHouse(t, withBudget(1), withConnect("SELECT * FROM public.wanted"), func(h *house, _ *pooler.Config) {
		_, err := h.superuser(pgtest.Database).Query("CREATE TABLE public.wanted (); GRANT SELECT ON public.wanted TO " + pgtest.Role)
		h.must(err)
	})
	a := h.client()
	h.query(a, "BEGIN")
	_, err := h.superuser(pgtest.Database).Query("DROP TABLE public.wanted")
	h.must(err)
	h.query(a, "SET work_mem = '9MB'; COMMIT")
	_, err = a.Query("SELECT 1")
	h.wantRefusal(err, "FATAL", "57P03")
}

// TestPoolsQueryMayChooseTheRole, and a client that leaves it finds it again.
func TestPoolsQueryMayChooseTheRole(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.ConnectQuery = "SET ROLE given_role" })
	_, err := h.superuser(pgtest.Database).Query("DROP ROLE IF EXISTS given_role; CREATE ROLE given_role; GRANT given_role TO " + pgtest.Role)
	h.must(err)
	a, b := h.client(), h.client()
	for _, does := range []string{"SELECT 1", "RESET ROLE", "SET ROLE none", "RESET ALL", "DISCARD ALL"} {
		_, err := a.Query(does)
		h.must(err)
		h.want(b, "SELECT current_user", "given_role")
		h.want(a, "SELECT current_user", "given_role")
	}
}

// TestPoolsQueryThatChangesIsRunAnew: what the former one had set was nobody's own, though
// PostgreSQL was asked for everything that the client has set.
func TestPoolsQueryThatChangesIsRunAnew(t *testing.T) {
	h := keeping(t, 1, func(p *armor.Pool) { p.ConnectQuery = connectTwo })
	a := h.client()
	_, err := a.Query("SELECT set_config('app.own', '1', false); DO $$ BEGIN END $$")
	h.must(err)
	h.want(a, "SHOW work_mem", "6MB")
	h.pool.ConnectQuery = "SET work_mem = '8MB'"
	h.configure()
	h.want(a, "SHOW work_mem", "8MB")
	h.want(a, "SHOW app.own", "1")
}
