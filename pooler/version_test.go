package pooler_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// greeting is what a client reads up to its first ReadyForQuery.
func (h *house) greeting(c *pgtest.Client, minor uint16, parameters ...string) []pgtest.Message {
	h.t.Helper()
	h.must(c.Send(pgtest.StartupOf(minor, append([]string{"user", pgtest.Role, "database", "orders"}, parameters...)...)))
	all, err := c.Until('Z')
	h.must(err)
	return all
}

func ofType(all []pgtest.Message, kind byte) (found [][]byte) {
	for _, m := range all {
		if m.Type == kind {
			found = append(found, m.Body)
		}
	}
	return found
}

// TestTheVersionIsNegotiatedOnce: every version of the protocol 3 that a client may ask
// for, and options that nobody knows, as libpq 19 sends them.
func TestTheVersionIsNegotiatedOnce(t *testing.T) {
	grease := "_pq_.test_protocol_negotiation"
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		for _, test := range []struct {
			minor   uint16
			options []string
			answer  string // NegotiateProtocolVersion's body; "": there is none
			key     int    // bytes of BackendKeyData
		}{
			{0, nil, "", 8},
			{1, nil, "", 8},
			{2, nil, "", 36},
			{3, nil, "\x00\x03\x00\x02\x00\x00\x00\x00", 36},
			{9999, []string{grease, ""}, "\x00\x03\x00\x02\x00\x00\x00\x01" + grease + "\x00", 36},
			{2, []string{"_pq_.a", "x", "_pq_.b", ""}, "\x00\x03\x00\x02\x00\x00\x00\x02_pq_.a\x00_pq_.b\x00", 36},
			{0, []string{"_pq_.a", "x"}, "\x00\x03\x00\x00\x00\x00\x00\x01_pq_.a\x00", 8},
		} {
			c := h.dial()
			all := h.greeting(c, test.minor, test.options...)
			said, want := ofType(all, 'v'), test.answer
			if len(said) > 1 || len(said) == 1 && (string(said[0]) != want || all[0].Type != 'v') || len(said) == 0 && want != "" {
				t.Errorf("3.%d with %q: answered %q, want %q first", test.minor, test.options, said, want)
			}
			if key := ofType(all, 'K'); len(key) != 1 || len(key[0]) != test.key {
				t.Errorf("3.%d: BackendKeyData %q, want %d bytes", test.minor, key, test.key)
			}
			if got := h.query(c, "SELECT 1"); got[0] != "1" {
				t.Errorf("3.%d: got %q", test.minor, got)
			}
			h.must(c.Send(pgtest.Encode('X')))
			h.awaitClosed("the session ends", h.last().ended)
		}
	})
}

// TestUnknownOptionsAreAnsweredAsByPostgreSQL: the version in the answer is the whole
// one, whatever the manual says.
func TestUnknownOptionsAreAnsweredAsByPostgreSQL(t *testing.T) {
	h := newHouse(t)
	conn, err := net.Dial("unix", postgres.SocketFile())
	h.must(err)
	defer conn.Close()
	direct := &pgtest.Client{Conn: conn}
	h.must(direct.Send(pgtest.Startup("user", pgtest.SuperUser, "database", "postgres", "_pq_.a", "x", "_pq_.b", "")))
	theirs, err := direct.Until('Z')
	h.must(err)
	ours := h.greeting(h.dial(), 0, "_pq_.a", "x", "_pq_.b", "")
	if theirs[0].Type != 'v' || ours[0].Type != 'v' || !bytes.Equal(ours[0].Body, theirs[0].Body) {
		t.Errorf("PostgreSQL says %q, Armor %q", theirs[0], ours[0])
	}
}

// TestTheVersionIsNegotiatedBeforeAPassword, and not once more behind it.
func TestTheVersionIsNegotiatedBeforeAPassword(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	c := h.dial()
	h.must(c.Send(pgtest.StartupOf(9999, "user", pgtest.Role, "database", "orders", "_pq_.a", "")))
	first, err := c.Receive()
	h.must(err)
	if first.Type != 'v' {
		t.Errorf("first comes %s", first)
	}
	all := h.provePassword(c)
	if n := len(ofType(all, 'v')); n != 0 {
		t.Errorf("told %d times more", n)
	}
	if key := ofType(all, 'K'); len(key) != 1 || len(key[0]) != 36 {
		t.Errorf("BackendKeyData %q", key)
	}
}

// provePassword answers what asks for a password and returns what comes up to
// ReadyForQuery.
func (h *house) provePassword(c *pgtest.Client) []pgtest.Message {
	h.t.Helper()
	client, err := scram.SHA256.NewClient("", clientPassword, "")
	h.must(err)
	conversation := client.NewConversation()
	first, err := conversation.Step("")
	h.must(err)
	_, err = c.Until('R')
	h.must(err)
	h.must(c.Send(pgtest.Encode('p', "SCRAM-SHA-256", len(first), []byte(first))))
	m, err := c.Receive()
	h.must(err)
	second, err := conversation.Step(string(m.Body[4:]))
	h.must(err)
	h.must(c.Send(pgtest.Encode('p', []byte(second))))
	all, err := c.Until('Z')
	h.must(err)
	return all
}

