package tlsedge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patient = 20 * time.Second // the deadline of everything that should happen soon
	appID   = "/app/checkout"
)

// rig is an edge on loopback with a handler that speaks just enough.
type rig struct {
	edge   *Edge
	trust  *testca.Trust
	lease  *testca.Lease
	ca     *testca.CA // of environment production
	server *testca.CA
	echo   *echo
	seen   *enforced
	cancel *cancelled
	addr   string
}

// baseline grants checkout the database orders as checkout_rw.
func baseline(ca *testca.CA) []func(*armor.State) {
	return []func(*armor.State){
		testca.Environment("production"), testca.Environment("staging"), testca.Anchored(ca.Anchor()),
		testca.Granted("production", "spiffe://production.test"+appID, ordersGrant()),
	}
}

func ordersGrant() armor.Grant {
	return armor.Grant{
		Database: "orders", Roles: []string{"checkout_rw"}, Pool: "orders",
		CIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := unstarted(t, change...)
	done, stop := r.start(t)
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patient):
			t.Error("Run does not return")
		}
	})
	return r
}

// start runs the edge until stop is called; done gets what Run returned.
func (r *rig) start(t testing.TB) (done <-chan error, stop context.CancelFunc) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.edge.Run(ctx) }()
	return ended, stop
}

