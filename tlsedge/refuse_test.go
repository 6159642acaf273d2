package tlsedge

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

func TestGrantedClientIsServed(t *testing.T) {
	r := newRig(t)
	c := r.live(t, r.ca.Leaf(t, appID))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Fatal(string(buf), err)
	}
	infos := r.edge.Sessions()
	if len(infos) != 1 || infos[0].Database != "orders" || infos[0].Pool != "orders" ||
		infos[0].Environment != "production" || infos[0].State != "idle" {
		t.Fatalf("%+v", infos)
	}
	c.Close()
	eventually(t, "the session to be forgotten", func() bool { return r.edge.Count() == 0 && len(r.edge.registry.index) == 0 })
}

func TestEveryRefusalIsToldAndRecorded(t *testing.T) {
	type attempt struct {
		leaf           func(*x509.Certificate)
		path           string
		state          func(*rig, tls.Certificate) func(*armor.State)
		before         func(*rig)
		database, role string
	}
	inventory := func(*rig, tls.Certificate) func(*armor.State) {
		return func(s *armor.State) {
			s.Environments = s.Environments.With(armor.Environment{Name: "production", Inventory: armor.InventoryRequired})
		}
	}
	revoked := func(pick func(armor.Certificate) armor.Selector) func(*rig, tls.Certificate) func(*armor.State) {
		return func(r *rig, c tls.Certificate) func(*armor.State) { return testca.Revoked(pick(r.ca.Facts(c))) }
	}
	cases := []struct {
		name   string
		reason armor.Reason
		says   string
		attempt
	}{
		{"expired", armor.ReasonExpired, "client certificate expired at",
			attempt{leaf: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }}},
		{"not valid yet", armor.ReasonNotYetValid, "not valid before",
			attempt{leaf: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(10 * time.Minute) }}},
		{"too long a life", armor.ReasonLifetime, "lives longer", attempt{state: func(*rig, tls.Certificate) func(*armor.State) {
			return func(s *armor.State) {
				s.Environments = s.Environments.With(armor.Environment{Name: "production", MaxLeafLifetime: time.Minute})
			}
		}}},
		{"CA as leaf", armor.ReasonProfile, "is a CA certificate", attempt{leaf: func(c *x509.Certificate) { c.IsCA = true }}},
		{"two URI SANs", armor.ReasonProfile, "carries 2 URI SANs", attempt{leaf: func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "production.test", Path: "/b"})
		}}},
		{"no URI SAN", armor.ReasonProfile, "carries 0 URI SANs",
			attempt{leaf: func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"web-3"} }}},
		{"anyEKU", armor.ReasonProfile, "anyExtendedKeyUsage",
			attempt{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }}},
		{"no EKU", armor.ReasonProfile, "clientAuth", attempt{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = nil }}},
		{"server's EKU", armor.ReasonProfile, "clientAuth",
			attempt{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }}},
		{"both EKUs", armor.ReasonProfile, "serverAuth",
			attempt{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }}},
		{"malformed SPIFFE ID", armor.ReasonProfile, "malformed SPIFFE ID", attempt{path: "/app/../checkout"}},
		{"certificate revoked", armor.ReasonRevoked, "client certificate is revoked",
			attempt{state: revoked(func(c armor.Certificate) armor.Selector {
				return armor.Selector{Kind: armor.SelectCertificate, Certificate: c.ID}
			})}},
		{"key revoked", armor.ReasonRevoked, "key of the client certificate is revoked",
			attempt{state: revoked(func(c armor.Certificate) armor.Selector {
				return armor.Selector{Kind: armor.SelectKey, Key: c.Key}
			})}},
		{"identity revoked", armor.ReasonRevoked, "is revoked", attempt{state: revoked(func(c armor.Certificate) armor.Selector {
			return armor.Selector{Kind: armor.SelectIdentity, Identity: armor.Pattern(c.Identity)}
		})}},
		{"issuer revoked", armor.ReasonRevoked, "issuer of the client certificate is revoked",
			attempt{state: revoked(func(c armor.Certificate) armor.Selector {
				return armor.Selector{Kind: armor.SelectIssuer, Issuer: c.ID.Issuer}
			})}},
		{"binding", armor.ReasonBinding, "may not vouch", attempt{leaf: func(c *x509.Certificate) { c.URIs[0].Host = "staging.test" }}},
		{"key of another environment", armor.ReasonKeyReuse, "another environment",
			attempt{state: func(r *rig, c tls.Certificate) func(*armor.State) {
				return func(s *armor.State) {
					s.KeyEnvironments = s.KeyEnvironments.With(r.ca.Facts(c).Key.String(), "staging")
				}
			}}},
		{"unregistered", armor.ReasonUnregistered, "not registered", attempt{state: inventory}},
		{"database of another environment", armor.ReasonEnvironment, "may not reach",
			attempt{database: "scratch", state: func(*rig, tls.Certificate) func(*armor.State) {
				return func(s *armor.State) {
					s.Databases = s.Databases.With(armor.Database{Name: "scratch", Environment: "staging"})
				}
			}}},
		{"database not granted", armor.ReasonDatabase, "may not reach", attempt{database: "nowhere"}},
		{"role not granted", armor.ReasonRole, "may not use role", attempt{role: "postgres"}},
		{"address not granted", armor.ReasonAddress, "may not connect from", attempt{state: func(*rig, tls.Certificate) func(*armor.State) {
			g := ordersGrant()
			g.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			return testca.Granted("production", "spiffe://production.test"+appID, g)
		}}},
		{"stale node", armor.ReasonStale, "cannot prove", attempt{before: func(r *rig) { r.lease.SetStale(true, false) }}},
		{"no user in the startup packet", armor.ReasonProtocol, "names no database", attempt{role: "-"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			path := appID
			if c.path != "" {
				path = c.path
			}
			var changes []func(*x509.Certificate)
			if c.leaf != nil {
				changes = append(changes, c.leaf)
			}
			cert := r.ca.Leaf(t, path, changes...)
			if c.state != nil {
				r.trust.Publish(c.state(r, cert))
			}
			if c.before != nil {
				c.before(r)
			}
			database, role := "orders", "checkout_rw"
			if c.database != "" {
				database = c.database
			}
			if c.role != "" {
				role = strings.TrimPrefix(c.role, "-")
			}
			_, answer, err := r.login(t, &cert, database, role)
			f := parseFatal(answer)
			record, ok := r.edge.Denial(f.denialID())
			if !ok || record.Denial.Reason != c.reason || !strings.Contains(f['M'], c.says) || record.Denial.Message != f['M'] {
				t.Fatalf("client reads %q (%v); record %+v", f, err, record)
			}
			if record.Node != "n1" || record.Facts.Peer.Leaf.Fingerprint != r.ca.Facts(cert).Fingerprint {
				t.Fatalf("record %+v", record)
			}
		})
	}
}

