package chaos

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// pauses are the lengths of SIGSTOP that matter: within a heartbeat, longer than an
// election, around T_new and beyond it.
var pauses = []time.Duration{300 * time.Millisecond, time.Second, 4500 * time.Millisecond, 7 * time.Second}

// nemesis kills or stops one node at a time, the leader more often than others, and
// undoes it, until ctx ends.
type nemesis struct {
	cluster *site.Cluster
	history *History
	random  *rand.Rand
	logf    func(string, ...any)
}

func (m *nemesis) run(ctx context.Context) error {
	for {
		if !site.Sleep(ctx, 2*time.Second+time.Duration(m.random.Int64N(int64(3*time.Second)))) {
			return nil
		}
		if err := m.strike(ctx); err != nil {
			return err
		}
	}
}

// strike breaks one node and mends it; what it has begun it finishes even when ctx
// ends, so that the run ends with every node up.
func (m *nemesis) strike(ctx context.Context) error {
	victim, err := m.cluster.Leader(ctx)
	if err != nil || m.random.IntN(4) == 0 {
		victim = m.cluster.Nodes[m.random.IntN(len(m.cluster.Nodes))]
	}
	if m.random.IntN(2) == 0 {
		return m.kill(ctx, victim)
	}
	return m.pause(ctx, victim, pauses[m.random.IntN(len(pauses))])
}

func (m *nemesis) kill(ctx context.Context, n *site.Node) error {
	begun := m.history.Now()
	down := 500*time.Millisecond + time.Duration(m.random.Int64N(int64(3*time.Second)))
	m.logf("kill -9 %s, restart after %s", n.Name, down.Round(time.Millisecond))
	if err := n.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	n.AwaitEnd()
	site.Sleep(ctx, down)
	err := m.cluster.Start(n)
	m.history.Add(Event{Kind: KindFault, Subject: "kill", Node: n.Name, Start: begun, End: m.history.Now()})
	return err
}

func (m *nemesis) pause(ctx context.Context, n *site.Node, length time.Duration) error {
	begun := m.history.Now()
	m.logf("stop %s for %s", n.Name, length)
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	site.Sleep(ctx, length)
	err := n.Signal(syscall.SIGCONT)
	m.history.Add(Event{Kind: KindFault, Subject: "stop", Node: n.Name, Start: begun, End: m.history.Now()})
	return err
}
