//go:build upgrade

package chaos

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/chaos/site"
	"github.com/armordb/armordb/rpc"
)

// firstRelease is the oldest build whose data directories this one takes over.
const firstRelease = "fcc2ccb"

// TestDataOfAnEarlierBuildGoesOn lets a build of ARMOR_UPGRADE_FROM make a cluster and
// revoke a certificate, and this build go on with its files: from the log alone, and
// again from a snapshot that this build wrote. make upgrade runs it; it takes some minutes,
// since Raft makes a snapshot when it sees fit.
func TestDataOfAnEarlierBuildGoesOn(t *testing.T) {
	dir, err := os.MkdirTemp("", "armor-upgrade-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL has a user of its own
		t.Fatal(err)
	}
	pg, err := site.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Stop() })
	before, now := buildOf(t, cmp.Or(os.Getenv("ARMOR_UPGRADE_FROM"), firstRelease)), buildHere(t)
	plan := site.Plan{Bin: before, Dir: dir, Postgres: pg.URL(), Nodes: 3}

	var revoked site.Client
	during(t, plan, func(c *site.Cluster) {
		if revoked, err = c.Issue(t.Context(), filepath.Join(dir, "stolen")); err != nil {
			t.Fatal(err)
		}
		if err := revoked.Ping(t.Context(), c.Nodes[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Armorctl(t.Context(), "revoke", "--file", filepath.Join(dir, "stolen", "client.crt"), "--reason", "superseded", "--yes"); err != nil {
			t.Fatal(err)
		}
	})
	plan.Bin = now
	during(t, plan, func(c *site.Cluster) {
		holds(t, c, revoked)
		fillTheLog(t, c)
		eventuallyWithin(t, 8*time.Minute, "every node has a snapshot", func() bool {
			made, _ := filepath.Glob(filepath.Join(c.Dir, "n*", "data", "raft", "snapshots", "*-*-*", "state.bin"))
			return len(made) >= len(c.Nodes)
		})
	})
	during(t, plan, func(c *site.Cluster) { holds(t, c, revoked) })
}

// during runs a cluster with the plan's programs and files.
func during(t *testing.T, p site.Plan, do func(*site.Cluster)) {
	t.Helper()
	c, dev, err := site.StartDev(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Stop(os.Interrupt, 30*time.Second); err != nil {
			t.Error(err)
		}
	}()
	if err := c.AwaitServing(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	do(c)
}

// holds checks that each node serves who may come in, and refuses who may not.
func holds(t *testing.T, c *site.Cluster, revoked site.Client) {
	t.Helper()
	for _, n := range c.Nodes {
		if err := revoked.Ping(t.Context(), n); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("node %s and the revoked certificate: %v", n.Name, err)
		}
	}
	if out, err := c.Armorctl(t.Context(), "status"); err != nil {
		t.Errorf("status: %v\n%s", err, out)
	}
}

// fillTheLog commits more entries than Raft keeps without a snapshot.
func fillTheLog(t *testing.T, c *site.Cluster) {
	t.Helper()
	const entries, callers = 8400, 24
	client := operatorOf(t, c)
	defer client.Close()
	work := make(chan int)
	var done sync.WaitGroup
	failed := make(chan error, callers)
	for range callers {
		done.Go(func() {
			for i := range work {
				e := armor.Environment{Name: fmt.Sprintf("spare-%d", i%20), MaxLeafLifetime: time.Duration(1+i) * time.Hour}
				if _, err := client.Submit(t.Context(), armor.PutEnvironment{Environment: e}, rpc.SubmitOptions{}); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < entries && err == nil; i++ {
		select {
		case work <- i:
		case err = <-failed:
		}
	}
	close(work)
	done.Wait()
	if err != nil {
		t.Fatal(err)
	}
}

// operatorOf is a client with the certificate of the operator that armord dev made.
func operatorOf(t *testing.T, c *site.Cluster) *rpc.Client {
	t.Helper()
	var file struct {
		Contexts []struct {
			Cluster   string   `yaml:"cluster"`
			Addresses []string `yaml:"addresses"`
			Cert      string   `yaml:"certFile"`
			Key       string   `yaml:"keyFile"`
			PeerCA    string   `yaml:"peerCaFile"`
		} `yaml:"contexts"`
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(c.Env["ARMOR_CONFIG"])
	must(err)
	must(yaml.Unmarshal(text, &file))
	if len(file.Contexts) == 0 {
		t.Fatalf("no context in %s", c.Env["ARMOR_CONFIG"])
	}
	access := file.Contexts[0]
	beside := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(c.Env["ARMOR_CONFIG"]), name)
	}
	certificate, err := tls.LoadX509KeyPair(beside(access.Cert), beside(access.Key))
	must(err)
	ca, err := os.ReadFile(beside(access.PeerCA))
	must(err)
	roots, err := pki.ParseCertificatesPEM(ca)
	must(err)
	client, err := rpc.Open(rpc.ClientConfig{Addresses: access.Addresses, Cluster: access.Cluster, Certificate: certificate, PeerCAs: roots})
	must(err)
	return client
}

func eventuallyWithin(t *testing.T, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := site.Poll(ctx, func() (bool, error) {
		if !holds() {
			return false, errors.New("not yet")
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// buildOf builds the programs of a commit.
func buildOf(t *testing.T, commit string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	execute(t, "..", "git", "worktree", "add", "--detach", tree, commit)
	t.Cleanup(func() { execute(t, "..", "git", "worktree", "remove", "--force", tree) })
	return buildIn(t, tree)
}

func buildHere(t *testing.T) string { return buildIn(t, "..") }

func buildIn(t *testing.T, tree string) string {
	t.Helper()
	bin := t.TempDir() + string(filepath.Separator)
	execute(t, tree, "go", "build", "-o", bin, "./cmd/...")
	return bin
}

func execute(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