func TestSVIDPassesOnlyThroughAMarkedAnchor(t *testing.T) {
	r := newRig(t)
	anchor := r.ca.Anchor()
	anchor.SVID = true
	r.trust.Publish(testca.Anchored(anchor))
	c := r.live(t, r.ca.Leaf(t, appID, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }))
	r.trust.Publish(testca.Anchored(r.ca.Anchor()))
	if record := r.fatalOf(t, c); record.Denial.Reason != armor.ReasonProfile {
		t.Fatalf("%+v", record.Denial)
	}
}

func TestStrangersGetAnAlertAndLeaveNoTrace(t *testing.T) {
	r := newRig(t)
	stranger := testca.New(t, "production", "production.test")
	sub := r.ca.Intermediate(t)
	constrained := r.ca.Intermediate(t, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedURIDomains = true, []string{"staging.test"}
	})
	leaf := func(c tls.Certificate) *tls.Certificate { return &c }
	cases := map[string]*tls.Certificate{
		"no certificate":       nil,
		"unknown CA":           leaf(stranger.Leaf(t, appID)),
		"unknown CA sent":      leaf(stranger.Below(stranger.Leaf(t, appID))),
		"missing intermediate": leaf(sub.Leaf(t, appID)),
		"name constraint":      leaf(constrained.Below(constrained.Leaf(t, appID))),
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, cert := range cases {
			cfg := r.clientConfig(cert)
			cfg.MinVersion, cfg.MaxVersion = version, version
			c, err := upgrade(r.dial(t), cfg)
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("%s, TLS %x: %v, want an alert", name, version, err)
			}
		}
	}
	if r.edge.Count() != 0 || len(r.edge.denials.ring) != 0 {
		t.Fatalf("%d sessions, %d denials", r.edge.Count(), len(r.edge.denials.ring))
	}
	r.live(t, sub.Below(sub.Leaf(t, appID)))
}

