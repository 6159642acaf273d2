package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// opsPort is where a node says whether it is ready.
func opsPort(t *testing.T, n *site.Node) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Dir, "armord.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ops:\n  listen: 127\.0\.0\.1:(\d+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no port of ops in\n%s", text)
	}
	return string(found[1])
}

// newcomers are apps that connect, ask once and leave, over and over.
type newcomers struct {
	app     site.Client
	through *site.Node

	served atomic.Int64
	mu     sync.Mutex
	failed []error
}

func (c *newcomers) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.one(context.WithoutCancel(ctx)); err != nil {
			c.mu.Lock()
			c.failed = append(c.failed, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), err))
			c.mu.Unlock()
			continue
		}
		c.served.Add(1)
	}
}

func (c *newcomers) one(ctx context.Context) error {
	conn, err := c.app.Connect(ctx, c.through)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer site.CloseConn(ctx, conn)
	if err := site.Exec(ctx, conn, "SELECT 1"); err != nil {
		return fmt.Errorf("its only query: %w", err)
	}
	return nil
}

// TestRollingRestartRefusesNoNewClient behind haproxy, which tries no other node when one
// refuses a connection: it must have seen that a node goes before that closes its port.
func TestRollingRestartRefusesNoNewClient(t *testing.T) {
	a := acceptance(t)
	lines := []string{"balance roundrobin", "no option redispatch", "retries 0", "option httpchk GET /readyz"}
	for _, n := range a.Nodes {
		lines = append(lines, fmt.Sprintf("server %s 127.0.0.1:%d check port %s inter 100ms fall 2 rise 2", n.Name, n.Port, opsPort(t, n)))
	}
	c := &newcomers{app: a.demoClient(t), through: &site.Node{Name: "haproxy", Port: haproxy(t, lines...)}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var connecting sync.WaitGroup
	for range 4 {
		connecting.Go(func() { c.run(ctx) })
	}
	drained := func(n *site.Node) { a.ctl(t, "node", "drain", n.Name, "--yes") }
	for i, end := range []func(*site.Node){drained, a.terminate(t), drained} {
		before := c.served.Load()
		a.restart(t, a.Nodes[i], end)
		eventually(t, "others connect meanwhile", func() bool { return c.served.Load() > before+166 })
	}
	stop()
	connecting.Wait()
	for _, err := range c.failed {
		t.Error(err)
	}
	t.Logf("%d connections", c.served.Load())
}
