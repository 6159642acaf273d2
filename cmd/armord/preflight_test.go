package main

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/armordb/armordb/cmd/armord/config"
)

// TestANodeThatCannotServeDoesNotAskToJoin: it names the port or the file that is in the way.
func TestANodeThatCannotServeDoesNotAskToJoin(t *testing.T) {
	dir := t.TempDir()
	cfg, err := config.Parse([]byte("node: n2\ncluster: acme\ndataDir: "+dir+"\nclient: {listen: '127.0.0.1:0'}\n"+
		"peer: {listen: '127.0.0.1:0'}\ngossip: {listen: '127.0.0.1:0'}\nops: {listen: '127.0.0.1:0'}\n"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.SettlePorts(); err != nil {
		t.Fatal(err)
	}
	c := home{Config: cfg}
	check := func() error { return c.preflight(slog.New(slog.DiscardHandler)) }
	if err := check(); err == nil || !strings.Contains(err.Error(), "server.crt") {
		t.Errorf("without a certificate: %v", err)
	}
	writeTestPair(t, c.Client.CertFile, c.Client.KeyFile, 1)
	if err := check(); err != nil {
		t.Fatalf("with all that it needs: %v", err)
	}
	for field, address := range map[string]string{
		"client.listen": c.Client.Listen, "peer.listen": c.Peer.Listen, "gossip.listen": c.Gossip.Listen,
	} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(); err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s is taken: %v", field, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(); err != nil {
		t.Errorf("once they are free again: %v", err)
	}
}
