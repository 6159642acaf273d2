package pooler_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// clientPassword is what the tests' clients prove; PostgreSQL knows it as that of
// another role, so that it can have come from nowhere else.
const clientPassword = "ünlike the pool's" // SASLprep leaves it as it is

// withPasswords has the grant ask for a password, which PostgreSQL's own verifier
// checks.
func withPasswords(t *testing.T) option {
	t.Helper()
	_, err := postgres.SQL("postgres",
		`DROP ROLE IF EXISTS verified; CREATE ROLE verified PASSWORD '`+strings.ReplaceAll(clientPassword, "'", "''")+`'`)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := postgres.SQL("postgres", `SELECT rolpassword FROM pg_authid WHERE rolname = 'verified'`)
	if err != nil {
		t.Fatal(err)
	}
	return func(h *house, c *pooler.Config) {
		h.factor, h.database.Verifiers = armor.SCRAM, "apps"
		h.secrets.verifiers = map[string]string{pgtest.Role: verifier}
		c.DecoyKey = []byte("the same on all nodes")
		c.GuessesPerSecond = 1000 // who guesses is another test's matter
	}
}

// sslFront takes clients that ask for TLS as PostgreSQL's do, and returns its port.
func (h *house) sslFront() string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	h.t.Cleanup(func() { l.Close() })
	h.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.serving.Go(func() {
				if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil {
					conn.Close()
					return
				}
				if _, err := conn.Write([]byte("S")); err != nil {
					conn.Close()
					return
				}
				h.start(conn)
			})
		}
	})
	return portOf(h.t, l.Addr().String())
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// login is how one client is to log in.
type login struct {
	port, role, password, sslmode, binding string
}

// realClients log in and run one query; it names the role that PostgreSQL sees.
var realClients = map[string]func(ctx context.Context, l login) (string, error){
	"psql": func(ctx context.Context, l login) (string, error) {
		cmd := exec.CommandContext(ctx, "psql", "-XAtw", "-c", "SELECT current_user",
			"-h", "127.0.0.1", "-p", l.port, "-U", l.role, "-d", "orders")
		cmd.Env = append(os.Environ(), "PGPASSWORD="+l.password, "PGSSLMODE="+l.sslmode,
			"PGCHANNELBINDING="+l.binding, "PGPASSFILE=/dev/null", "PGCONNECT_TIMEOUT=20")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		return strings.TrimSpace(string(out)), nil
	},
	"pgx": func(ctx context.Context, l login) (user string, err error) {
		conn, err := pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%s user=%s password=%s dbname=orders sslmode=%s channel_binding=%s",
			l.port, l.role, quoted(l.password), l.sslmode, l.binding))
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, conn.Close(ctx)) }()
		err = conn.QueryRow(ctx, "SELECT current_user").Scan(&user)
		return user, err
	},
	"lib/pq": func(ctx context.Context, l login) (user string, err error) {
		db, err := sql.Open("postgres",
			fmt.Sprintf("host=127.0.0.1 port=%s user=%s password=%s dbname=orders sslmode=%s", l.port, l.role, quoted(l.password), l.sslmode))
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		err = db.QueryRowContext(ctx, "SELECT current_user").Scan(&user)
		return user, err
	},
}

// quoted writes a value of a connection string.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func TestPasswordsOfRealClientsAreChecked(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		plain := newHouse(t, inMode(mode), withPasswords(t))
		secured := newHouse(t, inMode(mode), withPasswords(t), withTLSClients(t))
		for name, run := range realClients {
			for _, c := range []struct {
				h                *house
				port             string
				sslmode, binding string
			}{
				{plain, portOf(t, plain.address), "disable", "disable"},
				{secured, secured.sslFront(), "require", "prefer"},
				{secured, secured.sslFront(), "require", "disable"},
				{secured, secured.sslFront(), "require", "require"},
			} {
				t.Run(strings.Join([]string{name, c.sslmode, c.binding}, " "), func(t *testing.T) {
					ctx, stop := context.WithTimeout(t.Context(), patience)
					defer stop()
					l := login{c.port, pgtest.Role, clientPassword, c.sslmode, c.binding}
					if user, err := run(ctx, l); user != pgtest.Role || err != nil {
						t.Errorf("with the password: %q, %v", user, err)
					}
					l.password = "wrong"
					_, err := run(ctx, l)
					if err == nil || !strings.Contains(err.Error(), `password authentication failed for user "`+pgtest.Role+`"`) {
						t.Errorf("with a wrong password: %v", err)
					}
					g := c.h.last()
					c.h.awaitClosed("the refused one ends", g.ended)
					if g.wasRefused(armor.ReasonPassword) != 1 || len(g.proved) != 0 {
						t.Errorf("refused %v, proved %v", g.refused, g.proved)
					}
				})
			}
		}
	})
}

