package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/cmd/armord/config"
)

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "run a node",
		Long: `Runs a node until it is asked to end: by SIGTERM or an interrupt, once for an orderly
end, twice for one at once. A node that belongs to no cluster yet asks for admission
when join.addresses is set, and else waits for armorctl init on its admin socket.`,
		Args: noArgs,
	}
	path := configFlag(cmd)
	attached := cmd.Flags().Bool("until-stdin-ends", false, "also end when standard input does")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		heeded := heedSignals()
		cfg, err := config.Load(*path)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if *attached {
			ctx = untilEnd(ctx, cmd.InOrStdin())
		}
		stop := make(chan struct{})
		var bounded sync.WaitGroup
		bounded.Go(func() { boundGarbage(stop) })
		defer bounded.Wait()
		defer close(stop)
		return runNode(ctx, home{cfg, *path}, heeded, cmd.ErrOrStderr())
	}
	return cmd
}

// untilEnd returns a ctx that also ends when r does. The goroutine that reads it can
// be ended by nobody but the other side, and so lives until the process ends.
func untilEnd(ctx context.Context, r io.Reader) context.Context {
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		_, err := io.Copy(io.Discard, r)
		end(fmt.Errorf("%w: standard input has ended: %w", armor.ErrShuttingDown, errors.Join(io.EOF, err)))
	}()
	return ctx
}

// runNode runs a node until ctx ends or it cannot go on.
func runNode(ctx context.Context, cfg home, s signals, logs io.Writer) error {
	asRead := cfg.Config
	if err := cfg.makeFolders(); err != nil {
		return err
	}
	if err := cfg.SettlePorts(); err != nil {
		return err
	}
	asked, end := context.WithCancel(ctx)
	defer end()
	// What runs here hears that it is to end only when the others have been told.
	ctx, told := context.WithCancelCause(context.WithoutCancel(asked))
	defer told(nil)
	p := &process{cfg: cfg, inForce: asRead, end: end}
	p.level.Set(levelOf(cfg.Log))
	p.leaving.setDelay(cfg.Drain.Delay)
	p.log = newLogger(cfg.Log, &p.level, logs, armor.NodeID(cfg.Node))
	p.metrics = newMetrics(p.status)
	listener, err := net.Listen("tcp", cfg.Ops.Listen)
	if err != nil {
		return fmt.Errorf("listen for health and metrics: %w", err)
	}
	probes := func() []probe { return readiness(p.status, p.admits, p.hasCertificate, cfg.Ops.ReadyPools) }
	health := newOps(listener, probes, p.metrics.handler(), cfg.Ops.Pprof, p.log)
	p.metrics.registry.MustRegister(doorsCollector{func() map[string]door.Counts { return p.doors(health) }})
	defer context.AfterFunc(asked, func() {
		p.leave()
		told(context.Cause(asked))
	})()
	defer p.heed(s)()
	return runStages(ctx, []stage{{"health", health.Run}, {"node", p.runMember}}, drainPatience+brokenPatience, p.log)
}

// process is the node's process, before and after it is a member.
type process struct {
	cfg     home
	inForce config.Config // the file as it is followed; the goroutine's that heeds signals
	level   slog.LevelVar
	log     *slog.Logger
	metrics *metrics
	end     func() // has the node end as by a signal
	leaving leaving
	started atomic.Bool          // systemd has been told
	node    atomic.Pointer[node] // nil until the node is enrolled
}

// leave says to load balancers, to the cluster and to systemd that we are going.
func (p *process) leave() {
	p.leaving.begin()
	d, _ := p.leaving.left()
	p.log.Info("leaving: not ready any more, and new clients are served for the time that load balancers take", armor.KeyTook, d)
	p.notify(daemon.SdNotifyStopping)
}

// ready tells systemd that the node does what it was started for.
func (p *process) ready(more string) {
	p.started.Store(true)
	p.notify(daemon.SdNotifyReady + more)
}

// notify tells systemd, if it has started us.
func (p *process) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn("cannot tell systemd", armor.KeyReason, state, armor.KeyErr, err)
	}
}

// runMember enrols the node if it has to, and runs it.
func (p *process) runMember(ctx context.Context) error {
	f, err := p.enrol(ctx)
	if ctx.Err() != nil {
		if f != nil {
			f.conclude(armor.ErrShuttingDown)
		}
		return nil // asked to end while it waited for somebody
	}
	if err != nil {
		return err
	}
	n, err := newNode(p.cfg, p.metrics, &p.leaving, func() { p.ready("") }, p.log)
	if err != nil {
		if f != nil {
			f.conclude(err)
		}
		return err
	}
	n.shutdown = p.end
	p.node.Store(n)
	return n.run(ctx, f)
}

// enrol makes sure that the node has what a member needs. The founding is nil unless
// this node has yet to make its cluster.
func (p *process) enrol(ctx context.Context) (*founding, error) {
	f, err := p.cfg.begunFounding()
	switch {
	case err != nil || f != nil:
		return f, err
	case p.cfg.enrolled():
		return nil, p.cfg.preflight(p.log)
	}
	if err := cluster.DropRestore(p.cfg.DataDir); err != nil {
		return nil, err
	}
	waiting := func() { p.ready("\nSTATUS=waiting to become a member") }
	if len(p.cfg.Join.Addresses) > 0 {
		return nil, p.cfg.join(ctx, waiting, p.log)
	}
	return p.cfg.awaitInit(ctx, waiting, p.log)
}

// status is the node's word about itself, also while it is none yet.
func (p *process) status() armor.NodeStatus {
	if n := p.node.Load(); n != nil {
		return (*api)(n).Status()
	}
	return armor.NodeStatus{Node: armor.NodeID(p.cfg.Node), Version: version, FreshAge: -1, Draining: p.leaving.begun()}
}

// doors are what the doors of all ports have seen, also while the node is none yet.
func (p *process) doors(health *ops) map[string]door.Counts {
	all := map[string]door.Counts{}
	if n := p.node.Load(); n != nil {
		all = n.doors()
	}
	all[portOps] = health.door.Counts()
	return all
}

// admits is for /readyz: why no new client can be served.
func (p *process) admits() error {
	n := p.node.Load()
	if n == nil {
		return fmt.Errorf("%w: this node belongs to no cluster yet", armor.ErrStale)
	}
	if n.clients.Load() == nil {
		return fmt.Errorf("%w: this node has not heard from its cluster yet", armor.ErrStale)
	}
	return n.cluster.AdmitNew("")
}

func (p *process) hasCertificate() error {
	if n := p.node.Load(); n != nil {
		return n.server.check()
	}
	return nil
}
