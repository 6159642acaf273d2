package pki_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// anyCA makes a CA of any kind of key, as a company may have.
func anyCA(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "any"}, NotBefore: now, NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAPeerCAEndorsesItsSuccessor(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	next, nextKey := newCA(t, pki.PeerCA, pki.ClusterDomain("prod"))
	for name, key := range map[string]crypto.Signer{"ECDSA": newKey(t), "Ed25519": edKey, "RSA": rsaKey} {
		old := anyCA(t, key)
		endorsement, err := pki.Endorse(key, "prod", next)
		if err != nil {
			t.Fatal(name, err)
		}
		good := armor.Cluster{Name: "prod", PeerCA: old.Raw, NextPeerCA: next.Raw, Endorsement: endorsement}
		known := []*x509.Certificate{next, old}
		if found, ok := pki.Endorsed(known, good); !ok || !found.Equal(next) {
			t.Errorf("%s: not endorsed", name)
		}
		spoiled := map[string]func(*armor.Cluster){
			"of another cluster": func(c *armor.Cluster) { c.Name = "test" },
			"of another CA":      func(c *armor.Cluster) { c.NextPeerCA = anyCA(t, key).Raw },
			"no CA":              func(c *armor.Cluster) { c.NextPeerCA = []byte("DER") },
			"nobody's":           func(c *armor.Cluster) { c.Endorsement = nil },
			"its own": func(c *armor.Cluster) {
				c.NextPeerCA = anyCA(t, nextKey).Raw
			},
		}
		for fault, spoil := range spoiled {
			c := good
			spoil(&c)
			if _, ok := pki.Endorsed(known, c); ok {
				t.Errorf("%s: endorsed although %s", name, fault)
			}
		}
		if _, ok := pki.Endorsed([]*x509.Certificate{next}, good); ok {
			t.Errorf("%s: endorsed by who is not believed", name)
		}
	}
}