func longKeyOf(t *testing.T, all []pgtest.Message) armor.CancelKey {
	t.Helper()
	key, ok := armor.ParseCancelKey(ofType(all, 'K')[0])
	if !ok || !key.IsLong() {
		t.Fatalf("key %+v", key)
	}
	return key
}

func cancelPacket(content []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(content)))
	return append(binary.BigEndian.AppendUint32(b, 80877102), content...)
}

// TestALongKeyCancelsAndNothingNearItDoes, with the raw bytes of a CancelRequest.
func TestALongKeyCancelsAndNothingNearItDoes(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		signer := []byte("signer")
		h := newHouse(t, inMode(mode), func(_ *house, c *pooler.Config) { c.CancelSigner = signer })
		c := h.dial()
		key := longKeyOf(t, h.greeting(c, 2))
		if node, _ := key.Nodes(); node != 7 || !key.Genuine(signer) {
			t.Errorf("the key names node %d", node)
		}
		h.startSleeping(c)
		for i := range key.Long {
			wrong := key
			wrong.Long[i] ^= 0x80
			if h.Cancel(t.Context(), wrong, false) {
				t.Fatalf("byte %d of the key does not matter", i)
			}
		}
		if h.Cancel(t.Context(), armor.CancelKey{PID: key.PID}, false) {
			t.Error("a key of protocol 3.0 was taken")
		}
		for _, bad := range [][]byte{key.Append(nil)[:35], append(key.Append(nil), 0),
			key.Append(nil)[:4], make([]byte, 260), make([]byte, 9000)} {
			cancel := h.dial()
			h.must(cancel.Send(cancelPacket(bad)))
			if _, err := cancel.Receive(); err != io.EOF {
				t.Errorf("a key of %d bytes was answered: %v", len(bad), err)
			}
		}
		if busy := h.query(h.observer(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename LIKE 'orders%'")[0]; busy != "1" {
			t.Errorf("%s queries run", busy)
		}
		cancel := h.dial()
		h.must(cancel.Send(cancelPacket(key.Append(nil))))
		_, err := c.Answer()
		h.wantRefusal(err, "ERROR", "57014")
	})
}

// TestPlaintextCancelIsRefusedWhereOnlyTLSIs: the same key, once without and once over
// TLS; and the environment may change its mind while the session lives.
func TestPlaintextCancelIsRefusedWhereOnlyTLSIs(t *testing.T) {
	only := map[string]bool{"production": true}
	h := newHouse(t, func(_ *house, c *pooler.Config) {
		c.CancelTLSOnly = func(environment string) bool { return only[environment] }
	})
	c := h.client()
	h.startSleeping(c)
	if !h.Cancel(t.Context(), keyOf(c), true) {
		t.Error("the key was not ours")
	}
	if busy := h.query(h.observer(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename LIKE 'orders%'")[0]; busy != "1" {
		t.Errorf("%s queries run", busy)
	}
	h.Cancel(t.Context(), keyOf(c), false)
	_, err := c.Answer()
	h.wantRefusal(err, "ERROR", "57014")

	only["production"] = false
	h.startSleeping(c)
	h.Cancel(t.Context(), keyOf(c), true)
	_, err = c.Answer()
	h.wantRefusal(err, "ERROR", "57014")
}

// TestPgxSpeaksEveryVersion, and cancels with the key of each.
func TestPgxSpeaksEveryVersion(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		ctx, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		for _, versions := range []struct {
			min, max string
			key      int
		}{{"3.0", "3.0", 4}, {"3.0", "3.2", 32}, {"3.2", "3.2", 32}} {
			conn := h.pgxOf(ctx, versions.min, versions.max)
			if got := len(conn.PgConn().SecretKey()); got != versions.key {
				t.Errorf("%v: a secret of %d bytes", versions, got)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := conn.Exec(ctx, "SELECT pg_sleep(3600)")
				ended <- err
			}()
			observer := h.observer()
			h.await("PostgreSQL runs it", func() bool {
				return h.query(observer,
					"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename LIKE 'orders%'")[0] != "0"
			})
			h.must(conn.PgConn().CancelRequest(ctx))
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "57014") {
				t.Errorf("%v: ended by %v", versions, err)
			}
			h.must(conn.Close(ctx))
		}
	})
}

func (h *house) pgxOf(ctx context.Context, oldest, newest string) *pgx.Conn {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s dbname=orders sslmode=disable min_protocol_version=%s max_protocol_version=%s", host, port, pgtest.Role, oldest, newest))
	h.must(err)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	h.must(err)
	return conn
}
