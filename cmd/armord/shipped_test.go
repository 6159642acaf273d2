package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/cmd/armord/config"
)

// shipped reads a file of the project by its path from the top level.
func shipped(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// defaults is what a node does whose configuration says no more than it must.
func defaults(t *testing.T) config.Config {
	t.Helper()
	c, err := config.Parse([]byte("node: n1\ncluster: acme\ndataDir: /var/lib/armor\n"), "/etc/armor")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// line returns the only line that begins with the words, without them.
func line(t *testing.T, text, words string) string {
	t.Helper()
	found := ""
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, words+" "); ok {
			if found != "" {
				t.Fatalf("two lines begin with %q", words)
			}
			found = strings.TrimSpace(rest)
		}
	}
	if found == "" {
		t.Fatalf("no line begins with %q", words)
	}
	return found
}

func TestImageExposesTheDefaultPorts(t *testing.T) {
	c := defaults(t)
	var want []string
	for _, listen := range []string{c.Client.Listen, c.Peer.Listen, c.Gossip.Listen, c.Ops.Listen} {
		_, port, _ := strings.Cut(listen, ":")
		want = append(want, port)
	}
	want = slices.Insert(want, 3, want[2]+"/udp")
	if got := line(t, shipped(t, "Dockerfile"), "EXPOSE"); got != strings.Join(want, " ") {
		t.Errorf("EXPOSE %s, and the defaults are %v", got, want)
	}
}

func TestNodesOfTheComposeFileAreConfigured(t *testing.T) {
	for _, node := range []string{"n1", "n2", "n3"} {
		c, err := config.Parse([]byte(shipped(t, "deploy/compose/"+node+".yaml")), "/etc/armor")
		if err != nil {
			t.Errorf("%s: %v", node, err)
		}
		if c.Node != node || c.DataDir != "/var/lib/armor" || c.Peer.Advertise != node+":6433" {
			t.Errorf("%s is configured as %s, in %s, known as %s", node, c.Node, c.DataDir, c.Peer.Advertise)
		}
	}
}

func TestImageFindsTheDefaultConfiguration(t *testing.T) {
	for _, cmd := range []string{"run", "health"} {
		found, _, err := command().Find([]string{cmd})
		if err != nil {
			t.Fatal(err)
		}
		if path := found.Flag("config").DefValue; path != "/etc/armor/armord.yaml" {
			t.Errorf("armord %s reads %s", cmd, path)
		}
	}
	if got := line(t, shipped(t, "Dockerfile"), "VOLUME"); got != "/var/lib/armor" {
		t.Errorf("VOLUME %s", got)
	}
}
