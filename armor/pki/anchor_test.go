package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// An intermediate is as good an anchor as a root, with the root in the client's chain or without.
func TestIntermediateCanBeTheAnchor(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	sub := root.intermediate(t, "sub", nil)
	below := sub.intermediate(t, "below", nil)
	other := rootAuthority(t, "another root", time.Hour)
	crossed := signed(t, sub.cert, other.cert, sub.key, other.key)
	leaf, lower := good(t, sub.cert, sub.key).sign(t), good(t, below.cert, below.key).sign(t)
	known := anchorOf(sub.cert, "sub")
	known.Certificate = pki.AnchorFacts(sub.cert, other.cert, root.cert)
	for name, anchor := range map[string]armor.TrustAnchor{"issuer unknown": anchorOf(sub.cert, "sub"), "issuer known": known} {
		v, err := pki.NewVerifier([]armor.TrustAnchor{anchor})
		if err != nil {
			t.Fatal(err)
		}
		for sent, chain := range map[string][]*x509.Certificate{
			"alone": {leaf}, "with it": {leaf, sub.cert}, "with its root": {leaf, sub.cert, root.cert},
			"with its cross certificate": {leaf, crossed}, "below another": {lower, below.cert}, "the whole": {lower, below.cert, sub.cert, root.cert},
		} {
			chains, err := v.Verify(chain, now)
			if err != nil {
				t.Errorf("%s, %s: %v", name, sent, err)
				continue
			}
			for _, c := range chains {
				if c[len(c)-1] != anchor.Certificate {
					t.Errorf("%s, %s: the chain ends in %+v", name, sent, c[len(c)-1])
				}
			}
		}
		if _, err := v.Verify([]*x509.Certificate{good(t, root.cert, root.key).sign(t), root.cert}, now); err == nil {
			t.Errorf("%s: what the root has signed is let in", name)
		}
	}
	if known.Certificate.ID.Issuer != pki.SPKI(root.cert) || !pki.AnchorFacts(sub.cert, other.cert).ID.Issuer.IsZero() {
		t.Error("the issuer is not the one that signed it")
	}
}

// What is known of an anchor beside its certificate is held against it: whoever could say another
// key would have it spared by a revocation of the key.
func TestAnchorWhoseFactsAreOthersIsLeftOut(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	a := anchorOf(root.cert, "root")
	a.Certificate.Key[0] ^= 1
	if v, err := pki.NewVerifier([]armor.TrustAnchor{a}); err == nil || len(v.Anchors()) != 0 {
		t.Errorf("%d anchors, %v", len(v.Anchors()), err)
	}
}

func TestCAThatCanVouchForNobodyIsNamedSo(t *testing.T) {
	const prefix = armor.Pattern("spiffe://td.acme/app/*")
	large := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8191), E: 65537}
	odd, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*x509.Certificate)
		fault  string
	}{
		"a good one":        {func(*x509.Certificate) {}, ""},
		"one to come":       {func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(time.Hour), now.Add(2*time.Hour) }, ""},
		"ended":             {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "ended at"},
		"no CA":             {func(c *x509.Certificate) { c.IsCA = false }, "is not a CA certificate"},
		"for lists only":    {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, "key usage"},
		"a large key":       {func(c *x509.Certificate) { c.PublicKey = large }, "8192 bits"},
		"an odd curve":      {func(c *x509.Certificate) { c.PublicKey = odd.Public() }, "P-224"},
		"an unknown key":    {func(c *x509.Certificate) { c.PublicKey = nil }, "unknown kind"},
		"by SHA-1":          {func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }, "SHA1"},
		"of servers":        {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "clientAuth"},
		"of an unknown use": {func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 2}) }, "clientAuth"},
		"of any use":        {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, ""},
		"of another domain": {func(c *x509.Certificate) { c.PermittedURIDomains = []string{"acme"} }, "name constraints"},
		"of the domain":     {func(c *x509.Certificate) { c.PermittedURIDomains = []string{"x", "TD.acme"} }, ""},
		"of all below":      {func(c *x509.Certificate) { c.PermittedURIDomains = []string{".acme"} }, ""},
		"of all but it":     {func(c *x509.Certificate) { c.ExcludedURIDomains = []string{".acme"} }, "name constraints"},
		"critical and unknown": {func(c *x509.Certificate) {
			c.UnhandledCriticalExtensions = append(c.UnhandledCriticalExtensions, []int{1, 2})
		}, "critical"},
	}
	for name, c := range cases {
		cert := rootAuthority(t, "root", time.Hour).cert
		c.change(cert)
		got := pki.AnchorFault(cert, prefix, now)
		if (c.fault == "") != (got == "") || !strings.Contains(got, c.fault) {
			t.Errorf("%s: %q, want %q", name, got, c.fault)
		}
	}
}

func TestDefaultPrefixIsTheCAsOwnDomain(t *testing.T) {
	id := &url.URL{Scheme: "spiffe", Host: "acme.internal"}
	for want, cert := range map[armor.Pattern]*x509.Certificate{
		"spiffe://acme.internal/*": {URIs: []*url.URL{id}},
		"spiffe://td/*":            {PermittedURIDomains: []string{"td"}, URIs: []*url.URL{id}},
		"":                         {PermittedURIDomains: []string{".td"}, Subject: pkix.Name{CommonName: "td"}, SerialNumber: big.NewInt(1)},
	} {
		if got := pki.DefaultPrefix(cert); got != string(want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
