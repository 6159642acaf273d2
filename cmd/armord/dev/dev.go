package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armord/config"
)

// Options are the flags of `armord dev`.
type Options struct {
	Postgres string // URL of the database, with the role that clients will have
	Nodes    int
	Dir      string // for keys, data and logs
	Port     int    // of the load balancer; 0 chooses a free one
	Apply    string // file with the user's cluster configuration, or empty
}

func (o Options) check() error {
	switch {
	case o.Postgres == "":
		return &config.Mistake{Err: errors.New("dev needs --postgres, such as postgres://app:secret@127.0.0.1:5432/app")}
	case o.Nodes < 1 || o.Nodes > 9:
		return &config.Mistake{Err: fmt.Errorf("--nodes %d is not between 1 and 9", o.Nodes)}
	case o.Port < 0 || o.Port > 65535:
		return &config.Mistake{Err: fmt.Errorf("--port %d is not between 0 and 65535", o.Port)}
	}
	return nil
}

// Run runs the cluster until ctx ends or nothing is left to run.
func Run(ctx context.Context, o Options, out, errOut io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	tools, err := findTools()
	if err != nil {
		return err
	}
	server, err := findServer(ctx, o.Postgres)
	if err != nil {
		return err
	}
	dir, err := openFolder(o.Dir, o.Nodes, server.String())
	if err != nil {
		return err
	}
	defer dir.close()
	c := &cluster{tools: tools, server: server, dir: dir, apply: o.Apply, out: out, errOut: errOut}
	if err := c.listen(o.Port); err != nil {
		return err
	}
	return c.run(ctx)
}

// cluster is a running development cluster.
type cluster struct {
	tools       tools
	server      server
	dir         *folder
	apply       string // the user's cluster configuration, or empty
	out, errOut io.Writer

	listener net.Listener
	configs  []config.Config
	targets  []*target

	mu        sync.Mutex // guards all below; never held while waiting
	processes []nodeProcess
	stopping  bool

	watchers sync.WaitGroup // one for each process
}

// listen opens the balancer's port first, so that one in use is told before anything
// is made. The port that 0 chose is chosen again at the next start.
func (c *cluster) listen(port int) error {
	if port == 0 {
		port = c.dir.mark.Port
	}
	if port == 0 {
		var err error
		if port, err = config.ChoosePort(loopback); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port of the load balancer: %w (choose another with --port)", err)
	}
	c.listener = l
	c.dir.mark.Port = port
	return nil
}

const loopback = "127.0.0.1"

// run makes and starts what is needed, announces it, and waits for the end.
func (c *cluster) run(ctx context.Context) error {
	defer c.listener.Close()
	if err := file.Remove(c.dir.in("ready")); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	for _, cfg := range c.configs {
		c.targets = append(c.targets, &target{address: cfg.Client.Listen})
	}
	// The balancer outlives the nodes, so that a draining node's last words reach
	// its clients.
	balancing, endBalancing := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	balancer := &balancer{listener: c.listener, targets: c.targets, log: slog.New(slog.NewTextHandler(c.errOut, nil))}
	g.Go(func() error { return balancer.Run(balancing) })
	err := c.bringUp(ctx)
	if err == nil {
		<-ctx.Done()
		fmt.Fprintln(c.out, "stopping")
	}
	if ctx.Err() != nil {
		err = nil // an interrupt is an orderly end, also in the middle of starting
	}
	err = errors.Join(err, file.Remove(c.dir.in("ready")), c.stopNodes())
	endBalancing()
	return errors.Join(err, g.Wait())
}

// bringUp starts the nodes, creating the cluster at the first time, and announces it.
func (c *cluster) bringUp(ctx context.Context) error {
	first := !c.dir.mark.Made
	if first {
		fmt.Fprintf(c.out, "creating a cluster of %d nodes in %s\n", len(c.configs), c.dir.path)
		if err := c.create(ctx); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.out, "taking up the cluster in %s\n", c.dir.path)
		if err := c.startAll(); err != nil {
			return err
		}
	}
	if err := c.awaitReady(ctx); err != nil {
		return err
	}
	if err := c.applyConfiguration(ctx, first); err != nil {
		return err
	}
	if err := c.awaitServing(ctx); err != nil {
		return err
	}
	return c.announce()
}