// lines are what a log holds.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestTheLogSaysWhatAStrangerHasShown, as unproven, and what was missing.
func TestTheLogSaysWhatAStrangerHasShown(t *testing.T) {
	log := &lines{}
	r := newRig(t, func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(log, nil)) })
	sub := r.ca.Intermediate(t)
	cert := sub.Leaf(t, appID)
	c, err := upgrade(r.dial(t), r.clientConfig(&cert))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil {
		t.Fatal("it was let in")
	}
	eventually(t, "the line", func() bool { return strings.Contains(log.String(), "client handshake failed") })
	for _, want := range []string{
		`"unproven":{"subject":"CN=`, `"issuer":"CN=production test intermediate"`, `"serial":"` + cert.Leaf.SerialNumber.Text(16) + `"`,
		`"certificates_sent":1`, `CN=production test intermediate\" was not sent`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s: %s", want, log)
		}
	}
	kept := r.edge.Refusals(netip.MustParseAddr("127.0.0.1"), 10)
	if len(kept.Denials) != 0 || len(kept.Unproven) != 1 {
		t.Fatalf("kept: %+v", kept)
	}
	u := kept.Unproven[0]
	if u.Times != 1 || u.Sent != 1 || !strings.Contains(u.Cure, `"CN=production test intermediate" was not sent`) || u.Serial != cert.Leaf.SerialNumber.Text(16) {
		t.Errorf("kept: %+v", u)
	}
}

// wrongKey signs with a key that the certificate does not hold.
type wrongKey struct{ crypto.Signer }

func TestNothingIsRecordedBeforePossessionIsProven(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		served := make(chan struct{}, 1)
		r := newRig(t, func(c *Config) {
			c.Handler.(*echo).onServe = func(net.Conn, *Session) { served <- struct{}{} }
		})
		victim, own := r.ca.Leaf(t, appID), r.ca.Leaf(t, "/app/thief")
		// An expired one too: a thief must not even learn that it is.
		stolen := tls.Certificate{Certificate: victim.Certificate, PrivateKey: wrongKey{own.PrivateKey.(crypto.Signer)}}
		cfg := r.clientConfig(&stolen)
		cfg.MinVersion, cfg.MaxVersion = version, version
		c, err := upgrade(r.dial(t), cfg)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Fatal("a certificate without its key was accepted")
		}
		if r.edge.Count() != 0 || len(r.edge.denials.ring) != 0 || len(served) != 0 {
			t.Fatal("a handshake without proof left traces")
		}
	}
}

func TestNoSessionIsResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t)
		cert := r.ca.Leaf(t, appID)
		cfg := r.clientConfig(&cert)
		cfg.MinVersion, cfg.MaxVersion = version, version
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for range 3 {
			c, err := upgrade(r.dial(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(startup("orders", "checkout_rw"))
			if _, err := c.Read(make([]byte, 2)); err != nil {
				t.Fatal(err)
			}
			if c.ConnectionState().DidResume {
				t.Fatal("a session was resumed")
			}
		}
	}
}

func TestListenerServesItsEnvironmentsOnly(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Environments = []string{"production"} })
	staging := testca.New(t, "staging", "staging.test")
	r.trust.Publish(testca.Anchored(staging.Anchor()), testca.Granted("staging", "spiffe://staging.test"+appID, ordersGrant()))
	cert := staging.Leaf(t, appID)
	if _, answer, err := r.login(t, &cert, "orders", "checkout_rw"); err == nil {
		t.Fatalf("served: %q", answer)
	}
	r.live(t, r.ca.Leaf(t, appID))
}

func TestRenewedServerCertificateIsUsedAtOnce(t *testing.T) {
	certificates := make(chan tls.Certificate, 2)
	r := newRig(t, func(c *Config) {
		c.Certificate = func() (*tls.Certificate, error) { next := <-certificates; return &next, nil }
	})
	cert := r.ca.Leaf(t, appID)
	var serials []string
	for range 2 {
		certificates <- r.server.Server(t)
		c := r.live(t, cert)
		serials = append(serials, c.ConnectionState().PeerCertificates[0].SerialNumber.String())
	}
	if serials[0] == serials[1] {
		t.Fatal("the old certificate is still served")
	}
}

func TestParsedCertificatesAreDropped(t *testing.T) {
	kept := make(chan *x509.Certificate, 1)
	r := newRig(t, func(c *Config) {
		c.Handler.(*echo).onServe = func(conn net.Conn, _ *Session) { kept <- conn.(*tls.Conn).ConnectionState().PeerCertificates[0] }
	})
	r.live(t, r.ca.Leaf(t, appID))
	if <-kept != nil {
		t.Fatal("the connection keeps its peer's parsed certificate")
	}
}

