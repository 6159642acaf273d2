package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster/memnet"
	"github.com/armordb/armordb/fsm"
)

// lab is a cluster in a bubble: its network, disks and clocks are memory.
type lab struct {
	t        *testing.T
	net      *memnet.Network
	began    time.Time
	key      *ecdsa.PrivateKey // of the operator ada
	timings  Timings
	mistakes *mistakes
	folder   string // for data directories; empty: disks are memory

	mu    sync.Mutex // guards below
	nodes map[armor.NodeID]*labNode
}

// labNode is a node and what stands around it.
type labNode struct {
	*Node
	lab    *lab
	disk   *stores
	clock  *labClock
	holder *labHolder
	// stuck makes the edge stop enforcing.
	stuck  atomic.Bool
	forged atomic.Pointer[forgery] // what others' stolen keys answer to its questions
	cancel context.CancelFunc
	edge   sync.WaitGroup
	done   chan struct{}
	err    error // of Run, once done is closed
}

const labCluster = "0123456789abcdef0123456789abcdef"

var labName = armor.Cluster{ID: labCluster, Name: "Acme", PeerCA: []byte("DER of the peer CA")}

// inBubble runs a test with a lab of the given nodes, the first of which leads.
func inBubble(t *testing.T, nodes int, test func(*testing.T, *lab)) {
	t.Helper()
	bubble(t, func(*lab) {}, nodes, test)
}

func bubble(t *testing.T, prepare func(*lab), nodes int, test func(*testing.T, *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, net: memnet.New(), began: time.Now(), nodes: map[armor.NodeID]*labNode{}, mistakes: &mistakes{}}
		prepare(l)
		defer l.stopAll()
		if nodes > 0 {
			l.bootstrap()
		}
		for i := 2; i <= nodes; i++ {
			l.admit(nodeName(i), true)
		}
		if nodes > 0 {
			l.settle()
		}
		test(t, l)
	})
}

func nodeName(i int) armor.NodeID { return armor.NodeID(fmt.Sprintf("n%d", i)) }

// labClock is the bubble's time, as one machine sees it.
type labClock struct {
	began   time.Time
	wallOff atomic.Int64 // how far the wall clock is ahead
}

func (c *labClock) Boot() time.Duration { return time.Since(c.began) + time.Hour }
func (c *labClock) Wall() time.Time     { return time.Now().Add(time.Duration(c.wallOff.Load())) }

// labHolder opens as many server connections as it may, and takes a while to close.
type labHolder struct {
	mu     sync.Mutex // guards below
	held   map[string]int
	limits map[string]int
	slow   time.Duration // how long closing takes
	frozen bool          // it closes nothing
	wg     sync.WaitGroup

	lab   *lab
	node  armor.NodeID
	blind atomic.Bool // nobody can look
}

// freeze has the node keep what it has, as if its process were stopped, or go on.
func (h *labHolder) freeze(yes bool) {
	h.mu.Lock()
	h.frozen = yes
	limits := h.limits
	h.mu.Unlock()
	if !yes {
		h.SetShares(0, limits)
	}
}

func (h *labHolder) Backends() []armor.HostBackends {
	all := armor.HostBackends{Host: "pg:5432"}
	for _, count := range h.Held() {
		for i := range count {
			all.PIDs = append(all.PIDs, uint32(h.node[1])*1000+uint32(i))
		}
	}
	return []armor.HostBackends{all}
}

// Look sees what all nodes have, also those that are gone from the network.
func (h *labHolder) Look(context.Context, string) (all []armor.HostBackends, err error) {
	if h.blind.Load() {
		return nil, armor.ErrUnavailable
	}
	for _, other := range h.lab.holders() {
		all = append(all, other.Backends()...)
	}
	return all, nil
}

func (l *lab) holders() []*labHolder {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*labHolder
	for _, n := range l.nodes {
		all = append(all, n.holder)
	}
	return all
}

func (h *labHolder) Held() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.held)
}

func (h *labHolder) SetShares(_ uint64, limits map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limits = maps.Clone(limits)
	if h.frozen {
		return
	}
	for pool, limit := range limits {
		if h.held[pool] <= limit {
			h.held[pool] = limit // as busy as can be
			continue
		}
		h.wg.Go(func() { h.close(pool) })
	}
}

