package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/chaos/site"
)

// TestRestoreWhenNoDiskIsLeft goes by docs/recover.md: all nodes and disks are lost, a new node goes on from
// a saved state, and another joins it. What was revoked after the state was saved stays revoked.
func TestRestoreWhenNoDiskIsLeft(t *testing.T) {
	c, _ := startFallen(t)
	state, revoked := filepath.Join(c.Dir, "cluster.snapshot"), filepath.Join(c.Dir, "revoked.jsonl")
	run := func(args ...string) string {
		t.Helper()
		out, err := c.Armorctl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	run("snapshot", "save", state)
	run("revoke", "--identity", revokedIdentity, "--reason", "key-compromise", "--yes")
	run("revocation", "export", revoked)
	one, two := c.Nodes[0], c.Nodes[1]
	restore := []string{"snapshot", "restore", state, "--socket", filepath.Join(one.Dir, "data", "admin.sock"),
		"--peer-ca", filepath.Join(c.Dir, "ca", "dev-peer"), "--yes"}
	refused := func(says string, more ...string) {
		t.Helper()
		if _, err := c.Armorctl(t.Context(), append(restore, more...)...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with %v: %v; %q is not said", more, err, says)
		}
	}
	refused("lives: a node answers", "--revocations", revoked)
	for _, n := range c.Nodes {
		mustKill(t, n)
		if err := os.RemoveAll(filepath.Join(n.Dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	refused("admin.sock", "--revocations", revoked) // nobody waits there
	if err := c.Start(one); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits to be initialised", func() bool {
		_, err := os.Stat(filepath.Join(one.Dir, "data", "admin.sock"))
		return err == nil
	})
	refused("is not revoked in it")
	refused("the state was saved at", "--revocations-lost-since", "2020-01-01T00:00:00Z")
	damaged := filepath.Join(c.Dir, "damaged.snapshot")
	b, err := os.ReadFile(state)
	if err == nil {
		b[len(b)/2] ^= 1
		err = os.WriteFile(damaged, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	restore[2] = damaged
	refused(damaged, "--revocations", revoked)
	restore[2] = state

	client, err := c.Demo()
	if err != nil {
		t.Fatal(err)
	}
	run(append(restore, "--revocations", revoked)...)
	eventually(t, "it serves alone", func() bool { return client.Ping(t.Context(), one) == nil })
	if s, err := statusOf(c); err != nil || s.Era != 2 || !s.Quorum || s.Voters != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if list := run("revocation", "list"); !strings.Contains(list, revokedIdentity) {
		t.Errorf("the revocation is lost:\n%s", list)
	}
	if err := c.Join(t.Context(), two, true); err != nil {
		t.Fatal(err)
	}
	mustKill(t, one)
	if err := c.Start(one); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*site.Node{one, two} {
		eventually(t, n.Name+" serves after a restart of the first", func() bool { return client.Ping(t.Context(), n) == nil })
	}
}
