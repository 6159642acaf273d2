package pki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func rootAuthority(t testing.TB, name string, life time.Duration) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{signed(t, template, template, key, key), key}
}

func (a authority) intermediate(t testing.TB, name string, mutate func(*x509.Certificate)) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if mutate != nil {
		mutate(template)
	}
	return authority{signed(t, template, a.cert, key, a.key), key}
}

func signed(t testing.TB, template, parent *x509.Certificate, subject, issuer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func verifier(t testing.TB, anchors ...authority) *pki.Verifier {
	t.Helper()
	var list []armor.TrustAnchor
	for _, a := range anchors {
		list = append(list, anchorOf(a.cert, a.cert.Subject.CommonName))
	}
	v, err := pki.NewVerifier(list)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifyReturnsIssuersNearestFirst(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	sub := root.intermediate(t, "sub", nil)
	leaf := good(t, sub.cert, sub.key).sign(t)
	chains, err := verifier(t, root).Verify([]*x509.Certificate{leaf, sub.cert}, now)
	if err != nil || len(chains) != 1 || len(chains[0]) != 2 {
		t.Fatal(chains, err)
	}
	if chains[0][0].Key != pki.SPKI(sub.cert) || chains[0][0].ID.Issuer != pki.SPKI(root.cert) || chains[0][1] != pki.AnchorFacts(root.cert) {
		t.Fatalf("%+v", chains)
	}
	if chains, err = verifier(t, root, sub).Verify([]*x509.Certificate{leaf, sub.cert}, now); err != nil || len(chains) < 2 {
		t.Fatalf("with two anchors: %d chains, %v", len(chains), err)
	}
}

func TestLeafsOwnFaultsDoNotEndChainBuilding(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	v := verifier(t, root)
	cases := map[string]func(*odd){
		"expired":           func(o *odd) { o.template.NotAfter = now.Add(-time.Minute) },
		"not yet valid":     func(o *odd) { o.template.NotBefore = now.Add(time.Minute) },
		"older than its CA": func(o *odd) { o.template.NotBefore, o.template.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0) },
		"server only":       func(o *odd) { o.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"any":               func(o *odd) { o.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"CA":                func(o *odd) { o.template.IsCA = true },
		"critical extension": func(o *odd) {
			o.template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
	}
	for name, mutate := range cases {
		o := good(t, root.cert, root.key)
		mutate(&o)
		leaf := o.sign(t)
		before := *leaf
		if _, err := v.Verify([]*x509.Certificate{leaf}, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !leaf.NotAfter.Equal(before.NotAfter) || len(leaf.ExtKeyUsage) != len(before.ExtKeyUsage) {
			t.Errorf("%s: Verify changed the certificate", name)
		}
	}
}

func TestAnAnchorPresentedAsLeafIsToldByTheProfile(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	chains, err := verifier(t, root).Verify([]*x509.Certificate{root.cert}, now)
	if err != nil || len(chains) != 1 || len(chains[0]) != 1 {
		t.Fatal(chains, err)
	}
	if err := pki.CheckLeaf(root.cert, pki.Profile{SVID: true}); err == nil {
		t.Fatal("a CA passed as a leaf")
	}
}

func TestBrokenChainsAreRefused(t *testing.T) {
	root, stranger := rootAuthority(t, "root", time.Hour), rootAuthority(t, "stranger", time.Hour)
	v := verifier(t, root)
	expired := root.intermediate(t, "expired", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	future := root.intermediate(t, "future", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) })
	notCA := root.intermediate(t, "not CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	serverOnly := root.intermediate(t, "server only", func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	constrained := root.intermediate(t, "constrained", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedURIDomains = true, []string{"other"}
	})
	twin := rootAuthority(t, "root", time.Hour) // same name, other key
	one := root.intermediate(t, "one", nil)
	two := one.intermediate(t, "two", nil)
	three := two.intermediate(t, "three", nil)
	cases := map[string][]*x509.Certificate{
		"unknown CA":                {good(t, stranger.cert, stranger.key).sign(t)},
		"unknown CA sent along":     {good(t, stranger.cert, stranger.key).sign(t), stranger.cert},
		"CA of the same name":       {good(t, twin.cert, twin.key).sign(t)},
		"missing intermediate":      {good(t, one.cert, one.key).sign(t)},
		"expired intermediate":      {good(t, expired.cert, expired.key).sign(t), expired.cert},
		"future intermediate":       {good(t, future.cert, future.key).sign(t), future.cert},
		"intermediate that is none": {good(t, notCA.cert, notCA.key).sign(t), notCA.cert},
		"server-only intermediate":  {good(t, serverOnly.cert, serverOnly.key).sign(t), serverOnly.cert},
		"name constraint":           {good(t, constrained.cert, constrained.key).sign(t), constrained.cert},
		"five certificates":         {good(t, three.cert, three.key).sign(t), three.cert, two.cert, one.cert},
		"a long list":               {good(t, root.cert, root.key).sign(t), one.cert, two.cert, three.cert, expired.cert},
		"none":                      {},
	}
	for name, chain := range cases {
		if chains, err := v.Verify(chain, now); err == nil {
			t.Errorf("%s: accepted as %v", name, chains)
		}
	}
	if _, err := v.Verify([]*x509.Certificate{good(t, two.cert, two.key).sign(t), two.cert, one.cert}, now); err != nil {
		t.Errorf("four certificates: %v", err)
	}
	if _, err := v.Verify([]*x509.Certificate{good(t, root.cert, root.key).sign(t)}, now.Add(2*time.Hour)); err == nil {
		t.Error("an expired anchor vouches")
	}
}

func TestBadAnchorsVouchForNobodyAndAreNamed(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	leaf := good(t, root.cert, root.key).sign(t)
	swapped := anchorOf(root.cert, "swapped")
	swapped.DER = leaf.Raw
	noCA := anchorOf(leaf, "no-ca")
	garbage := armor.TrustAnchor{Name: "garbage", DER: []byte{1, 2, 3}}
	v, err := pki.NewVerifier([]armor.TrustAnchor{swapped, noCA, garbage, anchorOf(root.cert, "root")})
	for _, name := range []string{"swapped", "no-ca", "garbage"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	if len(v.Anchors()) != 1 {
		t.Fatalf("%d anchors in use", len(v.Anchors()))
	}
	if _, err := v.Verify([]*x509.Certificate{leaf}, now); err != nil {
		t.Errorf("the good anchor: %v", err)
	}
}

func FuzzVerifyNeverAcceptsTamperedLeaves(f *testing.F) {
	root := rootAuthority(f, "root", time.Hour)
	v := verifier(f, root)
	genuine := good(f, root.cert, root.key).sign(f)
	f.Add(genuine.Raw)
	f.Add(root.cert.Raw)
	for _, c := range limboCases(f) {
		if block, _ := pem.Decode([]byte(c.PeerCertificate)); block != nil {
			f.Add(block.Bytes)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		_ = pki.CheckLeaf(cert, pki.Profile{})
		_ = pki.CheckPeerLeaf(cert, pki.Node)
		_ = pki.Facts(cert, armor.Digest{})
		_, err = v.Verify([]*x509.Certificate{cert, root.cert}, now)
		known := bytes.Equal(cert.RawTBSCertificate, genuine.RawTBSCertificate) ||
			bytes.Equal(cert.RawTBSCertificate, root.cert.RawTBSCertificate)
		if err == nil && !known {
			t.Fatalf("accepted a certificate that nobody signed: %x", der)
		}
	})
}

func FuzzCSR(f *testing.F) {
	der, err := pki.NewCSR(newKey(f), "spiffe://td/app")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := pki.ParseCSR(der)
		if err == nil && csr.CheckSignature() != nil {
			t.Fatal("accepted without proof of possession")
		}
	})
}

func FuzzPEM(f *testing.F) {
	ca, key := newCA(f, pki.ClientCA, "td")
	keyPEM, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pki.EncodeCertificatesPEM(ca))
	f.Add(keyPEM)
	f.Fuzz(func(t *testing.T, data []byte) {
		if certs, err := pki.ParseCertificatesPEM(data); err == nil && len(certs) == 0 {
			t.Fatal("no certificates and no error")
		}
		_, _ = pki.ParsePrivateKeyPEM(data)
		_, _ = pki.ParseCSRPEM(data)
	})
}
