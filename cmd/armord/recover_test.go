package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cluster"
)

// onDisk writes a node's configuration to a file, as recover reads it.
func onDisk(t *testing.T, c home) string {
	t.Helper()
	text, err := yaml.Marshal(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(c.DataDir), "armord.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sumOf is a digest of all files below a folder.
func sumOf(t *testing.T, dir string) [32]byte {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		h.Write(append([]byte(path), b...))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func TestRecoverChangesNothingUntilItIsTold(t *testing.T) {
	s := newSite(t)
	c := oldNode(s)
	file := onDisk(t, c)
	before := sumOf(t, c.DataDir)
	var out, logs bytes.Buffer
	if err := recoverNode(t.Context(), recoverOptions{config: file}, &out, &logs); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"acme (" + s.cluster.ID + "), era 1", "node n1 at " + c.Peer.Advertise, "ann (", "Nothing was changed", file + " --yes"} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("%q is not said:\n%s", words, &out)
		}
	}
	if sumOf(t, c.DataDir) != before {
		t.Error("a dry run changed the data directory")
	}
	err := recoverNode(t.Context(), recoverOptions{config: file, mendTime: true}, &out, &logs)
	if !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "nothing to mend") {
		t.Errorf("time that is right: %v", err)
	}
	if err := recoverNode(t.Context(), recoverOptions{config: file, yes: true}, &out, &logs); err != nil {
		t.Fatal(err)
	}
	log, stop := s.start(c)
	s.soon("it is ready", log, func() bool { return readyz(c) == http.StatusOK })
	if err := stop(); err != nil || strings.Count(log.String(), "in a new era") != 1 {
		t.Errorf("%v\n%s", err, log)
	}
	log, stop = s.start(c)
	s.soon("it is ready again", log, func() bool { return readyz(c) == http.StatusOK })
	if err := stop(); err != nil || strings.Contains(log.String(), "in a new era") {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestRecoverRefusesWhatIsNotThisNodes(t *testing.T) {
	s := newSite(t)
	c := oldNode(s)
	file := onDisk(t, c)
	other := s.sign(s.operator.Leaf.PublicKey, pki.NodeIdentity("acme", "n2"), true)
	another := s.sign(s.operator.Leaf.PublicKey, pki.NodeIdentity("acme", "n1"), true)
	spoil := func(path string, content []byte) func() {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { os.WriteFile(path, was, 0o600) }
	}
	try := func(what string, want error) {
		t.Helper()
		var out bytes.Buffer
		if err := recoverNode(t.Context(), recoverOptions{config: file, yes: true}, &out, &out); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	mend := spoil(c.Peer.CertFile, pki.EncodeCertificatesPEM(other))
	try("another node's certificate", armor.ErrInvalid)
	mend()
	mend = spoil(c.Peer.CertFile, pki.EncodeCertificatesPEM(another))
	try("another key", armor.ErrDenied)
	mend()
	if err := os.RemoveAll(filepath.Join(c.DataDir, "raft")); err != nil {
		t.Fatal(err)
	}
	try("no log", cluster.ErrForgot)
}
