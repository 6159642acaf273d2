// Package testca makes certificates, trust states, and stand-ins for what the cluster
// supplies to the edge: its trust and its lease. It is for the tests of all rooms, never
// for production, and knows nothing of connections or consensus.
//
// Invariant: whatever it makes is valid unless the caller's own change spoils it.
package testca

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// CA is a certificate authority of one environment.
type CA struct {
	Cert        *x509.Certificate
	Key         crypto.Signer
	Environment string
	Domain      string // SPIFFE trust domain
}

// New makes a client CA whose leaves belong to environment and trust domain. It has
// no name constraint, so that it can also sign what it should not.
func New(t testing.TB, environment, domain string) *CA {
	t.Helper()
	ca := &CA{Environment: environment, Domain: domain, Key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: environment + " test CA"},
		NotBefore: time.Now().Add(-30 * 24 * time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca.Cert = create(t, template, template, ca.Key.Public(), ca.Key)
	return ca
}

// Intermediate makes a CA below ca.
func (ca *CA) Intermediate(t testing.TB, change ...func(*x509.Certificate)) *CA {
	t.Helper()
	sub := &CA{Environment: ca.Environment, Domain: ca.Domain, Key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: ca.Environment + " test intermediate"},
		NotBefore: ca.Cert.NotBefore, NotAfter: ca.Cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, f := range change {
		f(template)
	}
	sub.Cert = create(t, template, ca.Cert, sub.Key.Public(), ca.Key)
	return sub
}

// Anchor is the CA as a trust anchor for all identities of its trust domain.
func (ca *CA) Anchor() armor.TrustAnchor {
	return armor.TrustAnchor{
		Name: ca.Environment + "-ca", Environment: ca.Environment, Prefix: armor.Pattern("spiffe://" + ca.Domain + "/*"),
		Certificate: pki.AnchorFacts(ca.Cert), DER: ca.Cert.Raw,
	}
}

// Pool holds the CA's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// Leaf makes a client certificate for the path below the CA's trust domain, such as
// "/app/checkout", valid for an hour, with a new key. Changes spoil it at will.
func (ca *CA) Leaf(t testing.TB, path string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{URI(t, "spiffe://"+ca.Domain+path)},
	}
	for _, f := range change {
		f(template)
	}
	return ca.sign(t, template)
}

// Server makes a server certificate for localhost and 127.0.0.1, and more names.
func (ca *CA) Server(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	return ca.sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: append([]string{"localhost"}, names...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	})
}

