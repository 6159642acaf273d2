package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/armordb/armordb/cmd/armord/config"
)

// noDelay ends nodes without waiting for load balancers.
const noDelay = "drain: {delay: 0s}\n"

// fileOf writes a node's configuration down and has it read from there.
func (s *site) fileOf(c home, more string) home {
	s.t.Helper()
	c.file = filepath.Join(s.dir, c.Node, "armord.yaml")
	put(s.t, c.file, "node: "+c.Node+"\ncluster: acme\ndataDir: data\nclient: {listen: '127.0.0.1:0'}\npeer: {listen: '127.0.0.1:0'}\n"+
		"gossip: {listen: '127.0.0.1:0'}\nops: {listen: '127.0.0.1:0'}\n"+more)
	read, err := config.Load(c.file)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Config = read
	return c
}

// sent sends this process a signal and waits until the node's log has so many lines of it.
func (s *site) sent(which syscall.Signal, log *syncBuffer, message string, lines int) {
	s.t.Helper()
	if err := syscall.Kill(os.Getpid(), which); err != nil {
		s.t.Fatal(err)
	}
	s.soon(which.String()+" is heeded", log, func() bool { return strings.Count(log.String(), message) >= lines })
}

func TestHangupReadsAgainWhatANodeCanAndEndsNothing(t *testing.T) {
	s := newSite(t)
	settled := s.config("n1")
	c := s.fileOf(settled, noDelay)
	log, stop := s.start(c)
	s.soon("it says that it is not ready", log, func() bool { return readyz(settled) == http.StatusServiceUnavailable })
	s.sent(syscall.SIGHUP, log, `(log level info)"`, 1) // it is no member yet, and has nothing else
	s.initialise(settled, log)
	s.soon("it is ready", log, func() bool { return readyz(settled) == http.StatusOK })

	writeTestPair(t, settled.Client.CertFile, settled.Client.KeyFile, 2)
	s.sent(syscall.SIGHUP, log, `server certificate, node certificate, secrets"`, 1)
	if !strings.Contains(log.String(), "certificate replaced") {
		t.Errorf("the server certificate was not read again:\n%s", log)
	}

	// What is wrong changes nothing, and keeps nothing else back.
	put(t, c.file, "node: n1\nlog: {level: loud}\n")
	put(t, settled.Client.CertFile, "no certificate")
	s.sent(syscall.SIGHUP, log, "not read again, stays as it was", 2)
	for _, want := range []string{"armord.yaml: cluster", "read certificate " + settled.Client.CertFile, `"objects":"node certificate, secrets"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("not in the log: %s\n%s", want, log)
		}
	}

	// What takes a restart is named.
	s.fileOf(settled, noDelay+"clockSkew: 9s\nlimits: {maxClients: 7}\n")
	s.sent(syscall.SIGHUP, log, `"objects":"clockSkew, limits.maxClients"`, 1)
	s.sent(syscall.SIGUSR1, log, `"signal":"user defined signal 1"`, 1)
	s.sent(syscall.SIGUSR2, log, `"signal":"user defined signal 2"`, 1)
	if readyz(settled) != http.StatusOK {
		t.Errorf("not ready any more:\n%s", log)
	}
	if err := stop(); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
}

func TestLogLevelFollowsTheFile(t *testing.T) {
	s := newSite(t)
	settled := s.config("n1")
	c := s.fileOf(settled, noDelay)
	log, _ := s.start(c)
	s.soon("it is there", log, func() bool { return readyz(settled) != 0 })
	for i, level := range []string{"debug", "error", "info"} {
		s.fileOf(settled, noDelay+"log: {level: "+level+"}\n")
		s.sent(syscall.SIGHUP, log, "(log level "+level+")", 1)
		if got := strings.Count(log.String(), "read again"); got != i+1 {
			t.Errorf("level %s: %d lines, want %d:\n%s", level, got, i+1, log)
		}
	}
}