// announce records that the cluster is complete and tells the user how to use it.
func (c *cluster) announce() error {
	c.dir.mark.Made = true
	if err := errors.Join(c.dir.save(), c.dir.writeEnv(c.environ())); err != nil {
		return err
	}
	if err := file.Replace(c.dir.in("ready"), nil, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(c.out, `
ready: %d nodes behind %s, in front of PostgreSQL %s at %s
the keys in %s are unencrypted: for development only

  . %s
  psql -c 'select current_user'
  armorctl status

interrupt to stop
`, len(c.configs), c.listener.Addr(), c.server.version, c.server.host, c.dir.path, shellQuote(c.dir.in("env")))
	return nil
}

// environ is what DIR/env holds.
func (c *cluster) environ() environ {
	e := environ{
		{"PGHOST", "localhost"},
		{"PGPORT", strconv.Itoa(c.dir.mark.Port)},
		{"PGUSER", c.server.role},
		{"PGDATABASE", c.server.database},
		{"PGSSLMODE", "verify-full"},
		{"PGSSLCERT", c.dir.in("demo", "client.crt")},
		{"PGSSLKEY", c.dir.in("demo", "client.key")},
		{"PGSSLROOTCERT", c.serverRoot()},
		{"ARMOR_CONFIG", c.operatorContext()},
	}
	for i, cfg := range c.configs {
		_, port, _ := config.SplitAddress(cfg.Client.Listen)
		e = append(e, [2]string{"NODE" + strconv.Itoa(i+1) + "_PORT", strconv.Itoa(port)})
	}
	return e
}

// startAll starts every node that is not running.
func (c *cluster) startAll() error {
	for k := range c.configs {
		if err := c.startNode(k + 1); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts node k and watches it: a node that ends by itself is reported and
// not started again.
func (c *cluster) startNode(k int) error {
	p, err := startNode(c.tools.armord, nodeName(k), c.dir.node(k))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.processes = append(c.processes, p)
	c.mu.Unlock()
	c.watchers.Go(func() {
		how := p.Err()
		c.targets[k-1].down.Store(true)
		if !c.isStopping() {
			fmt.Fprintf(c.errOut, "node %s (pid %d) has ended: %v; see %s\n", p.name, p.PID(), endOf(how),
				filepath.Join(c.dir.node(k), "armord.log"))
		}
	})
	return nil
}

func endOf(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (c *cluster) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// stopPatience is how long a node may take to drain before it is killed.
const stopPatience = 30 * time.Second

// stopNodes ends all nodes together: one after the other, the last ones would wait
// for a quorum that is gone.
func (c *cluster) stopNodes() error {
	c.mu.Lock()
	c.stopping = true
	processes := c.processes
	c.mu.Unlock()
	var g errgroup.Group
	for _, p := range processes {
		g.Go(func() error {
			if !p.Alive() {
				return nil // its watcher has told
			}
			if err := errors.Join(p.Stop(syscall.SIGTERM, stopPatience), p.Err()); err != nil {
				return fmt.Errorf("stop node %s: %w", p.name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	c.watchers.Wait()
	return err
}

// tools are the programs that dev runs: this one, and armorctl beside it. All that
// an operator would do is done by armorctl, so that there is one way to do it.
type tools struct{ armord, armorctl string }

func findTools() (tools, error) {
	self, err := os.Executable()
	if err != nil {
		return tools{}, fmt.Errorf("find this program's file: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "armorctl")
	if !file.Exist(beside) {
		return tools{}, fmt.Errorf("%w: armorctl must lie beside armord, and %s is not there (go build -o %s ./cmd/...)", armor.ErrNotFound,
			beside, filepath.Dir(self))
	}
	return tools{armord: self, armorctl: beside}, nil
}
