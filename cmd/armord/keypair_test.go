package main

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/pki"
)

// writeTestPair writes a certificate whose files' time is the given hour.
func writeTestPair(t *testing.T, certFile, keyFile string, hour int) {
	t.Helper()
	cert, key, err := pki.NewCA(pki.CAConfig{Kind: pki.ServerCA, CommonName: "test", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, keyFile, string(text))
	put(t, certFile, string(pki.EncodeCertificatesPEM(cert)))
	for _, path := range []string{certFile, keyFile} {
		at := time.Unix(int64(hour)*3600, 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// again lets the pair look at its files at once.
func again(k *keyPair) (*tls.Certificate, error) {
	k.looked.Store(0)
	return k.get()
}

func TestReplacedCertificateIsUsedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	if _, err := openKeyPair(cert, key, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("opened without files")
	}
	writeTestPair(t, cert, key, 1)
	k, err := openKeyPair(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := again(k)
	if same, _ := again(k); same != first {
		t.Error("read again although nothing has changed")
	}
	writeTestPair(t, cert, key, 2)
	second, _ := again(k)
	if second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Error("the old certificate is still in use")
	}
	if err := k.check(); err != nil {
		t.Error(err)
	}
}

func TestBrokenReplacementLeavesTheFormerCertificateInUse(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	writeTestPair(t, cert, key, 1)
	k, err := openKeyPair(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := again(k)
	writeTestPair(t, cert, filepath.Join(dir, "another"), 2) // the key does not fit yet
	if got, err := again(k); err != nil || got != first {
		t.Fatalf("%v, %v", got, err)
	}
	if err := k.check(); err != nil {
		t.Errorf("not ready, although the certificate in use is good: %v", err)
	}
	if k.reload() == nil {
		t.Error("read again, although the files are broken")
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if got, err := again(k); err != nil || got != first {
		t.Fatalf("%v, %v", got, err)
	}
	writeTestPair(t, cert, key, 3)
	if got, _ := again(k); got == first || k.check() != nil || k.reload() != nil {
		t.Errorf("does not recover: %v", k.check())
	}
}

// testChain is a leaf, with or without what issued it, that a template may spoil.
func testChain(t *testing.T, spoilLeaf, spoilIssuer func(*x509.Certificate)) (chain []*x509.Certificate, key crypto.Signer) {
	t.Helper()
	now := time.Now()
	issue := func(subject string, parent *x509.Certificate, parentKey crypto.Signer, spoil func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(-time.Hour),
			NotAfter: now.Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true, DNSNames: []string{"db.test"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if spoil != nil {
			spoil(c)
		}
		if parent == nil {
			parent, parentKey = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}}, key
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
	issuer, issuerKey := issue("issuer", nil, nil, spoilIssuer)
	leaf, key := issue("leaf", issuer, issuerKey, spoilLeaf)
	return []*x509.Certificate{leaf, issuer}, key
}

func writeChain(t *testing.T, certFile, keyFile string, chain []*x509.Certificate, key crypto.Signer) {
	t.Helper()
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, keyFile, string(text))
	put(t, certFile, string(pki.EncodeCertificatesPEM(chain...)))
}

func ended(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotAfter.Add(-2*time.Hour)
}

func TestCertificateThatClientsRefuseNeverReplacesAGoodOne(t *testing.T) {
	for name, test := range map[string]struct {
		leaf, issuer func(*x509.Certificate)
		says         string
	}{
		"expired":            {ended, nil, "expired: the certificate of CN=leaf ended at"},
		"not yet valid":      {func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, nil, "is not valid before"},
		"not for servers":    {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, nil, "serverAuth"},
		"its issuer expired": {nil, ended, "expired: the certificate of CN=issuer ended at"},
	} {
		t.Run(name, func(t *testing.T) {
			log, dir := &syncBuffer{}, t.TempDir()
			cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
			good, goodKey := testChain(t, nil, nil)
			writeChain(t, cert, key, good, goodKey)
			k, err := openKeyPair(cert, key, slog.New(slog.NewTextHandler(log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			first, _ := again(k)
			bad, badKey := testChain(t, test.leaf, test.issuer)
			writeChain(t, cert, key, bad, badKey)
			if err := k.reload(); err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), cert) {
				t.Errorf("reload = %v, want one of %q", err, test.says)
			}
			if got, _ := again(k); got != first || k.check() != nil {
				t.Errorf("the good one is no longer in use, or not ready: %v", k.check())
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, log)
			}
			if alone, err := openKeyPair(cert, key, slog.New(slog.DiscardHandler)); err != nil || alone.check() == nil {
				t.Errorf("the only one there is: %v, and it is ready", err)
			}
		})
	}
}

func TestAnyCertificateReplacesOneThatHasExpired(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	old, oldKey := testChain(t, ended, nil)
	writeChain(t, cert, key, old, oldKey)
	k, err := openKeyPair(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(*x509.Certificate){ended, nil} {
		next, nextKey := testChain(t, spoil, nil)
		writeChain(t, cert, key, next, nextKey)
		if err := k.reload(); err != nil {
			t.Fatal(err)
		}
		if got, _ := k.get(); !got.Leaf.Equal(next[0]) {
			t.Error("the former one is still in use")
		}
	}
	if err := k.check(); err != nil {
		t.Error(err)
	}
}