func (ca *CA) sign(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key := newKey(t)
	leaf := create(t, template, ca.Cert, key.Public(), ca.Key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Below returns cert with the CA's own certificate sent along, as an intermediate's
// leaves need it.
func (ca *CA) Below(cert tls.Certificate) tls.Certificate {
	cert.Certificate = [][]byte{cert.Certificate[0], ca.Cert.Raw}
	return cert
}

// Cross returns a certificate that ca has made for the key of another CA, under that CA's name.
func (ca *CA) Cross(t testing.TB, other *CA) *x509.Certificate {
	t.Helper()
	template := *other.Cert
	template.SerialNumber = serial(t)
	return create(t, &template, ca.Cert, other.Key.Public(), ca.Key)
}

// Facts are what the edge makes of a leaf of this CA.
func (ca *CA) Facts(cert tls.Certificate) armor.Certificate {
	return pki.Facts(cert.Leaf, pki.SPKI(ca.Cert))
}

// Peer is a client that holds cert and comes from 127.0.0.1.
func (ca *CA) Peer(cert tls.Certificate) armor.Peer {
	return armor.Peer{
		Leaf: ca.Facts(cert), Chains: [][]armor.Certificate{{pki.AnchorFacts(ca.Cert)}},
		Source: netip.MustParseAddrPort("127.0.0.1:5000"),
	}
}

// URI parses s.
func URI(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func create(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Trust is an armor.Trust whose state the test changes.
type Trust struct {
	mu         sync.Mutex // guards below
	state      *armor.State
	superseded chan struct{}
}

// NewTrust begins at revision 1 with the changes applied.
func NewTrust(changes ...func(*armor.State)) *Trust {
	t := &Trust{state: &armor.State{}, superseded: make(chan struct{})}
	t.Publish(changes...)
	return t
}

// Current is armor.Trust's.
func (t *Trust) Current() (*armor.State, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state, t.superseded
}

// Publish puts the next revision in force, which it returns.
func (t *Trust) Publish(changes ...func(*armor.State)) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.state
	next.Revision++
	for _, change := range changes {
		before := next.Changed
		change(&next)
		if next.Changed == before { // made past the tables: it may have been anything
			next.Changed = armor.Everything(next.Revision)
		}
	}
	t.state = &next
	close(t.superseded)
	t.superseded = make(chan struct{})
	return next.Revision
}

// Environment adds an environment with an open inventory.
func Environment(name string) func(*armor.State) {
	return func(s *armor.State) {
		armor.Environments.Put(s, armor.Environment{
			Name: name, Inventory: armor.InventoryOpen, FreshNew: armor.DefaultFreshNew, FreshLive: armor.DefaultFreshLive,
		})
	}
}

// Anchored adds or replaces a trust anchor.
func Anchored(a armor.TrustAnchor) func(*armor.State) {
	return func(s *armor.State) { armor.Anchors.Put(s, a) }
}

// Rotating puts a rotation in its phase, with what that means for its anchors.
func Rotating(r armor.Rotation) func(*armor.State) {
	return func(s *armor.State) {
		old, _ := s.Anchors.Get(r.Old.String())
		finished := r.Phase == armor.RotationStandby && !r.RolledBack
		if distrusted := finished || r.Phase == armor.RotationDistrusted; distrusted != old.Distrusted {
			old.Distrusted = distrusted
			armor.Anchors.Put(s, old)
		}
		if finished {
			Revoked(armor.Selector{Kind: armor.SelectIssuer, Issuer: old.Certificate.Key})(s)
		}
		r.Revision = s.Revision
		armor.Rotations.Put(s, r)
	}
}

// Granted lets an identity of an environment reach a database through a pool, both
// of that name; it replaces what the identity was granted before. No grants: it
// has none.
func Granted(environment string, id armor.Pattern, grants ...armor.Grant) func(*armor.State) {
	return func(s *armor.State) {
		armor.Identities.Put(s, armor.IdentityConfig{
			Name: "test", Environment: environment, ID: id, Owner: "tests", Grants: grants,
		})
		for _, g := range grants {
			armor.Databases.Put(s, armor.Database{Name: g.Database, Environment: environment, DBName: g.Database})
			armor.Pools.Put(s, armor.Pool{
				Name: g.Pool, Environment: environment, Database: g.Database, Mode: armor.TransactionMode, Budget: 10,
			})
		}
	}
}

// Revoked adds revocations, at the revision being published.
func Revoked(selectors ...armor.Selector) func(*armor.State) {
	return func(s *armor.State) {
		for _, sel := range selectors {
			armor.Revoked.Put(s, armor.Revocation{Selector: sel, Reason: armor.KeyCompromise, Revision: s.Revision})
		}
	}
}

// Lease is a lease that the test holds: fresh, and on the wall clock, until told
// otherwise.
type Lease struct {
	mu     sync.Mutex // guards below
	noNew  bool
	noLive bool
	shift  time.Duration
}

// AdmitNew is tlsedge.Lease's.
func (l *Lease) AdmitNew(string) error { return l.answer(&l.noNew) }

// Moment is tlsedge.Lease's.
func (l *Lease) Moment() armor.Moment { return armor.Moment{} }

// KeepLiveAt is tlsedge.Lease's.
func (l *Lease) KeepLiveAt(string, armor.Moment) error { return l.answer(&l.noLive) }

func (l *Lease) answer(no *bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *no {
		return armor.ErrStale
	}
	return nil
}

// Now is tlsedge.Lease's.
func (l *Lease) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.shift)
}

// SetStale says which questions are answered with armor.ErrStale.
func (l *Lease) SetStale(admitNew, keepLive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noNew, l.noLive = admitNew, keepLive
}

// Advance moves the validity clock.
func (l *Lease) Advance(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shift += d
}