func (h *labHolder) close(pool string) {
	time.Sleep(h.slow)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[pool] = min(h.held[pool], h.limits[pool])
}

func (h *labHolder) count(pool string) int { return h.Held()[pool] }

// labCourier carries questions over the lab's network.
type labCourier struct {
	lab  *lab
	from armor.NodeID
}

func (c labCourier) Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	if here := c.lab.get(c.from); here != nil {
		if f := here.forged.Load(); f != nil && f.stolen == to {
			return f.answer(), nil
		}
	}
	if err := c.lab.net.Pass(ctx, c.from, to); err != nil {
		return armor.Freshness{}, err
	}
	there := c.lab.get(to)
	if there == nil {
		return armor.Freshness{}, armor.ErrUnavailable
	}
	answer, err := there.Answer(ctx, q)
	if passed := c.lab.net.Pass(ctx, to, c.from); passed != nil {
		return armor.Freshness{}, passed
	}
	return answer, err
}

func (c labCourier) Ballot(ctx context.Context, to armor.NodeID, term uint64) (armor.Ballot, error) {
	if err := c.lab.net.Pass(ctx, c.from, to); err != nil {
		return armor.Ballot{}, err
	}
	there := c.lab.get(to)
	if there == nil {
		return armor.Ballot{}, armor.ErrUnavailable
	}
	return there.Ballot(term), c.lab.net.Pass(ctx, to, c.from)
}

func (c labCourier) Clock(ctx context.Context, to armor.NodeID) (time.Time, error) {
	if err := c.lab.net.Pass(ctx, c.from, to); err != nil {
		return time.Time{}, err
	}
	there := c.lab.get(to)
	if there == nil {
		return time.Time{}, armor.ErrUnavailable
	}
	shown := there.WallClock()
	return shown, c.lab.net.Pass(ctx, to, c.from)
}

func (c labCourier) Attest(ctx context.Context, to armor.NodeID, revision uint64) (armor.Attestation, error) {
	if err := c.lab.net.Pass(ctx, c.from, to); err != nil {
		return armor.Attestation{}, err
	}
	there := c.lab.get(to)
	if there == nil {
		return armor.Attestation{}, armor.ErrUnavailable
	}
	answer, err := there.Attest(revision)
	if passed := c.lab.net.Pass(ctx, to, c.from); passed != nil {
		return armor.Attestation{}, passed
	}
	return answer, err
}

func (l *lab) get(id armor.NodeID) *labNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[id]
}

func (l *lab) all() []*labNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*labNode
	for i := 1; i <= len(l.nodes)+8; i++ {
		if n := l.nodes[nodeName(i)]; n != nil {
			all = append(all, n)
		}
	}
	return all
}

func newDisk() *stores {
	log := raft.NewInmemStore()
	return &stores{log: log, stable: log, snapshots: raft.NewInmemSnapshotStore()}
}

