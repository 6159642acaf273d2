package pooler_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

func TestFirstComeFirstServed(t *testing.T) {
	h := newHouse(t, withBudget(1))
	holder := h.client()
	h.query(holder, "BEGIN")
	h.query(holder, "CREATE TABLE turns (n serial, who int)")
	h.query(holder, "COMMIT")
	defer func() { h.query(holder, "DROP TABLE turns") }()
	h.query(holder, "BEGIN")
	var waiting []*pgtest.Client
	for i := range 12 {
		c := h.client()
		waiting = append(waiting, c)
		h.must(c.Send(pgtest.Encode('Q', fmt.Sprintf("INSERT INTO turns (who) VALUES (%d)", i))))
		h.await("it waits", func() bool { return h.status().Waiting == i+1 })
	}
	h.query(holder, "COMMIT")
	for _, c := range waiting {
		_, err := c.Answer()
		h.must(err)
	}
	for i, who := range h.query(holder, "SELECT who FROM turns ORDER BY n") {
		if who != fmt.Sprint(i) {
			t.Fatalf("turn %d was client %s's", i, who)
		}
	}
}

func TestLimitIsMovedUnderway(t *testing.T) {
	h := newHouse(t, withBudget(3))
	observer := h.observer()
	var clients []*pgtest.Client
	for range 3 {
		c := h.client()
		h.query(c, "BEGIN")
		clients = append(clients, c)
	}
	if n := h.backends(observer); n != 3 {
		t.Fatalf("%d backends", n)
	}
	h.SetLimits(map[string]int{h.pool.Key(): 1})
	if s := h.status(); s.Limit != 1 || s.Open != 3 {
		t.Errorf("status %+v", s)
	}
	for _, c := range clients {
		h.query(c, "COMMIT") // lent connections end as they come back
	}
	h.await("two have ended", func() bool { return h.Held()[h.pool.Key()] == 1 && h.backends(observer) == 1 })
	h.SetLimits(nil)
	h.await("all have ended", func() bool { return len(h.Held()) == 0 && h.backends(observer) == 0 })
	h.must(clients[0].Send(pgtest.Encode('Q', "SELECT 1")))
	h.await("it waits", func() bool { return h.status().Waiting == 1 })
	h.SetLimits(map[string]int{h.pool.Key(): 1})
	_, err := clients[0].Answer()
	h.must(err)
}

func TestIdleConnectionsMakeRoomForAnotherRole(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a := h.client()
	h.query(a, "SELECT 1")
	b := h.dial()
	h.must(b.Login("user", pgtest.OtherRole, "database", "orders"))
	for range 3 {
		if got := h.query(b, "SELECT current_user"); got[0] != pgtest.OtherRole {
			t.Errorf("got %q", got)
		}
		if got := h.query(a, "SELECT current_user"); got[0] != pgtest.Role {
			t.Errorf("got %q", got)
		}
	}
}

func TestNewServerIsUsedOnceConfigured(t *testing.T) {
	h := newHouse(t)
	c := h.client()
	local := h.query(c, "SELECT inet_server_addr() IS NULL")
	h.database.Hosts, h.secrets.hosts = []string{postgres.TCP()}, []string{postgres.TCP()}
	h.configure()
	remote := h.query(c, "SELECT inet_server_addr() IS NULL")
	if local[0] != "t" || remote[0] != "f" {
		t.Errorf("got %q, then %q", local, remote)
	}
	h.Configure(nil, nil)
	_, err := c.Query("SELECT 1")
	h.wantRefusal(err, "FATAL", "57P01")
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
	if s := h.Status(); len(s) != 0 {
		t.Errorf("status %v", s)
	}
	h.await("nothing is held", func() bool { return len(h.Held()) == 0 })
}

func TestWrongPasswordIsToldAndNotRepeated(t *testing.T) {
	h := newHouse(t)
	h.secrets.set("wrong")
	err := h.dial().Login("user", pgtest.Role, "database", "orders")
	fields := h.wantRefusal(err, "FATAL", "08006")
	if want := `PostgreSQL says: password authentication failed for user "orders_rw" (SQLSTATE 28P01).`; fields['D'] != want {
		t.Errorf("detail %q, want %q", fields['D'], want)
	}
	asked := strings.Count(postgres.Log(), "password authentication failed")
	for range 5 { // within the back-off nobody asks PostgreSQL again
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	}
	if now := strings.Count(postgres.Log(), "password authentication failed"); now != asked {
		t.Errorf("PostgreSQL was asked %d times more", now-asked)
	}
	if s := h.status(); s.NotReady == "" {
		t.Error("the pool says that it is ready")
	}
	h.secrets.set("wrong", pgtest.Password) // rotation: the second one is tried
	h.await("it is asked again", func() bool { return h.dial().Login("user", pgtest.Role, "database", "orders") == nil })
	if s := h.status(); s.NotReady != "" {
		t.Errorf("not ready: %s", s.NotReady)
	}
}

func TestReloadTriesFailedLoginsAgainAndNamesWhatIsMissing(t *testing.T) {
	h := newHouse(t)
	h.secrets.set("wrong")
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	h.secrets.set(pgtest.Password)
	if faults := h.Reload(); len(faults) > 0 {
		t.Fatalf("Reload = %v", faults)
	}
	h.must(h.dial().Login("user", pgtest.Role, "database", "orders")) // no back-off holds it up
	h.secrets.mu.Lock()
	h.secrets.hosts = nil
	h.secrets.mu.Unlock()
	if faults := h.Reload(); len(faults) != 1 || !strings.Contains(faults[0].Error(), "orders: ") ||
		!strings.Contains(faults[0].Error(), "secret orders") {
		t.Errorf("Reload = %v", faults)
	}
}

func TestMissingSecretMakesThePoolNotReady(t *testing.T) {
	h := newHouse(t)
	h.secrets.mu.Lock()
	h.secrets.hosts = nil
	h.secrets.mu.Unlock()
	if s := h.status(); s.NotReady == "" {
		t.Error("the pool says that it is ready")
	}
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
}

func TestIdleConnectionThatEndsIsReplaced(t *testing.T) {
	h := newHouse(t, withBudget(2))
	c := h.client()
	for range 3 {
		pid := h.query(c, "SELECT pg_backend_pid()")
		_, err := postgres.SQL("postgres", "SELECT pg_terminate_backend("+pid[0]+", 5000)")
		h.must(err)
		if again := h.query(c, "SELECT pg_backend_pid()"); again[0] == pid[0] {
			t.Errorf("backend %s lives", pid[0])
		}
	}
	h.await("no place is lost", func() bool { return h.Held()[h.pool.Key()] == 1 })
}

func TestClientGoneInTransactionRollsBack(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(1))
		a := h.client()
		h.query(a, "BEGIN")
		h.query(a, "CREATE TABLE never_seen (n int)")
		a.Close()
		h.awaitClosed("the session ends", h.last().ended)
		b := h.client()
		if _, err := b.Query("SELECT * FROM never_seen"); err == nil {
			t.Error("the transaction was committed")
		}
	})
}
