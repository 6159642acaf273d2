package pooler_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// bothModes runs a test in each pool mode.
func bothModes(t *testing.T, test func(t *testing.T, mode armor.PoolMode)) {
	for _, mode := range []armor.PoolMode{armor.SessionMode, armor.TransactionMode} {
		t.Run(string(mode), func(t *testing.T) { test(t, mode) })
	}
}

func TestClientsRunQueries(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client("application_name", "checkout")
		if got := h.query(c, "SELECT current_user || ' ' || current_database() || ' ' || current_setting('application_name')"); got[0] != "orders_rw orders checkout" {
			t.Errorf("got %q", got)
		}
		if _, err := c.Query("SELECT 1/0"); err == nil {
			t.Error("division by zero succeeded")
		}
		h.query(c, "BEGIN")
		if _, err := c.Query("SELECT nonsense"); err == nil {
			t.Error("nonsense succeeded")
		}
		_, err := c.Query("SELECT 1")
		h.wantRefusal(err, "ERROR", "25P02")
		h.query(c, "ROLLBACK")
		if got := h.query(c, "SELECT 42"); got[0] != "42" {
			t.Errorf("got %q", got)
		}
		h.must(c.Send(pgtest.Encode('X')))
		if _, err := c.Receive(); err != io.EOF {
			t.Errorf("after Terminate: %v", err)
		}
		h.awaitClosed("ServeConn returns", h.last().ended)
	})
}

func TestOverTCPAndOverTheSocket(t *testing.T) {
	for _, host := range []string{postgres.TCP(), postgres.Socket()} {
		h := newHouse(t, withHost(host))
		c := h.client()
		got := h.query(c, "SELECT current_setting('client_connection_check_interval') || ' ' || (inet_server_addr() IS NULL)")
		if want := fmt.Sprintf("2s %v", host == postgres.Socket()); got[0] != want {
			t.Errorf("at %s: got %q, want %q", host, got[0], want)
		}
	}
}

func TestTransactionModeLendsByTransaction(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a, b := h.client(), h.client()
	first, second := h.query(a, "SELECT pg_backend_pid()"), h.query(b, "SELECT pg_backend_pid()")
	if first[0] != second[0] {
		t.Errorf("two clients of a pool of one met backends %s and %s", first[0], second[0])
	}
	h.query(a, "BEGIN")
	h.must(b.Send(pgtest.Encode('Q', "SELECT 7")))
	h.await("the other client waits", func() bool { return h.status().Waiting == 1 })
	h.query(a, "COMMIT")
	if got, err := b.Answer(); err != nil || got[0] != "7" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSessionModeGivesTheBackendsOwnPID(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode))
	c := h.client()
	if got := h.query(c, "SELECT pg_backend_pid()"); got[0] != fmt.Sprint(c.PID) {
		t.Errorf("BackendKeyData says %d, PostgreSQL %s", c.PID, got[0])
	}
}

func TestNothingOfOneClientReachesTheNext(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(1))
		a := h.client()
		pid := h.query(a, "SELECT pg_backend_pid()")
		h.query(a, "CREATE TEMP TABLE secret AS SELECT 1")
		h.query(a, "SET search_path = nowhere")
		h.query(a, "SELECT pg_advisory_lock(1)")
		h.must(a.Send(pgtest.Encode('X')))
		h.awaitClosed("the session ends", h.last().ended)
		b := h.client()
		got := h.query(b,
			"SELECT pg_backend_pid() || ' ' || current_setting('search_path') || ' ' || count(*) FROM pg_locks WHERE locktype = 'advisory'")
		if want := pid[0] + ` "$user", public 0`; got[0] != want {
			t.Errorf("got %q, want %q", got[0], want)
		}
		if _, err := b.Query("SELECT * FROM pg_temp.secret"); err == nil {
			t.Error("the temporary table is still there")
		}
	})
}

func TestStartupSettingsAreInForce(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(1))
		for range 2 { // the second time from what was learned
			c := h.client("DateStyle", "German", "options", `-c statement_timeout=7s --search-path="a\ b",public`,
				"extra_float_digits", "1", "application_name", "é")
			if got := c.Parameters["DateStyle"]; got != "German, DMY" {
				t.Errorf("reported DateStyle %q", got)
			}
			show := "current_setting('%s')"
			sql := "SELECT concat_ws('|'"
			for _, name := range []string{"DateStyle", "statement_timeout", "search_path", "extra_float_digits", "application_name"} {
				sql += ", " + fmt.Sprintf(show, name)
			}
			if got, want := h.query(c, sql+")")[0], `German, DMY|7s|"a b",public|1|`+c.Parameters["application_name"]; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			h.must(c.Send(pgtest.Encode('X')))
			h.awaitClosed("the session ends", h.last().ended)
		}
		other := h.client("work_mem", "1MB") // a combination that nobody has asked for yet
		if got := other.Parameters["DateStyle"]; got != "ISO, MDY" {
			t.Errorf("the next client is told DateStyle %q", got)
		}
		h.must(other.Send(pgtest.Encode('X')))
		h.awaitClosed("the session ends", h.last().ended)
		plain := h.client()
		if got := plain.Parameters["DateStyle"]; got != "ISO, MDY" {
			t.Errorf("the next client is told DateStyle %q", got)
		}
		if got := h.query(plain, "SELECT current_setting('DateStyle') || current_setting('statement_timeout') || current_setting('search_path')"); got[0] != `ISO, MDY0"$user", public` {
			t.Errorf("the next client has %q", got[0])
		}
	})
}