func unstarted(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{
		ca: testca.New(t, "production", "production.test"), server: testca.New(t, "", "server.test"),
		lease: &testca.Lease{}, seen: newEnforced(), cancel: &cancelled{},
	}
	r.trust = testca.NewTrust(baseline(r.ca)...)
	r.echo = &echo{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	r.addr = listener.Addr().String()
	certificate := r.server.Server(t)
	cfg := Config{
		Node: "n1", Listener: listener, Trust: r.trust, Lease: r.lease, Handler: r.echo, Canceler: r.cancel, Reporter: r.seen,
		Certificate: func() (*tls.Certificate, error) { return &certificate, nil },
		Logger:      slog.New(slog.DiscardHandler), Sweep: 5 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	if r.edge, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// enforced remembers what was reported.
type enforced struct {
	mu       sync.Mutex // guards below
	revision uint64
	closed   int
	moved    chan struct{}
}

func newEnforced() *enforced { return &enforced{moved: make(chan struct{})} }

func (e *enforced) Enforced(revision uint64, closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision = max(e.revision, revision)
	e.closed += closed
	close(e.moved)
	e.moved = make(chan struct{})
}

func (e *enforced) get() (uint64, int, chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.revision, e.closed, e.moved
}

func (e *enforced) await(t testing.TB, revision uint64) {
	t.Helper()
	for late := time.After(patient); ; {
		at, _, moved := e.get()
		if at >= revision {
			return
		}
		select {
		case <-moved:
		case <-late:
			t.Fatalf("revision %d is not enforced; %d is", revision, at)
		}
	}
}

type cancelled struct {
	mu   sync.Mutex
	keys []armor.CancelKey
}

func (c *cancelled) Cancel(_ context.Context, key armor.CancelKey, _ netip.AddrPort, _ bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys = append(c.keys, key)
}

func (c *cancelled) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

// echo is a Handler with a driver: after admission it sends back what it gets.
type echo struct {
	// hold, when set, is waited for before a cut is confirmed.
	hold chan struct{}
	// onServe, when set, sees the session first.
	onServe func(c net.Conn, s *Session)
	// proved is what clients have proved beside their key, once they are admitted.
	proved armor.SecondFactor
	// beforeProved, when set, runs between admission and proof.
	beforeProved func()
}

type cutOrder struct {
	cause   error
	confirm func()
}

func (h *echo) ServeConn(ctx context.Context, c net.Conn, s *Session) {
	if h.onServe != nil {
		h.onServe(c, s)
	}
	_ = c.SetReadDeadline(time.Now().Add(patient))
	database, role, key, err := readStartup(c)
	if key != (armor.CancelKey{}) {
		s.Cancel(ctx, key)
		return
	}
	if err != nil {
		if live := s.Live(); live != nil {
			tellFatal(c, live)
		}
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := s.Admit(database, role, armor.NoReplication); err != nil {
		tellFatal(c, err)
		return
	}
	if h.beforeProved != nil {
		h.beforeProved()
	}
	if err := s.Proved(h.proved); err != nil {
		tellFatal(c, err)
		return
	}
	orders := make(chan cutOrder, 1)
	err = s.HandOver(func(cause error, confirm func()) {
		orders <- cutOrder{cause, confirm}
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	if err != nil {
		tellFatal(c, err)
		return
	}
	s.SetState("idle")
	_, _ = c.Write([]byte("ok"))
	h.relay(c, s, orders)
}

func (h *echo) relay(c net.Conn, s *Session, orders chan cutOrder) {
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if cause := s.Live(); cause != nil {
			tellFatal(c, cause)
			if h.hold != nil {
				<-h.hold
			}
			select {
			case o := <-orders:
				o.confirm()
			default:
			}
			return
		}
		if err != nil {
			return
		}
		_, _ = c.Write(buf[:n])
	}
}

// readStartup reads a startup packet, or the key of a cancel request.
func readStartup(c net.Conn) (database, role string, key armor.CancelKey, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", "", key, err
	}
	body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 10_000)-8)
	if _, err := io.ReadFull(c, body); err != nil {
		return "", "", key, err
	}
	if binary.BigEndian.Uint32(head[4:]) == codeCancel {
		key, _ = armor.ParseCancelKey(body)
		return "", "", key, nil
	}
	fields := strings.Split(string(body), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		switch fields[i] {
		case "user":
			role = fields[i+1]
		case "database":
			database = fields[i+1]
		}
	}
	return database, role, key, nil
}

func tellFatal(c net.Conn, err error) {
	var d *armor.Denial
	if errors.As(err, &d) {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(fatal("28000", d.Message, d.Hint))
	}
}

func startup(database, role string) []byte {
	body := binary.BigEndian.AppendUint32(nil, 196608)
	body = append(body, "user\x00"+role+"\x00database\x00"+database+"\x00\x00"...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func eight(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

func (r *rig) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patient))
	return conn
}

func (r *rig) clientConfig(cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: r.server.Pool(), ServerName: "localhost"}
	if cert != nil {
		// Sent whatever the server's hints say, as libpq does.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return cfg
}

// upgrade asks for TLS and shakes hands; in TLS 1.3 a refusal shows on first read.
func upgrade(conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	if _, err := conn.Write(eight(codeTLS)); err != nil {
		return nil, err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'S' {
		return nil, fmt.Errorf("answer %q: %w", answer, err)
	}
	c := tls.Client(conn, cfg)
	return c, c.Handshake()
}

// login connects, and returns the first bytes of the answer to the startup packet.
func (r *rig) login(t testing.TB, cert *tls.Certificate, database, role string) (*tls.Conn, []byte, error) {
	t.Helper()
	c, err := upgrade(r.dial(t), r.clientConfig(cert))
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(startup(database, role)); err != nil {
		return nil, nil, err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	return c, buf[:n], err
}

// live connects a client that is served.
func (r *rig) live(t testing.TB, cert tls.Certificate) *tls.Conn {
	t.Helper()
	c, answer, err := r.login(t, &cert, "orders", "checkout_rw")
	if err != nil || string(answer) != "ok" {
		t.Fatalf("not served: %q, %v", parseFatal(answer), err)
	}
	return c
}

// refusal is a FATAL as the client reads it.
type refusal map[byte]string

func parseFatal(data []byte) refusal {
	f := refusal{}
	if len(data) < 5 || data[0] != 'E' {
		return f
	}
	for part := range bytes.SplitSeq(data[5:], []byte{0}) {
		if len(part) > 1 {
			f[part[0]] = string(part[1:])
		}
	}
	return f
}

// denialID finds the id in the hint.
func (f refusal) denialID() string {
	words := strings.Fields(f['H'])
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// fatalOf reads until the session's FATAL, and returns its record.
func (r *rig) fatalOf(t testing.TB, c *tls.Conn) armor.DenialRecord {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patient))
	data, err := io.ReadAll(c)
	f := parseFatal(data)
	record, ok := r.edge.Denial(f.denialID())
	if !ok {
		t.Fatalf("no denial behind %q (%v)", data, err)
	}
	if record.Denial.Message != f['M'] {
		t.Fatalf("client reads %q, record says %q", f['M'], record.Denial.Message)
	}
	return record
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patient); !holds(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not in time", what)
		}
	}
}
