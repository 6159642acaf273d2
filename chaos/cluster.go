package chaos

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

// cluster is a set of armord processes that `armord dev` prepared and that we run
// ourselves, so that killing one is our doing and nobody restarts it behind our back.
type cluster struct {
	bin   string // folder of armord and armorctl
	dir   string
	env   map[string]string // DIR/env
	nodes []*node
}

// node is one armord process, or the place of one that was killed.
type node struct {
	name string
	port int // client port
	dir  string

	mu      sync.Mutex // guards all below; never held while waiting
	process *process.Process
}

// prepare lets `armord dev` make the cluster's files, identities and configuration,
// and ends it again.
func prepare(ctx context.Context, bin, dir, postgresURL string, nodes int, config string) (*cluster, error) {
	c, dev, err := startDev(ctx, bin, dir, postgresURL, nodes, config)
	if err != nil {
		return nil, err
	}
	return c, dev.Stop(os.Interrupt, 30*time.Second)
}

// startDev starts `armord dev` in dir with a cluster configuration and waits until it is
// ready.
func startDev(ctx context.Context, bin, dir, postgresURL string, nodes int, config string) (*cluster, *process.Process, error) {
	apply := filepath.Join(dir, "chaos.yaml")
	if err := os.WriteFile(apply, []byte(config), 0o600); err != nil {
		return nil, nil, err
	}
	home, log := filepath.Join(dir, "cluster"), filepath.Join(dir, "dev.log")
	cmd := exec.Command(filepath.Join(bin, "armord"), "dev", "--postgres", postgresURL, "--nodes", strconv.Itoa(nodes),
		"--dir", home, "--port", "0", "--apply", apply)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as a service has: the kernel shares processors out by sessions
	dev, err := process.Start(cmd, log)
	if err != nil {
		return nil, nil, fmt.Errorf("start armord dev: %w", err)
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := poll(ready, func() (*cluster, error) {
		if _, err := os.Stat(filepath.Join(home, "ready")); err != nil {
			return nil, err
		}
		return openCluster(bin, home, nodes)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("armord dev (see %s): %w", log, errors.Join(err, dev.Stop(os.Interrupt, 30*time.Second)))
	}
	return c, dev, nil
}

// clusterConfig narrows the pool that `armord dev` makes, so that the budget is tight.
func clusterConfig(budget int) string {
	return fmt.Sprintf(`apiVersion: armor/v1
kind: Pool
metadata: {name: %[1]s, environment: dev}
spec: {database: %[1]s, mode: transaction, budget: %[2]d}
`, appDatabase, budget)
}

func openCluster(bin, home string, nodes int) (*cluster, error) {
	env, err := readEnv(filepath.Join(home, "env"))
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: home, env: env}
	for i := 1; i <= nodes; i++ {
		port, err := strconv.Atoi(env[fmt.Sprintf("NODE%d_PORT", i)])
		if err != nil {
			return nil, fmt.Errorf("%s/env: NODE%d_PORT: %w", home, i, err)
		}
		name := fmt.Sprintf("n%d", i)
		c.nodes = append(c.nodes, &node{name: name, port: port, dir: filepath.Join(home, name)})
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

// start runs the node's process. Its output is appended to the node's log.
func (c *cluster) start(n *node) error {
	cmd := exec.Command(filepath.Join(c.bin, "armord"), "run", "--config", filepath.Join(n.dir, "armord.yaml"), "--until-stdin-ends")
	p, err := process.Start(cmd, filepath.Join(n.dir, "chaos.log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// startAll starts every node and waits until a valid client is served by each.
func (c *cluster) startAll(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := c.start(n); err != nil {
			return err
		}
	}
	return c.awaitServing(ctx, time.Minute)
}

// awaitServing waits until every node serves the demo identity.
func (c *cluster) awaitServing(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.demo()
	if err != nil {
		return err
	}
	for _, n := range c.nodes {
		if _, err := poll(ctx, func() (struct{}, error) { return struct{}{}, client.ping(ctx, n) }); err != nil {
			return fmt.Errorf("%s does not serve: %w", n.name, err)
		}
	}
	return nil
}

// running is the process that we have started last; nil if we have started none.
func (n *node) running() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// signal sends a signal to the node's process; it fails when there is none.
func (n *node) signal(s os.Signal) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("%s is not running", n.name)
	}
	return p.Signal(s)
}

// awaitEnd waits until the process has ended and been reaped.
func (n *node) awaitEnd() {
	if p := n.running(); p != nil {
		<-p.Ended()
	}
}

// pid returns the node's process, whoever started it: we, or `armord dev`.
func (n *node) pid() (int, error) {
	if p := n.running(); p != nil {
		return p.PID(), nil
	}
	path := filepath.Join(n.dir, "armord.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return pid, nil
}

// crashed names the nodes that ended without our doing.
func (c *cluster) crashed() []string {
	var names []string
	for _, n := range c.nodes {
		if p := n.running(); p == nil || !p.Alive() {
			names = append(names, n.name)
		}
	}
	return names
}

// stopAll ends every process that we have started, kindly first, and all at the same time.
func (c *cluster) stopAll() {
	var stops sync.WaitGroup
	for _, n := range c.nodes {
		if p := n.running(); p != nil {
			p.Signal(syscall.SIGCONT)
			stops.Go(func() { p.Stop(syscall.SIGTERM, 20*time.Second) })
		}
	}
	stops.Wait()
}

// armorctl runs the operator's CLI with the context that `armord dev` wrote and
// returns its stdout. A non-zero exit is an *exec.ExitError wrapped with its stderr.
func (c *cluster) armorctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "armorctl"), args...)
	cmd.Env = append(os.Environ(), "ARMOR_CONFIG="+c.env["ARMOR_CONFIG"])
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("armorctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// leader asks the cluster who leads.
func (c *cluster) leader(ctx context.Context) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := c.armorctl(ctx, "node", "list", "-o", "json")
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
		for _, n := range c.nodes {
			if entry.Role == "leader" && entry.Node == n.name {
				return n, nil
			}
		}
	}
	return nil, errors.New("nobody leads")
}
