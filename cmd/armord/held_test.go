package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// ending makes a certificate that ends in so long, of a parent or of itself.
func ending(t *testing.T, in time.Duration, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: fmt.Sprint("hush ", in)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(in - 1000*time.Hour), NotAfter: time.Now().Add(in),
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// putPair writes a client certificate with its chain, and its key.
func (s secrets) putPair(t *testing.T, name string, key crypto.Signer, chain ...*x509.Certificate) {
	t.Helper()
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.dir, name+".key"), string(text))
	put(t, filepath.Join(s.dir, name+".crt"), string(pki.EncodeCertificatesPEM(chain...)))
}

// needing is a state whose pools need secrets.
func needing(databases ...armor.Database) *armor.State {
	s := &armor.State{}
	for _, d := range databases {
		d.Environment = "dev"
		armor.Databases.Put(s, d)
		armor.Pools.Put(s, armor.Pool{Name: d.Name, Environment: "dev", Database: d.Name})
	}
	return s
}

// Planted mistakes that this catches: the first CA of a list taken for all, the leaf for its chain,
// a certificate that is over left out, and a word of what is in a file told to others.
func TestANodeTellsWhenItsSecretsEndAndNothingOfThem(t *testing.T) {
	s := secrets{t.TempDir()}
	root, rootKey := ending(t, 900*time.Hour, nil, nil)
	sub, subKey := ending(t, 5*time.Hour, root, rootKey)
	leaf, key := ending(t, 10*time.Hour, sub, subKey)
	s.putPair(t, "chained", key, leaf, sub, root)
	over, overKey := ending(t, -time.Hour, nil, nil)
	s.putPair(t, "over", overKey, over)
	s.putPair(t, "mixed", overKey, leaf)
	s.putPair(t, "open", key, leaf)
	if err := os.Chmod(filepath.Join(s.dir, "open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	later, _ := ending(t, 700*time.Hour, nil, nil)
	put(t, filepath.Join(s.dir, "pg-ca.pem"), string(pki.EncodeCertificatesPEM(over, later, leaf)))

	role := func(names ...armor.SecretName) (roles []armor.RoleAuth) {
		for _, n := range names {
			roles = append(roles, armor.RoleAuth{Role: string(n), Certificate: n, Secret: "password"})
		}
		return roles
	}
	found, more := s.held(needing(
		armor.Database{Name: "a", CA: "pg-ca", Roles: role("chained", "over", "missing")},
		armor.Database{Name: "b", CA: "pg-ca", Roles: role("mixed", "open", "../node")}))
	want := map[string]struct {
		ends  time.Time
		fault string
		pools int
	}{
		"ca pg-ca":       {later.NotAfter, "", 2},
		"client chained": {sub.NotAfter, "", 1},
		"client over":    {over.NotAfter, "", 1},
		"client missing": {time.Time{}, "its file is missing", 1},
		"client mixed":   {time.Time{}, "its files are of no use", 1},
		"client open":    {time.Time{}, "the mode of its file lets others at it", 1},
		"client ../node": {time.Time{}, "its files are of no use", 1},
	}
	if len(found) != len(want) || more != 0 {
		t.Errorf("%d found, and %d more", len(found), more)
	}
	for _, h := range found {
		w := want[h.Kind+" "+h.Name]
		if !h.NotAfter.Equal(w.ends) || h.Fault != w.fault || len(h.Pools) != w.pools {
			t.Errorf("%+v, want %+v", h, w)
		}
	}
	if text := fmt.Sprintf("%+v", found); strings.Contains(text, "hush") || strings.Contains(text, s.dir) {
		t.Errorf("more is told than names and times: %s", text)
	}
	for i := 1; i < len(found); i++ {
		if found[i].NotAfter.Before(found[i-1].NotAfter) {
			t.Errorf("%s %s is behind %s", found[i].Kind, found[i].Name, found[i-1].Name)
		}
	}
}

func TestANodeTellsOfSoManySecretsOnly(t *testing.T) {
	var all []armor.Database
	for i := range armor.MaxHeld + 30 {
		all = append(all, armor.Database{Name: fmt.Sprint("d", i), CA: armor.SecretName(fmt.Sprint("ca-", i))})
	}
	for range 20 {
		all = append(all, armor.Database{Name: fmt.Sprint("same", len(all)), CA: "ca-0"})
	}
	found, more := secrets{t.TempDir()}.held(needing(all...))
	if len(found) != armor.MaxHeld || more != 30 {
		t.Errorf("%d, and %d more", len(found), more)
	}
	if found[0].Name != "ca-0" || len(found[0].Pools) != armor.MaxHeldPools {
		t.Errorf("%+v", found[0])
	}
}

func TestTheServersCertificateIsToldWithItsChainsEnd(t *testing.T) {
	s := secrets{t.TempDir()}
	root, rootKey := ending(t, 900*time.Hour, nil, nil)
	sub, subKey := ending(t, 5*time.Hour, root, rootKey)
	leaf, key := ending(t, 10*time.Hour, sub, subKey)
	s.putPair(t, "server", key, leaf, sub)
	k, err := openKeyPair(filepath.Join(s.dir, "server.crt"), filepath.Join(s.dir, "server.key"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if h := k.held(); h.Kind != armor.HeldServer || h.Name != "" || !h.NotAfter.Equal(sub.NotAfter) || h.Fault != "" {
		t.Errorf("%+v", h)
	}
	over, overKey := ending(t, -time.Hour, nil, nil)
	s.putPair(t, "server", overKey, over)
	_ = k.reload()
	if h := k.held(); !h.NotAfter.Equal(sub.NotAfter) || !strings.Contains(h.Fault, "the former stays in use") {
		t.Errorf("after one that is over: %+v", h)
	}
}

func FuzzSpanOfAListOfCAs(f *testing.F) {
	cert, _, err := pki.NewCA(pki.CAConfig{Kind: pki.ServerCA, CommonName: "test", Lifetime: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pki.EncodeCertificatesPEM(cert, cert))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		begins, ends := spanOfList(text)
		if known := x509.NewCertPool().AppendCertsFromPEM(text); !known && !ends.IsZero() {
			t.Errorf("%s to %s of no certificate", begins, ends)
		}
	})
}