// wasRefused counts the denials with a reason.
func (g *guest) wasRefused(reason armor.Reason) (count int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.refused {
		if d.Reason == reason {
			count++
		}
	}
	return count
}

// TestWithoutAPasswordNothingIsServed: psql leaves when it has none.
func TestWithoutAPasswordNothingIsServed(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	observer := h.observer()
	_, err := realClients["psql"](t.Context(), login{port: portOf(t, h.address), role: pgtest.Role, sslmode: "disable", binding: "disable"})
	if err == nil || !strings.Contains(err.Error(), "no password supplied") {
		t.Errorf("psql: %v", err)
	}
	h.awaitClosed("the session ends", h.last().ended)
	if n := h.backends(observer); n != 0 || len(h.last().proved) != 0 {
		t.Errorf("%d server connections, proved %v", n, h.last().proved)
	}
}

// begin starts a login and returns the mechanisms that are offered.
func (h *house) begin(role string) (*pgtest.Client, string) {
	h.t.Helper()
	c := h.dial()
	h.must(c.Send(pgtest.Startup("user", role, "database", "orders")))
	m, err := c.Receive()
	h.must(err)
	if m.Type != 'R' || len(m.Body) < 4 || m.Body[3] != 10 {
		h.t.Fatalf("not asked for a password: %q %q", m.Type, m.Body)
	}
	return c, string(m.Body[4:])
}

// initial is a SASLInitialResponse.
func initial(mechanism, message string) []byte {
	return pgtest.Encode('p', mechanism, int32(len(message)), []byte(message))
}

// challenge sends a client's first message and returns the server's.
func (h *house) challenge(c *pgtest.Client, nonce string) string {
	h.t.Helper()
	h.must(c.Send(initial("SCRAM-SHA-256", "n,,n=,r="+nonce)))
	m, err := c.Receive()
	h.must(err)
	if m.Type != 'R' || m.Body[3] != 11 {
		h.t.Fatalf("no challenge: %q %q", m.Type, m.Body)
	}
	return string(m.Body[4:])
}

// TestRoleWithoutAVerifierReadsAsAWrongPassword: on two nodes, at any time.
func TestRoleWithoutAVerifierReadsAsAWrongPassword(t *testing.T) {
	a, b := newHouse(t, withPasswords(t)), newHouse(t, withPasswords(t))
	var seen []string
	for _, try := range []struct {
		h    *house
		role string
	}{{a, pgtest.OtherRole}, {b, pgtest.OtherRole}, {a, pgtest.Role}, {b, pgtest.Role}} {
		c, _ := try.h.begin(try.role)
		challenge := try.h.challenge(c, "abc")
		nonce, rest, _ := strings.Cut(challenge, ",")
		seen = append(seen, rest)
		proof := "c=biws," + nonce + ",p=" + strings.Repeat("A", 43) + "="
		try.h.must(c.Send(pgtest.Encode('p', []byte(proof))))
		fields := try.h.wantRefusal(answerError(c), "FATAL", "28P01")
		if fields['M'] != `password authentication failed for user "`+try.role+`"` || fields['D'] != "" {
			t.Errorf("%s: %q", try.role, fields)
		}
	}
	if seen[0] != seen[1] {
		t.Errorf("two nodes show different decoys: %q and %q", seen[0], seen[1])
	}
	saltOf := func(s string) string { salt, _, _ := strings.Cut(s, ","); return salt }
	if saltOf(seen[0]) == saltOf(seen[2]) || len(seen[0]) != len(seen[2]) ||
		!strings.HasSuffix(seen[0], ",i=4096") || !strings.HasSuffix(seen[2], ",i=4096") {
		t.Errorf("the decoy %q does not look like %q", seen[0], seen[2])
	}
}

// answerError reads the ErrorResponse that ends a login.
func answerError(c *pgtest.Client) error {
	_, err := c.Answer()
	return err
}

