package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newCA(t testing.TB, kind pki.CAKind, domain string) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	cert, key, err := pki.NewCA(pki.CAConfig{
		Kind: kind, CommonName: "test " + string(kind), TrustDomain: domain, Lifetime: 365 * 24 * time.Hour, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func anchorOf(ca *x509.Certificate, name string) armor.TrustAnchor {
	return armor.TrustAnchor{Name: name, Environment: "production", Prefix: "spiffe://td/*", Certificate: pki.AnchorFacts(ca), DER: ca.Raw}
}

// odd signs a leaf from a template that SignLeaf would never make.
type odd struct {
	template x509.Certificate
	sans     []asn1.RawValue
	public   crypto.PublicKey
	parent   *x509.Certificate
	key      crypto.Signer
}

func (o odd) sign(t testing.TB) *x509.Certificate {
	t.Helper()
	if o.sans != nil {
		value, err := asn1.Marshal(o.sans)
		if err != nil {
			t.Fatal(err)
		}
		o.template.ExtraExtensions = append(o.template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value})
	}
	der, err := x509.CreateCertificate(rand.Reader, &o.template, o.parent, o.public, o.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func uri(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s)}
}

func good(t testing.TB, ca *x509.Certificate, key crypto.Signer) odd {
	return odd{
		template: x509.Certificate{
			SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "odd"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			BasicConstraintsValid: true,
		},
		sans:   []asn1.RawValue{uri("spiffe://td/app/checkout")},
		public: newKey(t).Public(), parent: ca, key: key,
	}
}

func TestLeafProfileNamesWhatIsWrong(t *testing.T) {
	ca, caKey := newCA(t, pki.ClientCA, "td")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go refuses to make weak keys")
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	san := func(uris ...string) func(*odd) {
		return func(o *odd) {
			o.sans = []asn1.RawValue{}
			for _, u := range uris {
				o.sans = append(o.sans, uri(u))
			}
		}
	}
	cases := []struct {
		name   string
		mutate func(*odd)
		rule   pki.Rule
		says   string
	}{
		{"good", func(*odd) {}, "", ""},
		{"DNS and e-mail SANs beside the URI", func(o *odd) {
			o.sans = append(o.sans, asn1.RawValue{Class: 2, Tag: 2, Bytes: []byte("web-3")}, asn1.RawValue{Class: 2, Tag: 1, Bytes: []byte("a@b")})
		}, "", ""},
		{"CA", func(o *odd) { o.template.IsCA = true }, pki.RuleCA, "is a CA certificate"},
		{"certSign", func(o *odd) { o.template.KeyUsage |= x509.KeyUsageCertSign }, pki.RuleKeyUsage, "may sign certificates"},
		{"crlSign", func(o *odd) { o.template.KeyUsage |= x509.KeyUsageCRLSign }, pki.RuleKeyUsage, "or CRLs"},
		{"no key usage", func(o *odd) { o.template.KeyUsage = 0 }, pki.RuleKeyUsage, "lacks the key usage digitalSignature"},
		{"only keyEncipherment", func(o *odd) { o.template.KeyUsage = x509.KeyUsageKeyEncipherment }, pki.RuleKeyUsage, "digitalSignature"},
		{"no EKU", func(o *odd) { o.template.ExtKeyUsage = nil }, pki.RuleExtKeyUsage, "lacks the extended key usage clientAuth"},
		{"anyEKU", func(o *odd) {
			o.template.ExtKeyUsage = append(o.template.ExtKeyUsage, x509.ExtKeyUsageAny)
		}, pki.RuleExtKeyUsage, "anyExtendedKeyUsage"},
		{"serverAuth only", func(o *odd) {
			o.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, pki.RuleExtKeyUsage, "clientAuth"},
		{"serverAuth too", func(o *odd) {
			o.template.ExtKeyUsage = append(o.template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		}, pki.RuleExtKeyUsage, "serverAuth"},
		{"long serial", func(o *odd) { o.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 159) }, pki.RuleSerial, "20 octets"},
		{"weak RSA", func(o *odd) { o.public = weak.Public() }, pki.RuleKey, "RSA key of 1024 bits"},
		{"P-224", func(o *odd) { o.public = p224.Public() }, pki.RuleKey, "curve P-224"},
		{"critical extension", func(o *odd) {
			o.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, pki.RuleExtension, "critical extension 1.2.3.4"},
		{"no URI", san(), pki.RuleIdentity, "carries 0 URI SANs"},
		{"two URIs", san("spiffe://td/a", "spiffe://td/b"), pki.RuleIdentity, "carries 2 URI SANs"},
		{"same URI twice", san("spiffe://td/a", "spiffe://td/a"), pki.RuleIdentity, "carries 2 URI SANs"},
		{"SPIFFE ID beside another URI", san("spiffe://td/a", "https://td/a"), pki.RuleIdentity, "carries 2 URI SANs"},
		{"dot-dot", san("spiffe://td/app/../admin"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"percent", san("spiffe://td/app%2fadmin"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"upper-case trust domain", san("spiffe://TD/app"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"upper-case scheme", san("SPIFFE://td/app"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"empty fragment", san("spiffe://td/app#"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"query", san("spiffe://td/app?a=b"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"port", san("spiffe://td:80/app"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"user info", san("spiffe://u@td/app"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"no path", san("spiffe://td"), pki.RuleIdentity, "malformed SPIFFE ID"},
		{"https", san("https://td/app"), pki.RuleIdentity, "malformed SPIFFE ID"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := good(t, ca, caKey)
			c.mutate(&o)
			err := pki.CheckLeaf(o.sign(t), pki.Profile{})
			if c.rule == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var v *pki.Violation
			if !errors.As(err, &v) || v.Rule != c.rule || !strings.Contains(err.Error(), c.says) || !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("got %v, want rule %s saying %q", err, c.rule, c.says)
			}
		})
	}
}

func TestServerAuthPassesOnlyWithSVID(t *testing.T) {
	ca, key := newCA(t, pki.ClientCA, "td")
	o := good(t, ca, key)
	o.template.ExtKeyUsage = append(o.template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	if err := pki.CheckLeaf(o.sign(t), pki.Profile{SVID: true}); err != nil {
		t.Fatal(err)
	}
}

func TestVersionOneLeafIsRefused(t *testing.T) {
	ca, key := newCA(t, pki.ClientCA, "td")
	cert := good(t, ca, key).sign(t)
	cert.Version = 1
	if err := pki.CheckLeaf(cert, pki.Profile{}); err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Fatal(err)
	}
}

func TestWhatWeIssuePassesOurOwnChecks(t *testing.T) {
	ca, key := newCA(t, pki.ClientCA, "td")
	seen := map[string]bool{}
	for range 50 {
		const identity = "spiffe://td/app/checkout/host/web-3"
		leaf, err := pki.SignLeaf(ca, key, newKey(t).Public(), pki.LeafConfig{
			Identity: identity, Client: true, Lifetime: time.Hour, Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.CheckLeaf(leaf, pki.Profile{}); err != nil {
			t.Fatal(err)
		}
		if leaf.SerialNumber.BitLen() < 100 || seen[leaf.SerialNumber.String()] {
			t.Fatalf("serial %x is not random", leaf.SerialNumber)
		}
		seen[leaf.SerialNumber.String()] = true
		got := pki.Facts(leaf, pki.SPKI(ca))
		if got.Identity != identity || got.ID.Issuer != pki.SPKI(ca) || got.ID.Serial != leaf.SerialNumber.Text(16) {
			t.Fatalf("facts %+v", got)
		}
	}
}

func TestSignLeafRefusesWhatTheEdgeWouldRefuse(t *testing.T) {
	ca, key := newCA(t, pki.ClientCA, "td")
	base := pki.LeafConfig{Identity: "spiffe://td/app", Client: true, Lifetime: time.Hour, Now: now}
	cases := map[string]func(*pki.LeafConfig){
		"identity of another trust domain": func(c *pki.LeafConfig) { c.Identity = "spiffe://other/app" },
		"malformed identity":               func(c *pki.LeafConfig) { c.Identity = "spiffe://td/../app" },
		"no identity":                      func(c *pki.LeafConfig) { c.Identity = "" },
		"no usage":                         func(c *pki.LeafConfig) { c.Client = false },
		"no lifetime":                      func(c *pki.LeafConfig) { c.Lifetime = 0 },
		"longer than its CA":               func(c *pki.LeafConfig) { c.Lifetime = 2 * 365 * 24 * time.Hour },
		"server usage of a client CA":      func(c *pki.LeafConfig) { c.Server = true },
	}
	for name, mutate := range cases {
		cfg := base
		mutate(&cfg)
		if _, err := pki.SignLeaf(ca, key, newKey(t).Public(), cfg); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	weak := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	if _, err := pki.SignLeaf(ca, key, weak, base); err == nil {
		t.Error("signed a weak key")
	}
}

func TestServerCertificateVerifiesForItsNames(t *testing.T) {
	ca, key := newCA(t, pki.ServerCA, "")
	leaf, err := pki.SignLeaf(ca, key, newKey(t).Public(), pki.LeafConfig{
		Server: true, DNSNames: []string{"localhost"}, Lifetime: time.Hour, Now: now,
		IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now}); err != nil {
			t.Error(err)
		}
	}
}

func TestCAConfigIsChecked(t *testing.T) {
	bad := []pki.CAConfig{
		{Kind: "root", CommonName: "x", TrustDomain: "td", Lifetime: time.Hour},
		{Kind: pki.ClientCA, CommonName: "x", Lifetime: time.Hour},
		{Kind: pki.ServerCA, CommonName: "x", TrustDomain: "td", Lifetime: time.Hour},
		{Kind: pki.ClientCA, CommonName: "x", TrustDomain: "TD", Lifetime: time.Hour},
		{Kind: pki.ClientCA, CommonName: "", TrustDomain: "td", Lifetime: time.Hour},
		{Kind: pki.ClientCA, CommonName: "x", TrustDomain: "td"},
	}
	for _, cfg := range bad {
		if _, _, err := pki.NewCA(cfg); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestPeerIdentitiesRoundTrip(t *testing.T) {
	cluster, kind, name, err := pki.ParsePeerIdentity(pki.NodeIdentity("Prod-EU", "n1"))
	if err != nil || cluster != "prod-eu" || kind != pki.Node || name != "n1" {
		t.Fatal(cluster, kind, name, err)
	}
	_, kind, name, err = pki.ParsePeerIdentity(pki.OperatorIdentity("prod", "Ada.L"))
	if err != nil || kind != pki.Operator || name != "Ada.L" {
		t.Fatal(kind, name, err)
	}
	for _, id := range []armor.Identity{
		"spiffe://prod/node/n1", "spiffe://.armor.internal/node/n1", "spiffe://prod.armor.internal/node",
		"spiffe://prod.armor.internal/node/N1", "spiffe://prod.armor.internal/node/n1/x", "spiffe://prod.armor.internal/app/n1",
		"spiffe://armor.internal/node/n1",
	} {
		if _, _, _, err := pki.ParsePeerIdentity(id); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestVerifyPeerTellsNodesFromOperatorsAndStrangers(t *testing.T) {
	ca, key := newCA(t, pki.PeerCA, pki.ClusterDomain("prod"))
	sign := func(id armor.Identity, server bool) []*x509.Certificate {
		leaf, err := pki.SignLeaf(ca, key, newKey(t).Public(), pki.LeafConfig{
			Identity: id, Client: true, Server: server, Lifetime: time.Hour, Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf}
	}
	cas := []*x509.Certificate{ca}
	met, err := pki.VerifyPeer(cas, "Prod", sign(pki.NodeIdentity("prod", "n1"), true), now)
	if err != nil || met.Kind != pki.Node || met.Name != "n1" || met.Leaf.ID.Issuer != pki.SPKI(ca) ||
		len(met.Above) != 1 || met.Above[0] != pki.AnchorFacts(ca) {
		t.Fatal(met, err)
	}
	met, err = pki.VerifyPeer(cas, "prod", sign(pki.OperatorIdentity("prod", "ada"), false), now)
	if err != nil || met.Kind != pki.Operator {
		t.Fatal(met, err)
	}
	if _, err := pki.VerifyPeer(cas, "prod", sign(pki.NodeIdentity("prod", "n1"), false), now); err == nil {
		t.Error("a node without serverAuth passed")
	}
	if _, err := pki.VerifyPeer(cas, "prod", sign(pki.OperatorIdentity("prod", "ada"), true), now); err == nil {
		t.Error("an operator with serverAuth passed")
	}
	if _, err := pki.VerifyPeer(cas, "other", sign(pki.NodeIdentity("prod", "n1"), true), now); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("a node of another cluster: %v", err)
	}
	if _, err := pki.VerifyPeer(cas, "prod", sign(pki.NodeIdentity("prod", "n1"), true), now.Add(2*time.Hour)); err == nil {
		t.Error("an expired node passed")
	}
	if _, err := pki.VerifyPeer(cas, "prod", nil, now); err == nil {
		t.Error("no certificate passed")
	}
}

// TestPeerKnownByItsKeyOutlivesItsCertificate, and its CA, and nothing else.
func TestPeerKnownByItsKeyOutlivesItsCertificate(t *testing.T) {
	ca, key := newCA(t, pki.PeerCA, pki.ClusterDomain("prod"))
	other, _ := newCA(t, pki.PeerCA, pki.ClusterDomain("prod"))
	leaf, err := pki.SignLeaf(ca, key, newKey(t).Public(), pki.LeafConfig{
		Identity: pki.NodeIdentity("prod", "n1"), Client: true, Server: true, Lifetime: time.Hour, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{leaf}
	for name, c := range map[string]struct {
		cas     []*x509.Certificate
		cluster string
		at      time.Time
		good    bool
	}{
		"now":                       {[]*x509.Certificate{ca}, "prod", now, true},
		"after its end":             {[]*x509.Certificate{other, ca}, "prod", now.Add(2 * time.Hour), true},
		"after the CA's end":        {[]*x509.Certificate{ca}, "prod", ca.NotAfter.Add(time.Hour), true},
		"before its beginning":      {[]*x509.Certificate{ca}, "prod", leaf.NotBefore.Add(-time.Hour), false},
		"of another CA":             {[]*x509.Certificate{other}, "prod", now.Add(2 * time.Hour), false},
		"of another cluster":        {[]*x509.Certificate{ca}, "test", now.Add(2 * time.Hour), false},
		"when no CA is believed in": {nil, "prod", now.Add(2 * time.Hour), false},
	} {
		met, err := pki.VerifyKnownPeer(c.cas, c.cluster, chain, c.at)
		if (err == nil && met.Name == "n1") != c.good {
			t.Errorf("%s: %v %v", name, met, err)
		}
	}
}

func TestPEMIsReadWholeOrNotAtAll(t *testing.T) {
	ca, key := newCA(t, pki.ClientCA, "td")
	two := pki.EncodeCertificatesPEM(ca, ca)
	if certs, err := pki.ParseCertificatesPEM(append([]byte("subject=/CN=x\n"), two...)); err != nil || len(certs) != 2 {
		t.Fatal(len(certs), err)
	}
	keyPEM, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := pki.ParsePrivateKeyPEM(keyPEM); err != nil || !again.Public().(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		"empty":         nil,
		"no PEM":        []byte("hello"),
		"a key inside":  append(two, keyPEM...),
		"cut off":       two[:len(two)-20],
		"damaged first": append([]byte("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"), two...),
		"not DER":       []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"too long":      make([]byte, 2<<20),
	}
	for name, data := range bad {
		if _, err := pki.ParseCertificatesPEM(data); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	encrypted := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	if _, err := pki.ParsePrivateKeyPEM(encrypted); err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("encrypted key: %v", err)
	}
	if _, err := pki.ParsePrivateKeyPEM(append(keyPEM, keyPEM...)); err == nil {
		t.Error("two keys in one file passed")
	}
}

func TestCSRMustProvePossession(t *testing.T) {
	der, err := pki.NewCSR(newKey(t), "spiffe://td/app")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSR(der)
	if err != nil || len(csr.URIs) != 1 {
		t.Fatal(csr, err)
	}
	if _, err := pki.ParseCSRPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})); err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), der...)
	forged[len(forged)-1] ^= 1
	if _, err := pki.ParseCSR(forged); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a forged request passed: %v", err)
	}
	if _, err := pki.ParseCSR(make([]byte, 1<<20)); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a giant request: %v", err)
	}
}
