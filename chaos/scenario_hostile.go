package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/armordb/armordb/chaos/hostile"
	"github.com/armordb/armordb/chaos/site"
)

// The scenario's size. Nodes beyond the third are there for runs that remove one.
const (
	hostileName    = "hostile"
	hostileBudget  = 9
	hostileLedgers = 2
	// canaryTime is how soon after its end everything has to go as if it had never been.
	canaryTime = 30 * time.Second
)

// Keys are whose key is stolen.
var Keys = []string{"follower", "leader", "removed", "non-voter"}

// Hostile gives one node's key to a thief, who answers in that node's place and speaks to all
// others, while apps write, certificates are issued and revoked, and strangers knock.
func Hostile(ctx context.Context, o Options) (Report, error) {
	if !slices.Contains(Keys, o.Key) {
		return Report{}, fmt.Errorf("no node is called %q: choose one of %s", o.Key, strings.Join(Keys, ", "))
	}
	return run(ctx, o, Event{Kind: KindSettings, Subject: hostileName, Budget: hostileBudget, Patience: patienceLive}, besieged)
}

func besieged(ctx context.Context, o Options, history *History) error {
	pg, err := startServer(ctx, filepath.Join(o.Dir, "postgres"))
	if err != nil {
		return err
	}
	defer pg.Stop()
	nodes := 3
	if o.Key == "removed" {
		nodes = 4
	}
	plan := site.Plan{Bin: o.Bin, Dir: o.Dir, Postgres: pg.URL(), Nodes: nodes, Config: clusterConfig(hostileBudget) + strangerConfig}
	c, err := site.Prepare(ctx, plan)
	if err != nil {
		return err
	}
	w := &workload{cluster: c, history: history, seed: o.Seed, dir: filepath.Join(o.Dir, "certificates"), logf: o.Logf}
	defer func() { w.cluster.StopAll() }()
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	s := &siege{workload: w}
	if err := s.begin(ctx, o); err != nil {
		return err
	}
	if err := s.underFire(ctx, o); err != nil {
		return err
	}
	s.canary(ctx)
	if names := w.cluster.Crashed(); len(names) > 0 {
		for _, name := range names {
			history.Add(Event{Kind: KindCrash, Node: name, Start: history.Now()})
		}
		w.cluster.StopAll()
		return w.readPostgres(ctx, pg) // what the others do without them says nothing more
	}
	return w.settle(ctx, pg)
}

// siege is the workload of the nodes whose keys are their own, and the thief.
type siege struct {
	*workload
	thief    *hostile.Thief
	stranger site.Client // whose identity has no grant
	forged   site.Client // of a CA that nobody registered
	revoked  site.Client // revoked before it all
}

// begin makes the clients that nobody may let in, and takes one node's place.
func (s *siege) begin(ctx context.Context, o Options) (err error) {
	if s.stranger, err = s.cluster.IssueTo(ctx, "stranger", filepath.Join(s.dir, "stranger")); err != nil {
		return err
	}
	if s.revoked, err = s.cluster.Issue(ctx, filepath.Join(s.dir, "before")); err != nil {
		return err
	}
	s.revokeFile(ctx, "before", filepath.Join(s.dir, "before", "client.crt"))
	if s.forged, err = forge(s.revoked); err != nil {
		return err
	}
	victim, err := s.choose(ctx, o.Key)
	if err != nil {
		return err
	}
	listen, err := s.evict(ctx, o.Key, victim)
	if err != nil {
		return err
	}
	victims := map[string]string{}
	for _, n := range s.cluster.Nodes {
		if victims[n.Name], err = n.PeerAddress(); err != nil {
			return err
		}
	}
	s.logf("the thief has the key of %s (%s) and speaks to %d nodes", victim.Name, o.Key, len(victims))
	s.thief, err = hostile.Open(hostile.Config{
		Node: victim.Name, Keys: filepath.Join(victim.Dir, "data", "peer"), Listen: listen, Victims: victims, Seed: o.Seed,
		Without: o.Without,
	})
	return err
}

