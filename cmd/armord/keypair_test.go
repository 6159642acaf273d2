package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
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
	if k.check() == nil {
		t.Error("ready, although the files are broken")
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if got, err := again(k); err != nil || got != first {
		t.Fatalf("%v, %v", got, err)
	}
	writeTestPair(t, cert, key, 3)
	if got, _ := again(k); got == first || k.check() != nil {
		t.Errorf("does not recover: %v", k.check())
	}
}
