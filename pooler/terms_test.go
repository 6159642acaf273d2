package pooler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// leave ends a client's session in good order.
func (h *house) leave(c *pgtest.Client) {
	h.t.Helper()
	h.must(c.Send(pgtest.Encode('X')))
	h.awaitClosed("the session ends", h.last().ended)
}

// TestResetLeadsToTheStartupPacket, in session mode, as without a pooler: also for the
// second client that gets the server connection.
func TestResetLeadsToTheStartupPacket(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode), withBudget(1))
	startup := []string{"DateStyle", "German", "options", "-c statement_timeout=7s -c app.tenant=acme", "application_name", "shop"}
	const shown = "SELECT concat_ws('|', current_setting('DateStyle'), current_setting('statement_timeout'), current_setting('app.tenant'))"
	const want = "German, DMY|7s|acme"
	pid := uint32(0)
	for round := range 2 {
		c := h.client(startup...)
		if got := h.query(c, "SELECT current_setting('application_name')")[0]; got != "shop" {
			t.Errorf("it is called %q", got)
		}
		for _, undo := range []string{"RESET ALL", "DISCARD ALL",
			"RESET DateStyle; RESET statement_timeout; RESET app.tenant", "SET DateStyle TO DEFAULT"} {
			h.query(c, "SET DateStyle = 'SQL'")
			h.query(c, "SET statement_timeout = '9s'")
			h.query(c, "SET app.tenant = 'other'")
			for _, sql := range strings.Split(undo, ";") {
				h.query(c, sql)
			}
			if undo == "SET DateStyle TO DEFAULT" {
				h.query(c, "RESET ALL")
			}
			if got := h.query(c, shown)[0]; got != want {
				t.Errorf("round %d: after %s it has %q, want %q", round, undo, got, want)
			}
		}
		if round > 0 && c.PID != pid {
			t.Error("a server connection with the same settings was not lent again")
		}
		pid = c.PID
		h.leave(c)
	}
}

// TestClientsWithOtherSettingsDoNotShare, and make room for each other inside of the
// budget; a name alone is no other setting.
func TestClientsWithOtherSettingsDoNotShare(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode), withBudget(1))
	seen := map[uint32]string{}
	for _, setting := range []string{"1MB", "2MB", ""} {
		for _, name := range []string{"a", "b"} {
			parameters := []string{"application_name", name}
			if setting != "" {
				parameters = append(parameters, "work_mem", setting)
			}
			c := h.client(parameters...)
			if before, known := seen[c.PID]; known && before != setting {
				t.Errorf("a server connection for %q is lent for %q", before, setting)
			} else if !known && name == "b" {
				t.Errorf("%q: another server connection for another name", setting)
			}
			seen[c.PID] = setting
			want := setting
			if want == "" {
				want = "4MB"
			}
			if got := h.query(c, "SELECT current_setting('work_mem') || current_setting('application_name')")[0]; got != want+name {
				t.Errorf("got %q, want %q", got, want+name)
			}
			h.leave(c)
		}
	}
}

// TestAWrongSettingKeepsNobodyElseOut: its logins fail, and wait for each other, by
// themselves.
func TestAWrongSettingKeepsNobodyElseOut(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode))
	for range 3 { // the first that fails, and those that are told at once
		h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders", "DateStyle", "nonsense"), "FATAL", "22023")
		h.leave(h.client())
		h.leave(h.client("DateStyle", "German"))
	}
	if reason := h.status().NotReady; reason != "" {
		t.Errorf("the pool is not ready: %s", reason)
	}
}

// TestUnusedLoginsWithSettingsEnd: a pool's minimum is not for them.
func TestUnusedLoginsWithSettingsEnd(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode), func(h *house, _ *pooler.Config) {
		h.pool.MinSize, h.pool.ServerIdle = 1, 300*time.Millisecond
	})
	h.leave(h.client("work_mem", "1MB"))
	h.await("it ends", func() bool { return h.Held()["production/orders"] == 0 })
	h.leave(h.client())
	h.await("the role keeps its one", func() bool { return h.status().Idle == 1 })
}
