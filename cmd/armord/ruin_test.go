package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/cmd/armord/config"
)

func TestEachEndForGoodHasAnExitCode(t *testing.T) {
	for want, err := range map[int]error{
		0: nil,
		1: errors.New("something"),
		2: &config.Mistake{Err: errors.New("something")},
		3: cluster.ErrDamaged,
		4: cluster.ErrDiverged,
		5: cluster.ErrForgot,
	} {
		if err != nil {
			err = errors.Join(fmt.Errorf("cluster: %w", err), errors.New("link: closed"))
		}
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, not %d", err, got, want)
		}
	}
}

// oldNode makes a cluster of one node, stops it, and returns its home.
func oldNode(s *site) home {
	s.t.Helper()
	c := s.config("n1")
	log, stop := s.start(c)
	s.initialise(c, log)
	s.soon("it is ready", log, func() bool { return readyz(c) == http.StatusOK })
	if err := stop(); err != nil {
		s.t.Fatalf("%v\n%s", err, log)
	}
	return c
}

func TestNodeOfADamagedLogEndsInWordsThatHelp(t *testing.T) {
	s := newSite(t)
	c := oldNode(s)
	path := filepath.Join(c.DataDir, "raft", "log.db")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(text, []byte("acme"))
	if at < 0 {
		t.Fatal("the cluster's name is not in the log")
	}
	for ; at >= 0; at = bytes.LastIndex(text[:at], []byte("acme")) {
		text[at] ^= 1
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	err = runNode(t.Context(), c, signals{}, &syncBuffer{})
	if !errors.Is(err, cluster.ErrDamaged) || !strings.Contains(err.Error(), path) || exitCode(err) != 3 {
		t.Fatalf("ended by %v", err)
	}
}

func TestNodeWhoseLogIsGoneDoesNotStart(t *testing.T) {
	for _, lost := range []string{"raft", filepath.Join("raft", "log.db")} {
		s := newSite(t)
		c := oldNode(s)
		if err := os.RemoveAll(filepath.Join(c.DataDir, lost)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // nor at the next try, when the empty files are there
			err := runNode(t.Context(), c, signals{}, &syncBuffer{})
			if !errors.Is(err, cluster.ErrForgot) || exitCode(err) != 5 || !strings.Contains(err.Error(), s.cluster.ID) {
				t.Fatalf("without %s: ended by %v", lost, err)
			}
		}
	}
}