// choose finds the node whose key is stolen.
func (s *siege) choose(ctx context.Context, key string) (*site.Node, error) {
	leader, err := s.cluster.Leader(ctx)
	if err != nil {
		return nil, err
	}
	switch key {
	case "leader":
		return leader, nil
	case "non-voter":
		return s.cluster.Admit(ctx, s.cluster.Nodes[1], "n8", false)
	}
	for _, n := range slices.Backward(s.cluster.Nodes) {
		if n != leader {
			return n, nil
		}
	}
	return nil, errors.New("there is no follower")
}

// evict ends the victim's process, which from now on is not of the cluster that is judged.
// It returns where the thief shall answer in its place.
func (s *siege) evict(ctx context.Context, key string, victim *site.Node) (listen string, err error) {
	if key == "removed" {
		if _, err := s.cluster.Armorctl(ctx, "node", "remove", victim.Name, "--yes"); err != nil {
			return "", err
		}
	}
	if err := victim.Signal(syscall.SIGKILL); err != nil {
		return "", err
	}
	victim.AwaitEnd()
	s.cluster = s.cluster.Without(victim)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := site.Poll(ctx, func() (*site.Node, error) { return s.cluster.Leader(ctx) }); err != nil {
		return "", err
	}
	if err := s.cluster.AwaitServing(ctx, time.Minute); err != nil {
		return "", err
	}
	return victim.PeerAddress()
}

// underFire runs the thief and every client for the run's duration.
func (s *siege) underFire(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	begun := s.history.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.thief.Run(ctx) })
	for id := range hostileLedgers {
		group.Go(func() error { return s.ledger(ctx, id+1) })
	}
	group.Go(func() error { return s.reach(ctx, 10) })
	group.Go(func() error { return s.revoke(ctx, 11) })
	group.Go(func() error { return s.intrude(ctx) })
	group.Go(func() error { return s.watch(ctx) })
	for _, n := range s.cluster.Nodes {
		group.Go(func() error { return s.steady(ctx, n) })
	}
	err := group.Wait()
	counts := s.thief.Counts()
	for name, count := range counts {
		s.history.Add(Event{Kind: KindHarm, Subject: name, Found: count.Sent, Allowed: count.Answered, Start: begun, End: s.history.Now()})
	}
	s.logf("the thief is done: %v", counts)
	return err
}

// canary does what operators do, within canaryTime of the end.
func (s *siege) canary(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, canaryTime)
	defer cancel()
	dir := filepath.Join(s.dir, "canary")
	manifest := filepath.Join(s.dir, "canary.yaml")
	s.does("issue", again(ctx, func() error {
		_, err := s.cluster.Issue(ctx, dir)
		return err
	}))
	s.does("revoke", again(ctx, func() error {
		_, err := s.cluster.Armorctl(ctx, "revoke", "--file", filepath.Join(dir, "client.crt"), "--reason", "superseded", "--yes", "--wait", "leader")
		return err
	}))
	s.does("apply", again(ctx, func() error {
		if err := os.WriteFile(manifest, []byte(clusterConfig(hostileBudget-1)), 0o600); err != nil {
			return err
		}
		_, err := s.cluster.Armorctl(ctx, "apply", "-f", manifest)
		return err
	}))
	s.does("join", func() error {
		_, err := s.cluster.Admit(ctx, s.joinable(), "n9", false)
		return err
	})
}

// again repeats what may fail while a leader is being elected.
func again(ctx context.Context, do func() error) func() error {
	return func() error {
		_, err := site.Poll(ctx, func() (struct{}, error) { return struct{}{}, do() })
		return err
	}
}

// joinable is a node whose configuration another can be made from.
func (s *siege) joinable() *site.Node {
	for _, n := range s.cluster.Nodes {
		if n.Name != "n1" {
			return n
		}
	}
	return s.cluster.Nodes[0]
}

// does records one thing that an operator does.
func (s *siege) does(what string, do func() error) {
	e := Event{Kind: KindCanary, Subject: what, Start: s.history.Now(), Outcome: OK}
	if err := do(); err != nil {
		e.Outcome, e.Detail = Fail, err.Error()
	}
	e.End = s.history.Now()
	s.logf("canary: %s: %s after %s %s", what, e.Outcome, (e.End - e.Start).Round(time.Millisecond), e.Detail)
	s.history.Add(e)
}