type wrapped struct{ net.Conn }

func TestWrapIsWhatTLSRunsOn(t *testing.T) {
	under := make(chan net.Conn, 1)
	r := newRig(t, func(c *Config) {
		c.Wrap = func(c net.Conn) net.Conn { return wrapped{c} }
		c.Handler.(*echo).onServe = func(conn net.Conn, _ *Session) { under <- conn.(*tls.Conn).NetConn() }
	})
	cert := r.ca.Leaf(t, appID)
	r.live(t, cert)
	if _, ok := (<-under).(wrapped); !ok {
		t.Fatal("after SSLRequest, TLS does not run on what Wrap made")
	}
	cfg := r.clientConfig(&cert)
	cfg.NextProtos = []string{alpn}
	c := tls.Client(r.dial(t), cfg)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	w, ok := (<-under).(wrapped)
	if !ok {
		t.Fatal("with direct TLS, TLS does not run on what Wrap made")
	}
	if _, err := w.Conn.(*replay).SyscallConn(); err != nil {
		t.Fatal(err)
	}
}

func TestDenialsAreBounded(t *testing.T) {
	d := newDenials("n1")
	var first string
	for i := range remembered + 10 {
		id := d.record(&armor.Denial{Reason: armor.ReasonRole}, armor.Facts{}, 1).ID
		if i == 0 {
			first = id
		}
		if len(id) != 10 {
			t.Fatalf("id %q", id)
		}
	}
	if _, ok := d.get(first); ok || len(d.ring) != remembered || len(d.byID) != remembered {
		t.Fatalf("first kept %v, %d records, %d ids", ok, len(d.ring), len(d.byID))
	}
}

func TestRefusalOfThePoolerIsRecordedOnce(t *testing.T) {
	r := newRig(t)
	result := make(chan *armor.Denial, 2)
	r.echo.onServe = func(_ net.Conn, s *Session) {
		d := s.Refuse(&armor.Denial{Reason: armor.ReasonNotReady, Message: "no secret"})
		result <- d
		result <- s.Refuse(d)
	}
	r.live(t, r.ca.Leaf(t, appID))
	a, b := <-result, <-result
	record, ok := r.edge.Denial(strings.ToUpper(a.ID))
	if !ok || b != a || record.Denial.Reason != armor.ReasonNotReady || record.Facts.Peer.Leaf.Identity == "" {
		t.Fatalf("%+v %+v %+v", a, b, record)
	}
}

// hinted are the names that the edge sends to a client as those of CAs that would do.
func (r *rig) hinted(t *testing.T, version uint16, cert tls.Certificate) (names []string) {
	t.Helper()
	cfg := r.clientConfig(nil)
	cfg.MinVersion, cfg.MaxVersion = version, version
	cfg.GetClientCertificate = func(q *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		for _, name := range q.AcceptableCAs {
			names = append(names, string(name))
		}
		return &cert, nil
	}
	c, err := upgrade(r.dial(t), cfg)
	if err != nil {
		t.Fatalf("a client of a retired CA: %v", err)
	}
	c.Close()
	return names
}

// Planted mistake that this catches: hints made of all anchors, or chains built to those of the hints only.
func TestARetiredAnchorIsHintedAtNoMoreAndItsClientsGetIn(t *testing.T) {
	r := newRig(t)
	next := testca.New(t, "staging", "staging.test")
	r.trust.Publish(testca.Anchored(next.Anchor()))
	old, cert := r.ca.Anchor(), r.ca.Leaf(t, appID)
	live := r.live(t, cert)
	for _, retired := range []bool{false, true, false} {
		old.Retired = retired
		r.trust.Publish(testca.Anchored(old))
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			names := r.hinted(t, version, cert)
			if told := slices.Contains(names, string(r.ca.Cert.RawSubject)); told == retired || !slices.Contains(names, string(next.Cert.RawSubject)) {
				t.Errorf("retired %t, TLS %x: told %t, of %d", retired, version, told, len(names))
			}
		}
	}
	old.Retired = true
	other := next.Anchor()
	other.Retired = true
	r.trust.Publish(testca.Anchored(old), testca.Anchored(other))
	if names := r.hinted(t, tls.VersionTLS13, cert); len(names) != 0 {
		t.Errorf("with all retired: %q", names)
	}
	r.live(t, cert)
	answers(t, live)
}
