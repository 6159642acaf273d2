package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// Node is one member of the cluster. All methods may be called from any goroutine, at
// any time; before Run has started and after it has ended they answer as a node does
// that knows no leader and has no lease.
type Node struct {
	cfg     Config
	machine *fsm.Machine
	adapter *adapter
	failed  *failure
	latch   *latch
	epoch   uint64

	transport  *transport
	raft       atomic.Pointer[raft.Raft]
	dir        *dataDir // nil when the log is in memory; set before started
	started    chan struct{}
	ended      chan struct{}
	startedAt  time.Time     // set before started is closed
	usableAt   time.Duration // boot instant from which server logins may begin; likewise
	lease      lease
	enforced   enforced
	given      atomic.Pointer[limitsGiven]
	vouched    reminder // whom voters named as the leader: a node that slept through a change of voters learns it from the old ones
	banned     reminder // who is not listened to
	elections  elections
	verifying  atomic.Bool
	retired    atomic.Bool // serves nobody any more
	raised     raised
	recall     recall
	suspicions suspicions
	clocks     clocks
	witness    usesWitness
	divergence divergence
	refreshed  atomic.Int64 // boot clock of the last snapshot that was made because others doubted one
	gossip     atomic.Pointer[gossip]
	tasks      tasks

	office struct {
		sync.Mutex               // guards below
		tenure     *tenure       // nil unless this node leads and is ready
		changed    chan struct{} // closed and replaced when tenure changes
	}
	ask         chan struct{} // asks the leader at once
	clockStands clockState    // what was last said of our clock; watchClocks' own
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, machine: cfg.Machine, failed: newFailure(), epoch: newEpoch(),
		started: make(chan struct{}), ended: make(chan struct{}), ask: make(chan struct{}, 1),
	}
	n.adapter = newAdapter(cfg, n.failed)
	n.office.changed = make(chan struct{})
	n.clocks.init()
	n.given.Store(&limitsGiven{})
	n.tasks.init()
	return n, nil
}

func newEpoch() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if epoch := binary.BigEndian.Uint64(b[:]); epoch != 0 {
			return epoch
		}
	}
}

// Epoch identifies this life of the node: random, and new with each process.
func (n *Node) Epoch() uint64 { return n.epoch }

// Failed is closed when something happened after which the node must not go on, such
// as a failed write to its log. Run returns the cause, at the latest a few seconds
// later: also when the disk hangs.
func (n *Node) Failed() <-chan struct{} { return n.failed.met }

// Run takes part in the cluster until ctx ends: then it hands leadership over, stops
// Raft and closes its files. It returns an error when the node could not begin or had
// to stop, and once every goroutine has ended. Only after a failure of the disk may a
// goroutine that hangs in it be left behind: the process must end then.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.ended)
	n.startedAt = n.cfg.Clock.Wall()
	s, err := n.open()
	if err != nil {
		return err
	}
	run := &run{node: n, stores: s, halt: make(chan struct{})}
	return run.serve(ctx)
}

// open takes hold of the data directory and the log in it.
func (n *Node) open() (*stores, error) {
	if n.cfg.stores != nil {
		return n.cfg.stores, nil
	}
	dir, err := openDataDir(n.cfg.DataDir, n.cfg.Node, n.cfg.Cluster, n.epoch)
	if err != nil {
		return nil, err
	}
	err = finishRecovery(n.cfg.DataDir)
	var s *stores
	if err == nil {
		s, err = openStores(n.cfg.DataDir, n.cfg.Logger)
	}
	if err != nil {
		return nil, errors.Join(err, dir.close(false))
	}
	if err := dir.remembers(s); err != nil {
		return nil, errors.Join(err, s.close(), dir.close(false))
	}
	n.dir = dir
	n.usableAt = n.cfg.Clock.Boot() + dir.wait
	return s, nil
}

// run is one Run in progress.
type run struct {
	node    *Node
	stores  *stores
	raft    *raft.Raft
	leading chan bool     // Raft's word on whether this node leads
	halt    chan struct{} // closed when everything must end
	work    sync.WaitGroup
}

// settleTime is how long Raft may take to stop after a failure before it is left
// behind: its disk hangs.
const settleTime = 3 * time.Second

