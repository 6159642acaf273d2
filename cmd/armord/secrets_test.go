package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// put writes a file.
func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPasswordGoesOnlyToTheHostsOfItsFile(t *testing.T) {
	s := secrets{t.TempDir()}
	put(t, filepath.Join(s.dir, "orders-rw.yaml"), "passwords: [new, old]\nhosts: ['pg1:5432', '/run/pg:5432']\n")
	for _, host := range []string{"pg1:5432", "/run/pg:5432"} {
		if got, err := s.Password("orders-rw", host); err != nil || !slices.Equal(got, []string{"new", "old"}) {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
	for _, host := range []string{"evil:5432", "pg1:5433", "pg1", ""} {
		if got, err := s.Password("orders-rw", host); !errors.Is(err, armor.ErrDenied) || got != nil {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
}

func TestSecretNamesAreNoPaths(t *testing.T) {
	s := secrets{t.TempDir()}
	put(t, filepath.Join(filepath.Dir(s.dir), "node.key"), "passwords: [x]\nhosts: [h:1]\n")
	for _, name := range []armor.SecretName{"../node.key", "/etc/passwd", "a/b", "", "..", "a\x00b"} {
		if _, err := s.Password(name, "h:1"); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := s.CA(name); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("CA %q: %v", name, err)
		}
	}
}

func TestUnfitSecretsAreRefusedAndNeverRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"no hosts":       {"passwords: [hush]\n", armor.ErrInvalid},
		"no passwords":   {"hosts: ['h:1']\n", armor.ErrInvalid},
		"empty password": {"passwords: [hush, '']\nhosts: ['h:1']\n", armor.ErrInvalid},
		"unknown field":  {"passwords: [hush]\nhosts: ['h:1']\nhost: hush\n", armor.ErrInvalid},
		"bare password":  {"hush\n", armor.ErrInvalid},
		"no YAML":        {"passwords: [hush\n", armor.ErrInvalid},
		"empty file":     {"", armor.ErrInvalid},
		"too long":       {"passwords: [hush]\n" + strings.Repeat("#", maxSecret), armor.ErrInvalid},
	} {
		s := secrets{t.TempDir()}
		put(t, filepath.Join(s.dir, "s.yaml"), c.text)
		if _, err := s.Password("s", "h:1"); !errors.Is(err, c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := secrets{t.TempDir()}
	if _, err := s.Password("s", "h:1"); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "s.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Password("s", "h:1"); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a folder: %v", err)
	}
}

func TestSecretsThatOthersCanReadAreRefused(t *testing.T) {
	s := secrets{t.TempDir()}
	path := filepath.Join(s.dir, "s.yaml")
	put(t, path, "passwords: [hush]\nhosts: ['h:1']\n")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Password("s", "h:1"); !errors.Is(err, armor.ErrDenied) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Password("s", "h:1"); err != nil {
		t.Errorf("0400: %v", err)
	}
}

func TestCAFileMustHoldACertificateThatOthersCannotReplace(t *testing.T) {
	s := secrets{t.TempDir()}
	path := filepath.Join(s.dir, "pg-ca.pem")
	put(t, path, "no certificate")
	if _, err := s.CA("pg-ca"); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("garbage: %v", err)
	}
	writeTestPair(t, path, filepath.Join(s.dir, "pg-ca.key"), 1)
	if pool, err := s.CA("pg-ca"); err != nil || pool == nil {
		t.Fatalf("%v", err)
	}
	if err := os.Chmod(path, 0o646); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CA("pg-ca"); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("writable by others: %v", err)
	}
}

func FuzzSecret(f *testing.F) {
	f.Add([]byte("passwords: [a]\nhosts: ['h:1']\n"))
	f.Add([]byte("passwords: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSecret(text)
		if err == nil && (len(s.Hosts) == 0 || len(s.Passwords) == 0 || slices.Contains(s.Passwords, "")) {
			t.Fatalf("%+v", s)
		}
	})
}

func TestClientCertificateMustFitItsKeyAndTheTime(t *testing.T) {
	ca, err := pgtest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s := secrets{t.TempDir()}
	write := func(certificate, key []byte) {
		t.Helper()
		put(t, filepath.Join(s.dir, "pg.crt"), string(certificate))
		put(t, filepath.Join(s.dir, "pg.key"), string(key))
	}
	issue := func(notAfter time.Time) (certificate, key []byte) {
		t.Helper()
		certificate, key, err := ca.Client("app", notAfter)
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	if _, err := s.Certificate("pg"); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("no files: %v", err)
	}
	if _, err := s.Certificate("../pg"); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a path: %v", err)
	}
	good, goodKey := issue(time.Now().Add(time.Hour))
	_, otherKey := issue(time.Now().Add(time.Hour))
	old, oldKey := issue(time.Now().Add(-time.Second))
	early, earlyKey := issue(time.Now().Add(25 * time.Hour))
	for name, c := range map[string]struct {
		certificate, key []byte
		says             string
	}{
		"another's key": {good, otherKey, "pg.crt and pg.key"},
		"no key":        {good, good, "pg.crt and pg.key"},
		"expired":       {old, oldKey, "expired at"},
		"to come":       {early, earlyKey, "not valid before"},
	} {
		write(c.certificate, c.key)
		if _, err := s.Certificate("pg"); !errors.Is(err, armor.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(good, goodKey)
	if got, err := s.Certificate("pg"); err != nil || got.Leaf.Subject.CommonName != "app" {
		t.Errorf("%v, %v", got.Leaf, err)
	}
	if err := os.Chmod(filepath.Join(s.dir, "pg.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Certificate("pg"); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("a key that others can read: %v", err)
	}
}
