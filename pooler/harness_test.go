package pooler_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/pgtest"
)

var (
	postgres *pgtest.Postgres
	driver   engine
)

func TestMain(m *testing.M) {
	flag.Parse()
	if worker := flag.Lookup("test.fuzzworker"); worker != nil && worker.Value.String() == "true" {
		os.Exit(m.Run()) // what is fuzzed here needs no PostgreSQL, and there are many workers
	}
	pg, err := pgtest.Start("wal_level=logical") // else as it comes
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	postgres = pg
	if driver, err = newEngine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	driver.stop()
	if err := pg.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds every wait for something that must happen; nothing is measured by
// it.
const patience = 30 * time.Second

// secrets knows one password, and which hosts may get it.
type secrets struct {
	mu        sync.Mutex
	passwords []string
	hosts     []string
	roots     *x509.CertPool
	verifiers map[string]string // of clients' passwords; nil: there is no file
	// certificate is what nodes show to PostgreSQL; nil: there is no file.
	certificate func() (tls.Certificate, error)
}

func (s *secrets) Password(name armor.SecretName, host string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "orders" || !slices.Contains(s.hosts, host) {
		return nil, fmt.Errorf("%w: secret %s for %s", armor.ErrNotFound, name, host)
	}
	return slices.Clone(s.passwords), nil
}

func (s *secrets) CA(name armor.SecretName) (*x509.CertPool, error) {
	if s.roots == nil {
		return nil, fmt.Errorf("%w: CA %s", armor.ErrNotFound, name)
	}
	return s.roots, nil
}

func (s *secrets) Certificate(name armor.SecretName) (tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "armor" || s.certificate == nil {
		return tls.Certificate{}, fmt.Errorf("%w: certificate %s", armor.ErrNotFound, name)
	}
	return s.certificate()
}

func (s *secrets) Verifiers(name armor.SecretName) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "apps" || s.verifiers == nil {
		return nil, fmt.Errorf("%w: verifiers %s", armor.ErrNotFound, name)
	}
	return maps.Clone(s.verifiers), nil
}

func (s *secrets) set(passwords ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passwords = passwords
}

// house is a pooler and what surrounds it.
type house struct {
	*pooler.Pooler
	t        *testing.T
	database armor.Database
	pool     armor.Pool
	identity armor.IdentityConfig // that grants; the zero one bounds nothing
	secrets  *secrets
	address  string
	serving  sync.WaitGroup
	atLive   func() // of every guest to come
	mayPanic bool   // a session; else its panic ends the test
	mayHold  int    // of the pool, when the house is left
	server   *pgtest.Postgres
	tls      *pgtest.Certificate // clients use TLS, as they do behind the edge; nil: not
	factor   armor.SecondFactor  // that the grant asks for

	replication bool // that the grant allows

	mu     sync.Mutex
	guests []*guest
	who    map[string]armor.Identity // clients by address; those that are not named have none
}

// option changes what a house is built of.
type option func(*house, *pooler.Config)

func inMode(mode armor.PoolMode) option {
	return func(h *house, _ *pooler.Config) { h.pool.Mode = mode }
}

func withHost(host string) option {
	return func(h *house, _ *pooler.Config) {
		h.database.Hosts, h.secrets.hosts = []string{host}, []string{host}
	}
}

// on puts the house in front of another server, reached at host.
func on(pg *pgtest.Postgres, host string) option {
	return func(h *house, c *pooler.Config) {
		h.server = pg
		withHost(host)(h, c)
	}
}

func withBudget(n int) option { return func(h *house, _ *pooler.Config) { h.pool.Budget = n } }

func withQueryWait(d time.Duration) option {
	return func(h *house, _ *pooler.Config) { h.pool.QueryWait = d }
}

// newHouse runs a pooler in front of the test's PostgreSQL until the test ends.
func newHouse(t *testing.T, options ...option) *house {
	t.Helper()
	h := &house{t: t, secrets: &secrets{passwords: []string{pgtest.Password}}}
	h.database = armor.Database{
		Name: "orders", Environment: "production", DBName: pgtest.Database, TLSMode: armor.TLSDisable,
		Roles: []armor.RoleAuth{{Role: pgtest.OtherRole, Secret: "orders"}, {Role: pgtest.Role, Secret: "orders"}},
	}
	h.pool = armor.Pool{Name: "orders", Environment: "production",
		Database: "orders", Mode: armor.TransactionMode, Budget: 5, QueryWait: patience}
	cfg := pooler.Config{Node: 7, Secrets: h.secrets, Driver: driver.driver, Dial: driver.dial,
		Logger: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	cfg.Console = console.Node{Version: "test", MaxClients: 100}
	on(postgres, postgres.Socket())(h, &cfg)
	for _, o := range options {
		o(h, &cfg)
	}
	p, err := pooler.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Pooler = p
	h.configure()
	h.run()
	h.listen()
	return h
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func (h *house) configure() {
	h.Configure([]armor.Database{h.database}, []armor.Pool{h.pool})
	h.SetLimits(map[string]int{h.pool.Key(): h.pool.Budget})
}

func (h *house) run() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.t.Cleanup(func() {
		h.serving.Wait()
		stop()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
		if held := h.Held(); held[h.pool.Key()] != h.mayHold {
			h.t.Errorf("after Run: held %v", held)
		}
	})
}

// listen takes clients, and ends them all when the test does.
func (h *house) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = l.Addr().String()
	h.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.start(conn)
		}
	})
	h.t.Cleanup(func() {
		l.Close()
		for _, g := range h.all() {
			g.cut(&armor.Denial{Reason: armor.ReasonShutdown, Message: "the test is over"})
		}
	})
}

