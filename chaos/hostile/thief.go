package hostile

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	alpnRaft = "armor-raft/1"
	alpnAPI  = "h2"
	// patience is how long the thief waits for one answer.
	patience = time.Second
)

// Config says whose key it is, and whom it is used against.
type Config struct {
	Node    string            // whose key was stolen
	Keys    string            // the folder with its node.crt and node.key
	Listen  string            // its peer address, where the thief answers in its place; empty: nowhere
	Victims map[string]string // peer addresses of the others, by name
	Seed    uint64
	Without []string // acts that it leaves out, by their names in Counts
}

// Thief is the holder of one node's key.
type Thief struct {
	cfg         Config
	certificate tls.Certificate
	raft        *raftMouth
	api         *apiMouth

	mu     sync.Mutex // guards all below; never held while sending
	random *rand.Rand
	counts map[string]Count
	loot   loot
}

// Count is how often something was sent, and how often it was answered without an error.
type Count struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
}

// Open reads the key. Nothing is sent before Run.
func Open(cfg Config) (*Thief, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(cfg.Keys, "node.crt"), filepath.Join(cfg.Keys, "node.key"))
	if err != nil {
		return nil, fmt.Errorf("the key of node %s: %w", cfg.Node, err)
	}
	t := &Thief{
		cfg: cfg, certificate: pair, random: rand.New(rand.NewPCG(cfg.Seed, 7)), counts: map[string]Count{},
		loot: loot{term: 1, index: 1},
	}
	t.raft, t.api = newRaftMouth(t), newAPIMouth(t)
	return t, nil
}

// Run does harm until ctx ends, at every victim at once and, where it has the node's address,
// to all who come. It returns an error only when it could not begin.
func (t *Thief) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	if t.cfg.Listen != "" {
		stop, err := t.answer(&all)
		if err != nil {
			return err
		}
		defer stop()
	}
	for victim := range t.cfg.Victims {
		all.Go(func() { t.spy(ctx, victim) })
		all.Go(func() { t.harm(ctx, t.raft.messages(victim)) })
		all.Go(func() { t.harm(ctx, t.api.calls(victim)) })
	}
	<-ctx.Done()
	t.raft.close()
	t.api.close()
	return nil
}

// An act is one thing that the thief can do to one victim.
type act struct {
	name string
	do   func(ctx context.Context) error
}

// harm does one act after the other: in bursts, so that what works once is done often, and
// with pauses, so that what recovers is met again.
func (t *Thief) harm(ctx context.Context, acts []act) {
	acts = slices.DeleteFunc(acts, func(a act) bool { return slices.Contains(t.cfg.Without, a.name) })
	for ctx.Err() == nil && len(acts) > 0 {
		a := acts[t.chance(len(acts))]
		for range 1 + t.chance(8) {
			t.count(a.name, t.attempt(ctx, a))
		}
		pause(ctx, time.Duration(5+t.chance(120))*time.Millisecond)
	}
}

func (t *Thief) attempt(ctx context.Context, a act) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return a.do(ctx)
}

func (t *Thief) count(name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts[name]
	c.Sent++
	if err == nil {
		c.Answered++
	}
	t.counts[name] = c
}

// Counts is what was sent so far.
func (t *Thief) Counts() map[string]Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]Count{}
	for name, c := range t.counts {
		all[name] = c
	}
	return all
}

// chance is a number below n.
func (t *Thief) chance(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.random.IntN(n)
}

// dial connects to a victim as the stolen node.
func (t *Thief) dial(ctx context.Context, victim, alpn string) (net.Conn, error) {
	address, ok := t.cfg.Victims[victim]
	if !ok {
		return nil, fmt.Errorf("no address of %s is known", victim)
	}
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{t.certificate}, NextProtos: []string{alpn},
		InsecureSkipVerify: true, // a thief does not care who is there
	}}
	return dialer.DialContext(ctx, "tcp", address)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