func (r *run) serve(ctx context.Context) error {
	n := r.node
	if err := r.start(); err != nil {
		return errors.Join(err, r.release(false))
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	// Leadership is handed over while the node still works, so the loops end after it.
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.loops(loops)
	close(n.started)

	select {
	case <-work.Done():
		n.Retire(loops)
	case <-n.failed.met:
		n.cfg.Logger.Error("the node cannot go on", armor.KeyErr, n.failed.cause())
	}
	stop()
	if n.failed.cause() != nil {
		return r.abandon()
	}
	return r.end()
}

// start begins Raft, which replays the newest snapshot before it returns.
func (r *run) start() error {
	n := r.node
	n.latch = newLatch(r.stores, n)
	if err := n.latch.recall(); err != nil {
		return err
	}
	n.transport = newTransport(n.cfg, n)
	r.leading = make(chan bool, 8)
	var err error
	if n.adapter.journal.replayed, err = n.latch.LastIndex(); err != nil {
		return fmt.Errorf("read the log's last index: %w", err)
	}
	machine, err := r.begin()
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), n.transport.Close())
	}
	n.latch.running.Store(true)
	r.raft = machine
	n.raft.Store(machine)
	return nil
}

// begin makes Raft in a goroutine of its own, which ends when the log turns out to be
// damaged.
func (r *run) begin() (*raft.Raft, error) {
	n := r.node
	var machine *raft.Raft
	err := n.failed.cause()
	done := make(chan struct{})
	go func() {
		defer close(done)
		machine, err = raft.NewRaft(r.config(), n.adapter, n.latch, n.latch, r.stores.snapshots, n.transport)
	}()
	<-done
	if cause := n.failed.cause(); cause != nil {
		return nil, cause
	}
	if err != nil {
		err = errors.Join(err, r.unreadableSnapshot())
	}
	return machine, err
}

// unreadableSnapshot says what is wrong with the newest snapshot, if anything is. Raft
// says no more than that it could not be used.
func (r *run) unreadableSnapshot() error {
	all, err := r.stores.snapshots.List()
	if err != nil || len(all) == 0 {
		return err
	}
	_, file, err := r.stores.snapshots.Open(all[0].ID)
	if err == nil {
		err = newAdapter(Config{Machine: fsm.New()}, newFailure()).Restore(file)
	}
	if err == nil || errors.Is(err, fsm.ErrCannotApply) || errors.Is(err, ErrDamaged) {
		return err
	}
	return damaged(filepath.Join(r.stores.dir, "snapshots", all[0].ID), err.Error())
}

func (r *run) config() *raft.Config {
	t := r.node.cfg.Timings
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.node.cfg.Node)
	c.HeartbeatTimeout, c.ElectionTimeout = t.Heartbeat, t.Election
	c.LeaderLeaseTimeout, c.CommitTimeout = t.LeaderLease, t.Commit
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = t.SnapshotInterval, t.SnapshotThreshold, t.TrailingLogs
	c.ShutdownOnRemove = false // a removed node stays up to say so
	c.NoLegacyTelemetry = true
	c.NotifyCh = r.leading
	c.Logger = newDampedLog(r.node.cfg.Logger, "raft", r.node.cfg.mistakes.tellAll)
	return c
}

// loops starts everything that runs beside Raft.
func (r *run) loops(ctx context.Context) {
	n := r.node
	r.work.Go(func() { n.transport.receive(ctx) })
	r.work.Go(func() { n.adapter.journal.write(ctx) })
	r.work.Go(func() { n.lead(ctx, r.leading) })
	r.work.Go(func() { n.followState(ctx) })
	r.work.Go(func() { n.renewals(ctx) })
	r.work.Go(func() { n.recollect(ctx) })
	r.work.Go(func() { n.watchClocks(ctx) })
	r.work.Go(func() { n.latch.follow(ctx) })
	r.work.Go(func() { n.latch.watch(n.cfg.Timings.DiskStall, ctx.Done()) })
	if n.cfg.Holder != nil {
		r.work.Go(func() { n.holdShares(ctx) })
	}
	if n.cfg.Gossip != nil {
		r.work.Go(func() { n.gossips(ctx) })
	}
}

// end stops Raft and closes the files.
func (r *run) end() error {
	n := r.node
	n.snapshotAtEnd(r.raft)
	err := r.raft.Shutdown().Error()
	n.transport.Close()
	n.tasks.wait()
	r.work.Wait()
	n.adapter.journal.drain()
	clean := n.cfg.Holder == nil || len(nonZero(n.cfg.Holder.Held())) == 0
	return errors.Join(err, r.release(clean))
}

