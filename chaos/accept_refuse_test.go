package chaos

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/chaos/site"
)

// signer is a CA whose key a test holds, to sign what no CA of ours would.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// leaf signs a client certificate for the demo identity after change has spoilt it.
func (s signer) leaf(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "demo"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{parseURI(t, demoIdentity)},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func parseURI(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// client shows a certificate that was made by hand.
func (a *arena) client(t *testing.T, certs ...tls.Certificate) site.Client {
	t.Helper()
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	app.TLS = app.TLS.Clone()
	app.TLS.Certificates = certs
	return app
}

func unspoilt(*x509.Certificate) {}

// TestEveryRefusalSaysWhy holds what docs/refusals.md promises against real clients.
func TestEveryRefusalSaysWhy(t *testing.T) {
	a := acceptance(t)
	ca := a.readCA(t)
	before := a.connections(t)

	stranger, strangerKey, err := pki.NewCA(pki.CAConfig{Kind: pki.ClientCA, CommonName: "stranger", TrustDomain: "dev.armor-dev.internal",
		Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	staging := a.anotherEnvironment(t, "staging", "open")
	strict := a.anotherEnvironment(t, "strict", "required")
	revoked := a.fresh(t)
	a.ctl(t, "revoke", "--file", filepath.Join(revoked, "client.crt"), "--reason", "superseded", "--yes")

	const alert = "" // a TLS alert has no SQLSTATE
	for _, test := range []struct {
		name     string
		app      site.Client
		database string
		role     string
		code     string
		says     string
	}{
		{"no certificate", a.client(t), "", "", alert, "certificate required"},
		{"another CA's", a.client(t, signer{stranger, strangerKey}.leaf(t, unspoilt)), "", "", alert, "tls"},
		{"expired", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
		})), "", "", "28000", "client certificate expired at"},
		{"not valid yet", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		})), "", "", "28000", "not valid before"},
		{"another environment's", staging, "", "", "28000", "may not reach database"},
		{"a CA's", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		})), "", "", "28000", "CA"},
		{"two URI SANs", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, parseURI(t, demoIdentity+"-too"))
		})), "", "", "28000", "URI"},
		{"any extended key usage", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny}
		})), "", "", "28000", "extended key usage"},
		{"unregistered where registration is required", strict, "", "", "28000", "not registered"},
		{"revoked", a.loaded(t, revoked), "", "", "28000", "is revoked"},
		{"a role that is not granted", a.demoClient(t), "", "postgres", "28000", `may not use role "postgres"`},
		{"a database that is not granted", a.demoClient(t), "postgres", "", "28000", `may not reach database "postgres"`},
		{"a database that does not exist", a.demoClient(t), "nowhere", "", "28000", `may not reach database "nowhere"`},
		{"an address that is not granted", a.client(t, ca.leaf(t, func(c *x509.Certificate) {
			c.URIs = []*url.URL{parseURI(t, demoIdentity+"-elsewhere")}
		})), "", "", "28000", "may not connect from"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, n := range a.Nodes {
				a.refused(t, test.app, n, orElse(test.database, site.AppDatabase), orElse(test.role, site.AppRole), test.code, test.says)
			}
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		_, errOut, err := a.run(t, []string{"PGSSLMODE=disable"}, "psql", "-Xc", "select 1")
		if err == nil || !strings.Contains(errOut, "only TLS") {
			t.Errorf("%v: %s", err, errOut)
		}
	})
	if after := a.connections(t); after != before {
		t.Errorf("PostgreSQL's log has %d connections more of roles and databases that nobody was granted", after-before)
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (a *arena) demoClient(t *testing.T) site.Client {
	t.Helper()
	app, err := a.Demo()
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func (a *arena) loaded(t *testing.T, dir string) site.Client {
	t.Helper()
	app, err := site.LoadClient(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), a.Env["PGSSLROOTCERT"])
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// refused checks what a client reads, and that an operator can look it up on any node.
func (a *arena) refused(t *testing.T, app site.Client, n *site.Node, database, role, code, says string) {
	t.Helper()
	conn, err := app.ConnectAs(t.Context(), n, database, role)
	if err == nil {
		site.CloseConn(t.Context(), conn)
		t.Fatalf("%s let it in", n.Name)
	}
	refusal := (*pgconn.PgError)(nil)
	if !errors.As(err, &refusal) {
		if code != "" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", n.Name, err)
		}
		return
	}
	if refusal.Code != code || !strings.Contains(refusal.Message, says) || refusal.Severity != "FATAL" {
		t.Errorf("%s said %s %s: %s", n.Name, refusal.Severity, refusal.Code, refusal.Message)
	}
	_, id, ok := strings.Cut(refusal.Hint, "armorctl explain ")
	if !ok {
		t.Fatalf("%s gave no denial id: %q", n.Name, refusal.Hint)
	}
	var explained struct{ Message, Node string }
	if err := json.Unmarshal(a.ctl(t, "explain", id, "-o", "json"), &explained); err != nil {
		t.Fatal(err)
	}
	if explained.Message != refusal.Message || explained.Node != n.Name {
		t.Errorf("armorctl explain %s: %+v", id, explained)
	}
}

// anotherEnvironment makes one with a CA of its own and returns a client of it that is
// in no inventory.
func (a *arena) anotherEnvironment(t *testing.T, name, inventory string) site.Client {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	domain := name + ".armor-dev.internal"
	a.ctl(t, "ca", "init", "--environment", name, "--out", dir, "--trust-domain", domain, "--inventory", inventory, "--unencrypted")
	ca := loadSigner(t, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	return a.client(t, ca.leaf(t, func(c *x509.Certificate) {
		c.URIs = []*url.URL{parseURI(t, "spiffe://"+domain+"/app/demo")}
	}))
}

// connections counts, in PostgreSQL's own log, logins that no grant allows.
func (a *arena) connections(t *testing.T) int {
	t.Helper()
	log, err := os.ReadFile(a.pg.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, "connection received") && strings.Contains(line, "connection authorized") &&
			!strings.Contains(line, "user="+site.AppRole+" database="+site.AppDatabase) && !strings.Contains(line, "user=postgres") {
			count++
		}
		if strings.Contains(line, "database=nowhere") || strings.Contains(line, `database "nowhere"`) {
			count++
		}
	}
	return count
}

// TestNodeThatCannotProveFreshnessServesNobody stops the two other nodes: the one that
// is left has no quorum to ask.
func TestNodeThatCannotProveFreshnessServesNobody(t *testing.T) {
	a := acceptance(t)
	app := a.demoClient(t)
	survivor, others := a.Nodes[2], a.Nodes[:2]
	live, err := app.Connect(t.Context(), survivor)
	if err != nil {
		t.Fatal(err)
	}
	defer site.CloseConn(t.Context(), live)
	for _, n := range others {
		if err := a.signalNode(t, n, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			for _, n := range others {
				a.signalNode(t, n, syscall.SIGCONT)
			}
		}
	}
	defer resume()
	var refusal *pgconn.PgError
	eventually(t, "new sessions are refused", func() bool {
		conn, err := app.Connect(t.Context(), survivor)
		if err == nil {
			site.CloseConn(t.Context(), conn)
			return false
		}
		return errors.As(err, &refusal)
	})
	if refusal.Code != "57P03" || !strings.Contains(refusal.Message, "fresh") {
		t.Errorf("refused with %s: %s", refusal.Code, refusal.Message)
	}
	var cut *pgconn.PgError
	eventually(t, "the live session is closed", func() bool {
		err := site.Exec(t.Context(), live, "select 1")
		return errors.As(err, &cut) || live.IsClosed()
	})
	resume()
	if err := a.AwaitServing(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
}

// signalNode signals a node's process, whoever started it.
func (a *arena) signalNode(t *testing.T, n *site.Node, s syscall.Signal) error {
	t.Helper()
	return syscall.Kill(a.pid(t, n), s)
}

// sendCancel sends a CancelRequest to a node, in the clear as libpq does.
func sendCancel(ctx context.Context, n *site.Node, pid uint32, key []byte) error {
	return sendCancelOver(ctx, func(_ context.Context, conn net.Conn) (net.Conn, error) { return conn, nil }, n, pid, key)
}

// cancelFunc is how a cancel request is sent.
type cancelFunc func(ctx context.Context, n *site.Node, pid uint32, key []byte) error

// tlsTo makes a connection one with TLS, by which the client proves who it is.
func tlsTo(app site.Client) func(context.Context, net.Conn) (net.Conn, error) {
	return func(ctx context.Context, conn net.Conn) (net.Conn, error) {
		config := app.TLS.Clone()
		config.NextProtos = []string{"postgresql"} // without an SSLRequest
		secured := tls.Client(conn, config)
		return secured, secured.HandshakeContext(ctx)
	}
}

func sendCancelOver(ctx context.Context, wrap func(context.Context, net.Conn) (net.Conn, error),
	n *site.Node, pid uint32, key []byte) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if conn, err = wrap(ctx, conn); err != nil {
		return err
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102)
	packet = append(binary.BigEndian.AppendUint32(packet, pid), key...)
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = conn.Read(make([]byte, 1)) // the end says that it was dealt with
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("cancel connection: %w", err)
	}
	return nil
}
