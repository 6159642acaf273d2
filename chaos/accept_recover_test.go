package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

const (
	fallenConfig = `apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: dev}
spec: {database: app, mode: transaction, budget: 9}
`
	revokedIdentity = "spiffe://dev.armor.internal/gone"
)

// startFallen starts a cluster of three in front of a PostgreSQL of its own, which will not
// stay whole.
func startFallen(t *testing.T) (*site.Cluster, *site.Postgres) {
	t.Helper()
	a := acceptance(t)
	dir, err := os.MkdirTemp(a.dir, "fallen-")
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "postgres")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(disk, 0o755)); err != nil { // PostgreSQL's user must get through
		t.Fatal(err)
	}
	pg, err := startServer(t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Stop() })
	c, err := site.Prepare(t.Context(), site.Plan{Bin: a.Bin, Dir: dir, Postgres: pg.URL(), Nodes: 3, Config: fallenConfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.StopAll)
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, pg
}

// armordRecover runs it for a node, and returns what it said and its exit code.
func armordRecover(t *testing.T, c *site.Cluster, n *site.Node, flags ...string) (said string, code int) {
	t.Helper()
	args := append([]string{"recover", "--config", filepath.Join(n.Dir, "armord.yaml")}, flags...)
	out, err := exec.Command(filepath.Join(c.Bin, "armord"), args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// statusOf is what of armorctl status is asked about here.
func statusOf(c *site.Cluster) (s struct {
	Era      uint32 `json:"era"`
	Quorum   bool   `json:"quorum"`
	Voters   int    `json:"voters"`
	Revision uint64 `json:"revision"`
	Pools    []struct {
		Granted  int               `json:"granted"`
		Withheld []json.RawMessage `json:"withheld"`
	} `json:"pools"`
}, err error) {
	out, err := c.Armorctl(context.Background(), "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	return s, err
}

func mustKill(t *testing.T, n *site.Node) {
	t.Helper()
	if err := n.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.AwaitEnd()
}

// TestTwoOfThreeLost goes by docs/recover.md: one node goes on alone, and two machines join
// again under the names of those that are lost. What was revoked stays revoked.
func TestTwoOfThreeLost(t *testing.T) {
	c, _ := startFallen(t)
	if out, err := c.Armorctl(t.Context(), "revoke", "--identity", revokedIdentity, "--reason", "key-compromise", "--yes"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	one, two, three := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	if said, code := armordRecover(t, c, one); code != 1 || !strings.Contains(said, "another process runs this node") {
		t.Errorf("while it runs: %d, %s", code, said)
	}
	mustKill(t, two)
	mustKill(t, one)
	if said, code := armordRecover(t, c, one, "--yes"); code != 1 || !strings.Contains(said, "SOMEBODY ANSWERS THERE") {
		t.Errorf("while another member answers: %d, %s", code, said)
	}
	mustKill(t, three)
	said, code := armordRecover(t, c, one)
	for _, words := range []string{"era 1\n", "node n2", "nobody answers there", "is withheld", "admin", "good until", "Nothing was changed", "--yes"} {
		if code != 0 || !strings.Contains(said, words) {
			t.Errorf("exit code %d; %q is not said:\n%s", code, words, said)
		}
	}
	said, code = armordRecover(t, c, one, "--yes")
	if code != 0 || !strings.Contains(said, "era 2 begins") || !strings.Contains(said, "join-token create n3") {
		t.Fatalf("exit code %d:\n%s", code, said)
	}
	t.Log(said)
	client, err := c.Demo()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(one); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it serves alone", func() bool { return client.Ping(t.Context(), one) == nil })
	if s, err := statusOf(c); err != nil || s.Era != 2 || !s.Quorum || s.Voters != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	theOldEraHasNoPart(t, c, three, client)
	for _, n := range []*site.Node{two, three} {
		if err := os.RemoveAll(filepath.Join(n.Dir, "data")); err != nil {
			t.Fatal(err)
		}
		if err := c.Join(t.Context(), n, true); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all vote, and nothing is withheld", func() bool {
		s, err := statusOf(c)
		return err == nil && s.Voters == 3 && s.Quorum && len(s.Pools) == 1 && s.Pools[0].Granted == 9 && len(s.Pools[0].Withheld) == 0
	})
	if out, err := c.Armorctl(t.Context(), "revocation", "list"); err != nil || !strings.Contains(string(out), revokedIdentity) {
		t.Errorf("the revocation is lost: %v\n%s", err, out)
	}
}

// theOldEraHasNoPart starts a node with the data that it had: it serves nobody, and the new
// era does not hear of it.
func theOldEraHasNoPart(t *testing.T, c *site.Cluster, old *site.Node, client site.Client) {
	t.Helper()
	if err := c.Start(old); err != nil {
		t.Fatal(err)
	}
	before, err := statusOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if client.Ping(t.Context(), old) == nil {
			t.Fatal("a node of the old era serves")
		}
		site.Sleep(t.Context(), 100*time.Millisecond)
	}
	if s, err := statusOf(c); err != nil || s.Voters != 1 || !s.Quorum || s.Era != before.Era {
		t.Errorf("after it came: %+v, %v", s, err)
	}
	mustKill(t, old)
}
