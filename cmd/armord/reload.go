package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// signals are those that do not end a node. Several of a kind that come at once count as one.
type signals struct {
	reload  <-chan os.Signal
	ignored <-chan os.Signal
}

// heedSignals takes the default action from all signals that a node outlives: for as long as
// the process lives, since one that comes at its very end is not to change its exit code. Who
// reads the log may go: then lines are lost, and that is all (SIGPIPE).
func heedSignals() signals {
	reload, ignored := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	signal.Notify(ignored, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE)
	return signals{reload, ignored}
}

// heed does what signals ask for until stop is called.
func (p *process) heed(s signals) (stop func()) {
	stopped, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Go(func() {
		for {
			select {
			case which := <-s.reload:
				p.reload(which)
			case which := <-s.ignored:
				p.log.Warn("signal ignored", armor.KeySignal, which.String(),
					armor.KeyReason, "armorctl pool pause, resume and node drain do what it does in PgBouncer")
			case <-stopped:
				return
			}
		}
	})
	return func() {
		close(stopped)
		ended.Wait()
	}
}

// reading is what became of one reload.
type reading struct {
	read []string
	kept []error // what was not read again, and why
}

func (r *reading) add(what string, errs ...error) {
	if err := errors.Join(errs...); err != nil {
		r.kept = append(r.kept, errs...)
		return
	}
	r.read = append(r.read, what)
}

// reload reads again all that a node can without ending. Each part that will not do stays
// as it is.
func (p *process) reload(which os.Signal) {
	if p.started.Load() && !p.leaving.begun() {
		p.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
		defer p.ready("")
	}
	var r reading
	p.reloadConfig(&r)
	if n := p.node.Load(); n != nil {
		r.add("server certificate", n.server.reload())
		r.add("node certificate", n.own.reload())
		if c := n.clients.Load(); c != nil {
			r.add("secrets", c.pooler.Reload()...)
		}
	}
	p.metrics.reloaded(len(r.kept) == 0)
	level := levelOf(p.inForce.Log)
	p.level.Set(min(level, p.level.Level())) // these lines are written by the one and by the other
	p.log.Info("read again", armor.KeySignal, which.String(), armor.KeyObjects, strings.Join(r.read, ", "))
	for _, err := range r.kept {
		p.log.Warn("not read again, stays as it was", armor.KeySignal, which.String(), armor.KeyErr, err)
	}
	p.level.Set(level)
}

// reloadConfig follows what a running node can of its file, and names what it cannot.
func (p *process) reloadConfig(r *reading) {
	if p.cfg.file == "" {
		return
	}
	next, err := config.Load(p.cfg.file)
	if err != nil {
		r.add("", err)
		return
	}
	r.add(fmt.Sprintf("%s (log level %s)", p.cfg.file, next.Log.Level))
	later := slices.DeleteFunc(next.Differences(p.inForce), func(name string) bool { return slices.Contains(config.Live, name) })
	if len(later) > 0 {
		p.log.Warn("changed in the file, and followed at the next start only", armor.KeyObjects, strings.Join(later, ", "))
	}
	p.inForce.Log.Level, p.inForce.Drain = next.Log.Level, next.Drain
	p.leaving.setDelay(next.Drain.Delay)
}