// abandon ends as much as can be ended after a failure and does not wait for a disk.
func (r *run) abandon() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.end()
	}()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	return r.node.failed.cause()
}

// release closes the files.
func (r *run) release(clean bool) error {
	var err error
	if r.stores.close != nil {
		err = r.stores.close()
	}
	if d := r.node.dir; d != nil {
		err = errors.Join(err, d.close(clean && err == nil))
	}
	return err
}

// followState acts on each new state: a waiting freshness proof may hold now, a snapshot
// be due sooner or later, and the data directory learns its cluster.
func (n *Node) followState(ctx context.Context) {
	for {
		state, superseded := n.machine.Current()
		n.lease.settle(state.Revision, n.enforced.upTo())
		n.paceSnapshots(n.raft.Load(), state)
		if n.dir != nil && state.Cluster.ID != "" {
			n.belongTo(state.Cluster)
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return
		}
	}
}

// belongTo has the data directory learn its cluster and era.
func (n *Node) belongTo(c armor.Cluster) {
	began, err := n.dir.belongsTo(c)
	if err != nil {
		n.failed.fail(err)
	}
	if began {
		n.cfg.Logger.Warn("the cluster goes on from this node's disk in a new era: nodes of the era before have no part in it, and join anew",
			armor.KeyNode, string(n.cfg.Node), armor.KeyEra, c.Era.String())
	}
}

// Current returns the state in force (armor.Trust).
func (n *Node) Current() (*armor.State, <-chan struct{}) { return n.machine.Current() }

// Leader returns whom this node believes to lead, and whether it believes so of
// anyone.
func (n *Node) Leader() (armor.NodeID, bool) {
	r := n.raft.Load()
	if r == nil {
		return "", false
	}
	_, id := r.LeaderWithID()
	return armor.NodeID(id), id != ""
}

// Status is this node's word about itself as far as the cluster goes; sessions and
// pools are for others to fill in. It takes no lock that is held during I/O, so it
// answers while the disk hangs.
func (n *Node) Status() armor.NodeStatus {
	s := armor.NodeStatus{
		Node: n.cfg.Node, Version: n.cfg.Version, Revision: n.machine.LastCommand(),
		Enforced: n.enforced.upTo(), FreshAge: n.lease.age(n.cfg.Clock), Draining: n.cfg.Draining(),
		PeerAddress: n.cfg.PeerAddress, ClientAddress: n.cfg.ClientAddress, OpsAddress: n.cfg.OpsAddress,
		Role: "stopped", Divergences: n.divergence.count.Load(),
	}
	select {
	case <-n.ended:
		return s
	case <-n.started:
	default:
		return s
	}
	r := n.raft.Load()
	s.StartedAt, s.Term = n.startedAt, r.CurrentTerm()
	s.Leader, _ = n.Leader()
	s.Role = n.role(r)
	s.ClockSkew, s.ClockCompared = n.skew()
	s.Withheld = n.withheld()
	if g := n.gossip.Load(); g != nil {
		s.Gossip = g.alive()
	}
	return s
}

func (n *Node) role(r *raft.Raft) string {
	switch state := r.State(); {
	case state == raft.Leader:
		return "leader"
	case state == raft.Candidate:
		return "candidate"
	case n.votes(r, n.cfg.Node):
		return "follower"
	default:
		return "non-voter"
	}
}

// servers is Raft's latest configuration. It is one atomic load.
func servers(r *raft.Raft) []raft.Server {
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

func (n *Node) votes(r *raft.Raft, node armor.NodeID) bool {
	for _, s := range servers(r) {
		if s.ID == raft.ServerID(node) {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

func (n *Node) voters() int {
	count := 0
	for _, s := range servers(n.raft.Load()) {
		if s.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

// tasks are goroutines that serve a caller who may leave before they end.
type tasks struct {
	mu      sync.Mutex // guards below
	count   int
	closing bool
	idle    *sync.Cond
}

func (t *tasks) init() { t.idle = sync.NewCond(&t.mu) }

// start runs f unless the node is ending.
func (t *tasks) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	t.count++
	go func() {
		defer t.finish()
		f()
	}()
	return true
}

func (t *tasks) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	t.idle.Broadcast()
}

func (t *tasks) wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = true
	for t.count > 0 {
		t.idle.Wait()
	}
}