// start starts a node on a disk.
func (l *lab) start(id armor.NodeID, disk *stores, change func(*Config)) *labNode {
	l.t.Helper()
	n := &labNode{
		lab: l, disk: disk, clock: &labClock{began: l.began},
		holder: &labHolder{held: map[string]int{}, limits: map[string]int{}, slow: 2 * time.Second, lab: l, node: id},
		done:   make(chan struct{}),
	}
	cfg := Config{
		Node: id, Machine: fsm.New(), Network: l.net.Host(id), Courier: labCourier{l, id}, Holder: n.holder,
		Seeds: []armor.NodeID{"n1"}, PeerAddress: string(id) + ":7432", ClientAddress: string(id) + ":6432", OpsAddress: string(id) + ":9432",
		Timings: l.timings, Clock: n.clock, stores: disk, mistakes: l.mistakes, Logger: labLog(id),
	}
	if l.folder != "" {
		cfg.stores, cfg.DataDir = nil, l.dir(id)
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if n.Node, err = New(cfg); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	l.mu.Lock()
	l.nodes[id] = n
	l.mu.Unlock()
	go func() {
		defer close(n.done)
		n.err = n.Run(ctx)
	}()
	n.edge.Go(func() { n.enforce(ctx) })
	return n
}

// dir is a node's data directory, where the lab has any.
func (l *lab) dir(id armor.NodeID) string { return filepath.Join(l.folder, string(id)) }

func labLog(id armor.NodeID) *slog.Logger {
	if os.Getenv("LAB_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With(armor.KeyNode, string(id))
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// enforce stands for the edge: it conforms to each state and says so.
func (n *labNode) enforce(ctx context.Context) {
	for {
		state, superseded := n.Current()
		for n.stuck.Load() && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		n.Enforced(state.Revision, 0)
		select {
		case <-superseded:
		case <-ctx.Done():
			return
		}
	}
}

// stop ends a node gracefully; its disk can be used again.
func (l *lab) stop(n *labNode) error {
	n.cancel()
	<-n.done
	n.edge.Wait()
	n.holder.wg.Wait()
	l.net.Crash(n.cfg.Node)
	l.mu.Lock()
	if l.nodes[n.cfg.Node] == n {
		delete(l.nodes, n.cfg.Node)
	}
	l.mu.Unlock()
	return n.err
}

// crash takes a node off the network at once, and then ends it.
func (l *lab) crash(n *labNode) {
	l.net.Isolate(n.cfg.Node)
	l.net.Crash(n.cfg.Node)
	l.stop(n)
}

func (l *lab) stopAll() {
	l.net.Heal()
	for _, n := range l.all() {
		l.stop(n)
	}
}

// eventually waits in the bubble's time.
func (l *lab) eventually(what string, yes func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !yes(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("never: %s", what)
		}
	}
}

func (l *lab) digest(parts ...string) armor.Digest { return sha256.Sum256(fmt.Append(nil, parts)) }

func (l *lab) certificate(name string, id armor.Identity) armor.Certificate {
	return armor.Certificate{
		ID:          armor.CertID{Issuer: l.digest("peer CA"), Serial: "a" + l.digest("serial", name).Short()},
		Fingerprint: sha256.Sum256([]byte("DER of " + name)), Key: l.digest("key", name), Identity: id,
		NotBefore: l.began.Add(-time.Hour), NotAfter: l.began.Add(365 * 24 * time.Hour),
	}
}

func (l *lab) operator() armor.Operator {
	l.t.Helper()
	var err error
	if l.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		l.t.Fatal(err)
	}
	point, err := l.key.PublicKey.Bytes()
	if err != nil {
		l.t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&l.key.PublicKey)
	if err != nil {
		l.t.Fatal(err)
	}
	c := l.certificate("ada", labName.OperatorIdentity("ada"))
	c.Key = sha256.Sum256(spki)
	return armor.Operator{Name: "ada", Certificate: c, PublicKey: point, Roles: armor.OperatorRoles()}
}

// request makes a signed request of the operator's.
func (l *lab) request(c armor.Command) armor.Request {
	l.t.Helper()
	var id [16]byte
	rand.Read(id[:])
	r := armor.Request{ID: armor.RequestID(fmt.Sprintf("%x", id)), Principal: "ada", Expires: time.Now().Add(10 * time.Minute), Command: c}
	digest := r.SigningDigest(labCluster)
	var err error
	if r.Signature, err = ecdsa.SignASN1(rand.Reader, l.key, digest[:]); err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *lab) bootstrap() {
	l.t.Helper()
	n := l.start("n1", newDisk(), func(c *Config) { c.Seeds = nil })
	err := n.Bootstrap(l.t.Context(), armor.Bootstrap{
		Cluster: labName, Operator: l.operator(),
		Member: armor.Member{
			ID: "n1", Certificate: l.certificate("n1", labName.NodeIdentity("n1")), Voter: true,
			PeerAddress: "n1:7432", ClientAddress: "n1:6432", OpsAddress: "n1:9432",
		},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.do(armor.PutEnvironment{Environment: armor.Environment{Name: "prod"}})
}

// leader waits for a leader that is ready.
func (l *lab) leader() *labNode {
	l.t.Helper()
	var leader *labNode
	l.eventually("a leader", func() bool {
		for _, n := range l.all() {
			if t, err := n.tenure(); err == nil && t.pulse.confirm(l.t.Context()) == nil {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// do makes a change by whoever leads, retrying as a client does.
func (l *lab) do(c armor.Command) armor.Result {
	l.t.Helper()
	r := l.request(c)
	var result armor.Result
	l.eventually("the change "+c.Kind(), func() bool {
		var err error
		result, err = l.leader().Propose(l.t.Context(), r)
		if err != nil && !errors.Is(err, armor.ErrNotLeader) && !errors.Is(err, armor.ErrUncertain) {
			l.t.Fatal(err)
		}
		return err == nil
	})
	return result
}

func (l *lab) own(c armor.Command) {
	l.t.Helper()
	leader := l.leader()
	if _, err := leader.Propose(l.t.Context(), leader.own(c)); err != nil {
		l.t.Fatal(err)
	}
}

// admit takes a node in and starts it.
func (l *lab) admit(id armor.NodeID, voter bool) *labNode {
	l.t.Helper()
	l.invite(id, voter)
	return l.start(id, newDisk(), nil)
}

// admitAs takes a voter in and starts it otherwise.
func (l *lab) admitAs(id armor.NodeID, change func(*Config)) *labNode {
	l.t.Helper()
	l.invite(id, true)
	return l.start(id, newDisk(), change)
}

func (l *lab) invite(id armor.NodeID, voter bool) {
	l.t.Helper()
	l.inviteWith(id, voter, l.certificate(string(id), labName.NodeIdentity(id)))
}

func (l *lab) inviteWith(id armor.NodeID, voter bool, c armor.Certificate) {
	l.t.Helper()
	hash := l.digest("token", string(id))
	der := []byte("DER of " + string(id))
	c.Fingerprint = sha256.Sum256(der)
	l.do(armor.CreateJoinToken{Token: armor.JoinToken{Hash: hash, Node: id, Voter: voter, Expires: time.Now().Add(time.Hour)}})
	l.own(armor.RequestJoin{Token: hash, Request: armor.JoinRequest{
		Node: id, CSR: []byte("CSR"),
		PeerAddress: string(id) + ":7432", ClientAddress: string(id) + ":6432", OpsAddress: string(id) + ":9432",
	}})
	l.do(armor.ApproveJoin{Node: id, Certificate: c, Chain: [][]byte{der, labName.PeerCA}})
}

// settle waits until every node is what it was admitted as, and has a lease.
func (l *lab) settle() {
	l.t.Helper()
	l.eventually("everybody in place", func() bool {
		leader := l.leader()
		state, _ := leader.Current()
		for m := range state.Members.Values() {
			n := l.get(m.ID)
			if n == nil || leader.votes(leader.raft.Load(), m.ID) != m.Voter || n.KeepLive("prod") != nil || n.AdmitNew("prod") != nil {
				return false
			}
		}
		return true
	})
}

func (l *lab) follower() *labNode {
	l.t.Helper()
	leader := l.leader()
	for _, n := range l.all() {
		if n != leader && leader.votes(leader.raft.Load(), n.cfg.Node) {
			return n
		}
	}
	l.t.Fatal("no follower")
	return nil
}

// revocation is some revocation.
func (l *lab) revocation(name string) armor.Revoke {
	return armor.Revoke{Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: l.digest("client key", name)}}, Reason: armor.KeyCompromise}
}

func (l *lab) revokedOn(n *labNode, name string) bool {
	state, _ := n.Current()
	_, found := state.Revokes(armor.Certificate{Key: l.digest("client key", name), Identity: "spiffe://prod.acme/app"}, nil)
	return found
}

// await waits on the leader for a result to be enforced, for at most d.
func (l *lab) await(n *labNode, r armor.Result, d time.Duration) armor.Enforcement {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	defer cancel()
	e, err := n.AwaitEnforced(ctx, r)
	if err != nil {
		l.t.Fatal(err)
	}
	return e
}

func nodeOutcome(t *testing.T, e armor.Enforcement, id armor.NodeID) armor.NodeEnforcement {
	t.Helper()
	for _, n := range e.Nodes {
		if n.Node == id {
			return n
		}
	}
	t.Fatalf("node %s is not among %v", id, e.Nodes)
	return armor.NodeEnforcement{}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