// start serves a connection until its session has left.
func (h *house) start(conn net.Conn) {
	h.serving.Add(1)
	go h.serve(conn)
}

func (h *house) serve(conn net.Conn) {
	ctx, stop := context.WithCancelCause(context.Background())
	g := &guest{home: h, address: conn.RemoteAddr().String(), atLive: h.atLive, stop: stop, ended: make(chan struct{}), confirmed: make(chan struct{})}
	g.leave = func() {
		conn.Close()
		stop(nil)
		close(g.ended)
		h.serving.Done()
	}
	h.mu.Lock()
	h.guests = append(h.guests, g)
	h.mu.Unlock()
	defer func() {
		if !g.goesOn {
			g.leave()
		}
	}()
	conn = driver.client(conn, h.tls != nil)
	if h.tls != nil {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{h.tls.TLS}, SessionTicketsDisabled: true})
	}
	if h.mayPanic {
		defer func() {
			if cause := recover(); cause != nil {
				g.panicked = cause
			}
		}()
	}
	h.ServeConn(ctx, conn, g)
}

func (h *house) all() []*guest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.guests)
}

// last returns the guest that came last.
func (h *house) last() *guest {
	h.t.Helper()
	all := h.all()
	if len(all) == 0 {
		h.t.Fatal("no guest")
	}
	return all[len(all)-1]
}

// client dials the pooler.
func (h *house) dial() *pgtest.Client {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	if h.tls != nil {
		return &pgtest.Client{Conn: tls.Client(conn, &tls.Config{RootCAs: h.tls.Roots, ServerName: "localhost"})}
	}
	return &pgtest.Client{Conn: conn}
}

// client logs in as the usual role.
func (h *house) client(parameters ...string) *pgtest.Client {
	h.t.Helper()
	c := h.dial()
	h.must(c.Login(append([]string{"user", pgtest.Role, "database", "orders"}, parameters...)...))
	return c
}

// proves has a client that was not told anything yet be of an identity.
func (h *house) proves(c *pgtest.Client, identity armor.Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.who == nil {
		h.who = map[string]armor.Identity{}
	}
	h.who[c.Conn.LocalAddr().String()] = identity
}

// clientOf is client for one that has proved an identity.
func (h *house) clientOf(identity armor.Identity, parameters ...string) *pgtest.Client {
	h.t.Helper()
	c := h.dial()
	h.proves(c, identity)
	h.must(c.Login(append([]string{"user", pgtest.Role, "database", "orders"}, parameters...)...))
	return c
}

func (h *house) identityOf(address string) armor.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.who[address]
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// query runs a query that must succeed and returns its first column.
func (h *house) query(c *pgtest.Client, sql string) []string {
	h.t.Helper()
	column, err := c.Query(sql)
	if err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
	return column
}

// wantRefusal checks that err is an ErrorResponse with this severity and SQLSTATE.
func (h *house) wantRefusal(err error, severity, code string) map[byte]string {
	h.t.Helper()
	refusal, ok := errors.AsType[*pgtest.Refusal](err)
	if !ok || refusal.Fields['V'] != severity || refusal.Fields['C'] != code {
		h.t.Fatalf("got %v, want %s %s", err, severity, code)
	}
	return refusal.Fields
}

// await polls until ok, for what no event tells.
func (h *house) await(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("did not happen: %s", what)
		}
	}
}

// awaitClosed waits for a channel.
func (h *house) awaitClosed(what string, ch <-chan struct{}) {
	h.t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		h.t.Fatalf("did not happen: %s", what)
	}
}

func (h *house) status() armor.PoolStatus {
	h.t.Helper()
	all := h.Status()
	if len(all) != 1 {
		h.t.Fatalf("status of %d pools", len(all))
	}
	return all[0]
}

// observer is the superuser, connected to PostgreSQL itself.
func (h *house) observer() *pgtest.Client { return h.superuser("postgres") }

func (h *house) superuser(database string) *pgtest.Client {
	h.t.Helper()
	conn, err := net.Dial("unix", h.server.SocketFile())
	h.must(err)
	h.t.Cleanup(func() { conn.Close() })
	c := &pgtest.Client{Conn: conn}
	h.must(c.Login("user", pgtest.SuperUser, "database", database))
	return c
}

// backends is how many PostgreSQL says it has of our roles.
func (h *house) backends(observer *pgtest.Client) int {
	h.t.Helper()
	n, err := strconv.Atoi(h.query(observer,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename LIKE 'orders%'")[0])
	h.must(err)
	return n
}
