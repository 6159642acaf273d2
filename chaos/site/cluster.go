package site

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor/process"
)

// Cluster is a set of armord processes that `armord dev` prepared and that we run
// ourselves, so that killing one is our doing and nobody restarts it behind our back.
type Cluster struct {
	Bin   string // folder of armord and armorctl
	Dir   string
	Env   map[string]string // DIR/env
	Nodes []*Node
}

// Plan says what cluster `armord dev` shall make.
type Plan struct {
	Bin      string // folder of armord and armorctl
	Dir      string // of its files
	Postgres string // URL
	Nodes    int
	Config   string // cluster configuration, in YAML, that adds to what armord dev generates
}

// Prepare lets `armord dev` make the cluster's files, identities and configuration,
// and ends it again.
func Prepare(ctx context.Context, p Plan) (*Cluster, error) {
	c, dev, err := StartDev(ctx, p)
	if err != nil {
		return nil, err
	}
	return c, dev.Stop(os.Interrupt, 30*time.Second)
}

// StartDev starts `armord dev` and waits until it is ready.
func StartDev(ctx context.Context, p Plan) (*Cluster, *process.Process, error) {
	apply, home, log := filepath.Join(p.Dir, "chaos.yaml"), filepath.Join(p.Dir, "cluster"), filepath.Join(p.Dir, "dev.log")
	if err := os.WriteFile(apply, []byte(p.Config), 0o600); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(filepath.Join(p.Bin, "armord"), "dev", "--postgres", p.Postgres, "--nodes", strconv.Itoa(p.Nodes),
		"--dir", home, "--port", "0", "--apply", apply)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as a service has: the kernel shares processors out by sessions
	dev, err := process.Start(cmd, log)
	if err != nil {
		return nil, nil, fmt.Errorf("start armord dev: %w", err)
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := Poll(ready, func() (*Cluster, error) {
		if _, err := os.Stat(filepath.Join(home, "ready")); err != nil {
			return nil, err
		}
		return openCluster(p.Bin, home, p.Nodes)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("armord dev (see %s): %w", log, errors.Join(err, dev.Stop(os.Interrupt, 30*time.Second)))
	}
	return c, dev, nil
}

func openCluster(bin, home string, nodes int) (*Cluster, error) {
	env, err := readEnv(filepath.Join(home, "env"))
	if err != nil {
		return nil, err
	}
	c := &Cluster{Bin: bin, Dir: home, Env: env}
	for i := 1; i <= nodes; i++ {
		port, err := strconv.Atoi(env[fmt.Sprintf("NODE%d_PORT", i)])
		if err != nil {
			return nil, fmt.Errorf("%s/env: NODE%d_PORT: %w", home, i, err)
		}
		name := fmt.Sprintf("n%d", i)
		c.Nodes = append(c.Nodes, &Node{Name: name, Port: port, Dir: filepath.Join(home, name)})
	}
	return c, nil
}

// readEnv reads `export NAME=value` lines.
func readEnv(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	env := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if ok {
			env[name] = strings.Trim(value, `'"`)
		}
	}
	return env, lines.Err()
}

// Start runs the node's process. Its output is appended to the node's log.
func (c *Cluster) Start(n *Node) error {
	cmd := exec.Command(filepath.Join(c.Bin, "armord"), "run", "--config", filepath.Join(n.Dir, "armord.yaml"), "--until-stdin-ends")
	p, err := process.Start(cmd, filepath.Join(n.Dir, "chaos.log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// StartAll starts every node and waits until a valid client is served by each.
func (c *Cluster) StartAll(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := c.Start(n); err != nil {
			return err
		}
	}
	return c.AwaitServing(ctx, time.Minute)
}

// AwaitServing waits until every node serves the demo identity.
func (c *Cluster) AwaitServing(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.Demo()
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if _, err := Poll(ctx, func() (struct{}, error) { return struct{}{}, client.Ping(ctx, n) }); err != nil {
			return fmt.Errorf("%s does not serve: %w", n.Name, err)
		}
	}
	return nil
}

// Without is the cluster as it is without one node, which is no longer ours to judge.
func (c *Cluster) Without(gone *Node) *Cluster {
	rest := &Cluster{Bin: c.Bin, Dir: c.Dir, Env: c.Env}
	for _, n := range c.Nodes {
		if n != gone {
			rest.Nodes = append(rest.Nodes, n)
		}
	}
	return rest
}

// Crashed names the nodes that were started and have ended without our doing.
func (c *Cluster) Crashed() []string {
	var names []string
	for _, n := range c.Nodes {
		if p := n.running(); p != nil && !p.Alive() {
			names = append(names, n.Name)
		}
	}
	return names
}

// StopAll ends every process that we have started, kindly first, and all at the same time.
func (c *Cluster) StopAll() {
	var stops sync.WaitGroup
	for _, n := range c.Nodes {
		if p := n.running(); p != nil {
			p.Signal(syscall.SIGCONT)
			stops.Go(func() { p.Stop(syscall.SIGTERM, 20*time.Second) })
		}
	}
	stops.Wait()
}

// Armorctl runs the operator's CLI with the context that `armord dev` wrote and
// returns its stdout. A non-zero exit is an *exec.ExitError wrapped with its stderr.
func (c *Cluster) Armorctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "armorctl"), args...)
	cmd.Env = append(os.Environ(), "ARMOR_CONFIG="+c.Env["ARMOR_CONFIG"])
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("armorctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// Leader asks the cluster who leads.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := c.Armorctl(ctx, "node", "list", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Node string `json:"node"`
		Role string `json:"role"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("node list: %w", err)
	}
	for _, entry := range list {
		for _, n := range c.Nodes {
			if entry.Role == "leader" && entry.Node == n.Name {
				return n, nil
			}
		}
	}
	return nil, errors.New("nobody leads")
}