func TestStartupIsRefusedInPostgreSQLsWords(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		for _, c := range []struct {
			parameters []string
			code, text string
		}{
			{[]string{"DateStyle", "nonsense"}, "22023", `invalid value for parameter "DateStyle": "nonsense"`},
			{[]string{"no_such_thing", "1"}, "42704", `unrecognized configuration parameter "no_such_thing"`},
			{[]string{"tcp_user_timeout", "0"}, "0A000", `parameter "tcp_user_timeout" cannot be set through Armor`},
			{[]string{"options", "-B 100"}, "0A000", `startup option "-B" is not available through Armor`},
			{[]string{"database", "payroll"}, "28000", `may not reach database "payroll"`},
		} {
			client := h.dial()
			err := client.Login(append([]string{"user", pgtest.Role, "database", "orders"}, c.parameters...)...)
			if fields := h.wantRefusal(err, "FATAL", c.code); fields['M'] != c.text {
				t.Errorf("%v: got %q, want %q", c.parameters, fields['M'], c.text)
			}
			if _, err := client.Receive(); err != io.EOF {
				t.Errorf("after the refusal: %v", err)
			}
		}
		h.client("replication", "off")
	})
}

func TestNewerProtocolIsNegotiatedDown(t *testing.T) {
	h := newHouse(t)
	c := h.dial()
	packet := pgtest.Startup("user", pgtest.Role, "database", "orders", "_pq_.nonsense", "1")
	packet[7] = 2 // protocol 3.2
	h.must(c.Send(packet))
	m, err := c.Receive()
	h.must(err)
	if want := "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.nonsense\x00"; m.Type != 'v' || string(m.Body) != want {
		t.Errorf("got %v %q", m, m.Body)
	}
	_, err = c.Until('Z')
	h.must(err)
}

func TestGarbageIsRefused(t *testing.T) {
	h := newHouse(t)
	for packet, code := range map[string]string{
		"\x00\x00\x00\x04":                          "08P01",
		"\x7f\xff\xff\xff":                          "08P01",
		"\x00\x00\x00\x09\x00\x02\x00\x00\x00":      "0A000",
		"\x00\x00\x00\x0e\x00\x03\x00\x00user\x00x": "08P01",
	} {
		c := h.dial()
		_, err := c.Write([]byte(packet))
		h.must(err)
		m, err := c.Receive()
		h.must(err)
		if got := m.Fields()['C']; got != code {
			t.Errorf("%q: got %v, want %s", packet, m, code)
		}
	}
}

// TestEveryClientIsToldThePoolsNotice, once, before it may send anything.
func TestEveryClientIsToldThePoolsNotice(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withPool(func(p *armor.Pool) {
			p.LoginNotifyMessage = "Be brief: from 9 to 10 it is crowded – naïve queries wait."
		}))
		told := func() (notices []pgtest.Message) {
			t.Helper()
			c := h.dial()
			h.must(c.Send(pgtest.Startup("user", pgtest.Role, "database", "orders")))
			messages, err := c.Until('Z')
			h.must(err)
			for _, m := range messages {
				if m.Type == 'N' {
					notices = append(notices, m)
				}
			}
			if before := messages[len(messages)-2]; len(notices) > 0 && before.Type != 'N' {
				t.Errorf("%s stands between the notice and ReadyForQuery", before)
			}
			h.query(c, "SELECT 1")
			return notices
		}
		for range 2 { // the second login finds what the first has learned
			notices := told()
			if len(notices) != 1 {
				t.Fatalf("%d notices", len(notices))
			}
			if f := notices[0].Fields(); f['S'] != "NOTICE" || f['V'] != "NOTICE" || f['C'] != "00000" || f['M'] != h.pool.LoginNotifyMessage {
				t.Errorf("got %q", f)
			}
		}
		h.pool.LoginNotifyMessage = ""
		h.configure()
		if notices := told(); len(notices) != 0 {
			t.Errorf("told %v", notices)
		}
	})
}
