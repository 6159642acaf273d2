package pooler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

func withMaxLag(d time.Duration) option {
	return func(h *house, _ *pooler.Config) { h.database.MaxLag = d }
}

// TestAStandbyIsChosenWhileItIsFresh, as an ordinary role is told. The last transaction is older
// than maxLag all the time.
func TestAStandbyIsChosenWhileItIsFresh(t *testing.T) {
	primary, standby := pair(t)
	sql := func(pg *pgtest.Postgres, statement, want string) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			got, err := pg.SQL("postgres", statement)
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %q, want %q", statement, got, want)
			}
		}
	}
	const (
		received = "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"
		isOld    = "SELECT now() - pg_last_xact_replay_timestamp() > '200 ms'"
	)
	sql(primary, "CREATE TABLE public.written AS SELECT 1 AS n", "")
	sql(standby, "SELECT count(*) FROM pg_class WHERE relname = 'written'", "1")
	sql(standby, isOld, "t")
	limit := withMaxLag(100 * time.Millisecond)
	onlyStandbys := []option{withHosts(armor.Standby, armor.InOrder, primary, standby), limit, withQueryWait(time.Second)}
	preferred := []option{withHosts(armor.PreferStandby, armor.InOrder, standby, primary), limit}
	wants := func(what string, fresh bool) {
		t.Helper()
		h := newHouse(t, preferred...)
		if got := h.query(h.client(), isStandby)[0]; (got == "t") != fresh {
			t.Errorf("%s: a standby is preferred, and the session is on one: %s", what, got)
		}
		h = newHouse(t, onlyStandbys...)
		if fresh {
			h.client()
			return
		}
		h.refusedAsBehind("Behind by more than maxLag (100ms): host 2 of 2 by ")
	}
	wants("its primary is idle", true)

	sql(standby, "SELECT pg_wal_replay_pause()", "")
	sql(standby, "SELECT pg_get_wal_replay_pause_state()", "paused")
	sql(primary, "INSERT INTO public.written VALUES (2)", "")
	sql(standby, received, "f")
	sql(standby, isOld, "t")
	wants("replay is paused", false)

	sql(standby, "SELECT pg_wal_replay_resume()", "")
	sql(standby, received, "t")
	wants("replay goes on", true)

	sql(standby, isOld, "t")
	sql(standby, "ALTER SYSTEM SET wal_receiver_timeout = 0", "")
	sql(standby, "SELECT pg_reload_conf()", "t")
	sql(standby, "SHOW wal_receiver_timeout", "0")
	wants("it would not notice that its primary is gone", false)
	sql(standby, "ALTER SYSTEM RESET wal_receiver_timeout", "")
	sql(standby, "SELECT pg_reload_conf()", "t")
	sql(standby, "SHOW wal_receiver_timeout", "1min")
	wants("it would again", true)

	primary.Kill()
	sql(standby, "SELECT count(*) FROM pg_stat_wal_receiver", "0")
	sql(standby, received, "t")
	newHouse(t, onlyStandbys...).refusedAsBehind("host 2 of 2 by ")
}

// refusedAsBehind waits until a client is refused after a login has been tried.
func (h *house) refusedAsBehind(detail string) {
	h.t.Helper()
	h.await("a refusal that says "+detail, func() bool {
		fields := h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "53300")
		return strings.Contains(fields['D'], detail)
	})
}

// TestAStandbyThatHasReplayedNothingIsNotFresh, unless it streams.
func TestAStandbyThatHasReplayedNothingIsNotFresh(t *testing.T) {
	primary, standby := pair(t)
	primary.Kill()
	h := newHouse(t, withHosts(armor.PreferStandby, armor.InOrder, standby, primary), withMaxLag(time.Hour), withQueryWait(time.Second))
	observer := h.observer()
	h.await("the receiver has gone", func() bool { return h.query(observer, "SELECT count(*) FROM pg_stat_wal_receiver")[0] == "0" })
	h.want(observer, "SELECT pg_last_xact_replay_timestamp() IS NULL", "t")
	h.refusedAsBehind("host 1 of 2 by a time that cannot be known")
}