func TestAnythingButSASLEndsTheLogin(t *testing.T) {
	plain, secured := newHouse(t, withPasswords(t)), newHouse(t, withPasswords(t), withTLSClients(t))
	first := "n,,n=,r=abc"
	for name, c := range map[string]struct {
		h      *house
		send   []byte
		code   string
		says   string
		reason armor.Reason
	}{
		"a second startup packet": {plain, pgtest.Startup("user", "postgres", "database", "orders"),
			"08P01", "expected SASL response, got message type 0", armor.ReasonProtocol},
		"a query": {plain, pgtest.Encode('Q', "SELECT 1"),
			"08P01", "expected SASL response, got message type 81", armor.ReasonProtocol},
		"a goodbye":           {plain, pgtest.Encode('X'), "08P01", "expected SASL response", armor.ReasonProtocol},
		"a length below four": {plain, []byte("p\x00\x00\x00\x03"), "08P01", "invalid message length", armor.ReasonProtocol},
		"a giant":             {plain, []byte("p\x7f\xff\xff\xff"), "08P01", "invalid message length", armor.ReasonProtocol},
		"more than a message may be": {plain, initial("SCRAM-SHA-256", strings.Repeat("x", 1024)),
			"08P01", "invalid message length", armor.ReasonProtocol},
		"an empty message":  {plain, pgtest.Encode('p'), "08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"a clear password":  {plain, pgtest.Encode('p', "hush"), "08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"another mechanism": {plain, initial("PLAIN", first), "08P01", "invalid SASL authentication mechanism", armor.ReasonProtocol},
		"binding without TLS": {plain, initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc"),
			"08P01", "invalid SASL authentication mechanism", armor.ReasonProtocol},
		"no SCRAM": {plain, initial("SCRAM-SHA-256", "hello"), "08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"a role to become": {plain, initial("SCRAM-SHA-256", "n,a=postgres,n=,r=abc"),
			"08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"an extension": {plain, initial("SCRAM-SHA-256", "n,,m=x,n=,r=abc"),
			"08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"binding by the plain one": {secured, initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc"),
			"08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"no binding by the other one": {secured, initial("SCRAM-SHA-256-PLUS", first), "08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"binding to something else": {secured, initial("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=abc"),
			"08P01", "malformed SCRAM message", armor.ReasonProtocol},
		"an offer tampered with": {secured, initial("SCRAM-SHA-256", "y,,n=,r=abc"),
			"28000", "channel binding negotiation", armor.ReasonChannelBinding},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := c.h.begin(pgtest.Role)
			c.h.must(client.Send(c.send))
			fields := c.h.wantRefusal(answerError(client), "FATAL", c.code)
			if !strings.Contains(fields['M'], c.says) {
				t.Errorf("%q", fields)
			}
			g := c.h.last()
			c.h.awaitClosed("ServeConn returns", g.ended)
			if g.wasRefused(c.reason) != 1 || len(g.proved) != 0 {
				t.Errorf("refused %v, proved %v", g.refused, g.proved)
			}
		})
	}
}

// TestSecondMessageIsCheckedToo: what follows the challenge.
func TestSecondMessageIsCheckedToo(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	for name, c := range map[string]struct {
		send func(nonce string) []byte
		code string
	}{
		"a second startup packet": {func(string) []byte { return pgtest.Startup("user", "postgres", "database", "orders") }, "08P01"},
		"a second beginning":      {func(string) []byte { return initial("SCRAM-SHA-256", "n,,n=,r=abc") }, "08P01"},
		"nothing":                 {func(string) []byte { return pgtest.Encode('p') }, "08P01"},
		"another nonce":           {func(string) []byte { return pgtest.Encode('p', []byte("c=biws,r=abc,p=AAAA")) }, "08P01"},
		"no proof":                {func(nonce string) []byte { return pgtest.Encode('p', []byte("c=biws,"+nonce)) }, "08P01"},
		"a short proof":           {func(nonce string) []byte { return pgtest.Encode('p', []byte("c=biws,"+nonce+",p=AAAA")) }, "08P01"},
		"another header":          {func(nonce string) []byte { return pgtest.Encode('p', []byte("c=eSws,"+nonce+",p=AAAA")) }, "28000"},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := h.begin(pgtest.Role)
			nonce, _, _ := strings.Cut(h.challenge(client, "abc"), ",")
			h.must(client.Send(c.send(nonce)))
			h.wantRefusal(answerError(client), "FATAL", c.code)
			h.awaitClosed("ServeConn returns", h.last().ended)
			if len(h.last().proved) != 0 {
				t.Errorf("proved %v", h.last().proved)
			}
		})
	}
}

func TestBindingIsOfferedOverTLSOnly(t *testing.T) {
	if _, offered := newHouse(t, withPasswords(t)).begin(pgtest.Role); offered != "SCRAM-SHA-256\x00\x00" {
		t.Errorf("without TLS: %q", offered)
	}
	if _, offered := newHouse(t, withPasswords(t),
		withTLSClients(t)).begin(pgtest.Role); offered != "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00" {
		t.Errorf("over TLS: %q", offered)
	}
}

// TestProtocolVersionIsNegotiatedBeforeThePassword: and once.
func TestProtocolVersionIsNegotiatedBeforeThePassword(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	c := h.dial()
	h.must(c.Send(pgtest.Startup("user", pgtest.Role, "database", "orders", "_pq_.x", "1")))
	for _, want := range []byte{'v', 'R'} {
		if m, err := c.Receive(); err != nil || m.Type != want {
			t.Fatalf("got %q, %v, want %q", m.Type, err, want)
		}
	}
}

