package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster"
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

// setting returns the value of a setting of the systemd unit.
func setting(t *testing.T, name string) string {
	t.Helper()
	unit := strings.ReplaceAll(shipped(t, "deploy/debian/armord.service"), name+"=", name+" ")
	return line(t, unit, name)
}

func TestUnitLeavesANodeDownThatNeedsAnOperator(t *testing.T) {
	got := setting(t, "RestartPreventExitStatus")
	var want []string
	for _, err := range []error{&config.Mistake{Err: armor.ErrInvalid}, cluster.ErrDamaged, cluster.ErrDiverged, cluster.ErrForgot, cluster.ErrCopy} {
		want = append(want, strconv.Itoa(exitCode(err)))
	}
	if got != strings.Join(want, " ") {
		t.Errorf("it leaves a node down after %s, not after %v", got, want)
	}
	if docs := shipped(t, "docs/operate.md"); !strings.Contains(docs, "`RestartPreventExitStatus="+got+"`") {
		t.Errorf("docs/operate.md does not say RestartPreventExitStatus=%s", got)
	}
}

func TestUnitWaitsForAnOrderlyEnd(t *testing.T) {
	seconds, err := strconv.Atoi(setting(t, "TimeoutStopSec"))
	if err != nil {
		t.Fatal(err)
	}
	if got, least := time.Duration(seconds)*time.Second, 2*(drainPatience+brokenPatience); got < least {
		t.Errorf("TimeoutStopSec=%s, and an end may take %s", got, least)
	}
}

func TestPackagesConfigurationIsRightAndSaysTheDefaults(t *testing.T) {
	c, err := config.Parse([]byte(shipped(t, "deploy/debian/armord.yaml")), "/etc/armor")
	if err != nil {
		t.Fatal(err)
	}
	d := defaults(t)
	for _, pair := range [][2]string{
		{c.DataDir, d.DataDir}, {c.Client.Listen, d.Client.Listen}, {c.Peer.Listen, d.Peer.Listen},
		{c.Gossip.Listen, d.Gossip.Listen}, {c.Ops.Listen, d.Ops.Listen},
	} {
		if pair[0] != pair[1] {
			t.Errorf("it says %s, and the default is %s", pair[0], pair[1])
		}
	}
	if state := setting(t, "StateDirectory"); c.DataDir != "/var/lib/"+state {
		t.Errorf("the data is in %s, and the unit makes %s", c.DataDir, state)
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