func TestSlowClientIsSentAway(t *testing.T) {
	h := newHouse(t, withPasswords(t), func(_ *house, c *pooler.Config) { c.PasswordTimeout = 20 * time.Millisecond })
	for name, part := range map[string][]byte{"silent": nil, "half a message": []byte("p\x00\x00")} {
		c, _ := h.begin(pgtest.Role)
		h.must(c.Send(part))
		fields := h.wantRefusal(answerError(c), "FATAL", "08P01")
		if !strings.Contains(fields['M'], "timeout") {
			t.Errorf("%s: %q", name, fields)
		}
		h.awaitClosed("ServeConn returns", h.last().ended)
	}
}

func TestCutEndsTheExchange(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	for name, challenged := range map[string]bool{"before the first message": false, "before the second": true} {
		c, _ := h.begin(pgtest.Role)
		if challenged {
			h.challenge(c, "abc")
		}
		g := h.last()
		g.cut(&armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked", ID: "x"})
		if fields := h.wantRefusal(answerError(c), "FATAL", "28000"); fields['M'] != "client certificate is revoked" {
			t.Errorf("%s: %q", name, fields)
		}
		h.awaitClosed("ServeConn returns", g.ended)
		if len(g.proved) != 0 {
			t.Errorf("%s: proved %v", name, g.proved)
		}
	}
}

// TestDrainLetsALoginEnd: PostgreSQL is asked for a verifier meanwhile.
func TestDrainLetsALoginEnd(t *testing.T) {
	l := withLookups(t, func(_ *house, c *pooler.Config) { c.LookupTimeout = patience })
	l.database.Query.Statement = "SELECT uname, phash FROM user_lookup($1), pg_sleep(1)"
	l.configure()
	ended := make(chan error, 1)
	go func() { ended <- l.enter(pgtest.Password) }()
	l.await("it is asked", func() bool { return l.Held()[l.pool.Key()] > 0 })
	l.must(l.Drain(t.Context()))
	l.must(<-ended)
}

func TestFailedPasswordsAreLimitedAndRightOnesAreNot(t *testing.T) {
	h := newHouse(t, withPasswords(t), func(_ *house, c *pooler.Config) { c.GuessesPerSecond = 1e-9 }) // one, and no other
	l := login{portOf(t, h.address), pgtest.Role, clientPassword, "disable", "disable"}
	for range 3 {
		if _, err := realClients["pgx"](t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	l.password = "wrong"
	if _, err := realClients["pgx"](t.Context(), l); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Fatalf("wrong password: %v", err)
	}
	l.password = clientPassword
	if _, err := realClients["pgx"](t.Context(), l); err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("after the last guess: %v", err)
	}
}

func TestNodeWithoutVerifiersSaysSoAndServesTheOthers(t *testing.T) {
	h := newHouse(t, withPasswords(t))
	h.secrets.mu.Lock()
	good := h.secrets.verifiers
	h.secrets.verifiers = nil
	h.secrets.mu.Unlock()
	if s := h.status(); !strings.Contains(s.NotReady, "verifiers apps") {
		t.Errorf("status %q", s.NotReady)
	}
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
	h.secrets.mu.Lock()
	h.secrets.verifiers = map[string]string{pgtest.Role: "md5a9c"}
	h.secrets.mu.Unlock()
	if s := h.status(); !strings.Contains(s.NotReady, `role "`+pgtest.Role+`"`) || strings.Contains(s.NotReady, "a9c") {
		t.Errorf("status %q", s.NotReady)
	}
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
	h.secrets.mu.Lock()
	h.secrets.verifiers = good
	h.secrets.mu.Unlock()
	if s := h.status(); s.NotReady != "" {
		t.Errorf("status %q", s.NotReady)
	}
	h.begin(pgtest.Role)
}

func TestUnknownSecondFactorIsRefused(t *testing.T) {
	h := newHouse(t, func(h *house, _ *pooler.Config) { h.factor = "otp" })
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
}

func TestEdgeIsToldWhatWasProved(t *testing.T) {
	h := newHouse(t)
	h.client()
	if g := h.last(); len(g.proved) != 1 || g.proved[0] != "" {
		t.Errorf("without a second factor: %v", g.proved)
	}
	h = newHouse(t, withPasswords(t))
	if _, err := realClients["pgx"](t.Context(), login{portOf(t, h.address), pgtest.Role, clientPassword, "disable", "disable"}); err != nil {
		t.Fatal(err)
	}
	if g := h.last(); len(g.proved) != 1 || g.proved[0] != armor.SCRAM {
		t.Errorf("with one: %v", g.proved)
	}
}
