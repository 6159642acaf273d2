package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
	"github.com/armordb/armordb/rpc"
)

const fakeCluster = "Acme"

// fakeNode is a one-node cluster in this process: the real state machine and the real
// API server, over real TLS connections, and no consensus. Its admin socket waits for
// armorctl init, as a new node's does.
type fakeNode struct {
	t      *testing.T
	key    crypto.Signer
	listen net.Listener // of the API; served once the node is initialised
	socket string

	machine *fsm.Machine
	served  chan struct{} // closed once init was done
	hanging chan struct{} // takes a value when a proposal begins to hang

	mu       sync.Mutex // guards all below; never held while serving
	index    uint64
	mishaps  mishaps
	started  time.Time
	sessions []armor.SessionInfo
	denials  map[string]armor.DenialRecord
	unproven []armor.Unproven
	held     []armor.HeldCertificate
	pools    map[string]armor.PoolStatus // what was switched
	chain    tls.Certificate
}

// mishaps are what goes wrong at the fake.
type mishaps struct {
	noLeader  bool // nobody leads
	uncertain bool // what is proposed is applied, and the answer lost
	silent    bool // a second node neither enforces nor can be known to have fenced itself
	fenced    bool // a second node has fenced itself
	damaged   bool // a verification finds damage
	differs   bool // it attests to another state than it sends
	hung      bool // proposals are never answered
	// clockAhead is how far the node's clock is.
	clockAhead time.Duration
}

// startFake runs a node until the test ends.
func startFake(t *testing.T, dir string) *fakeNode {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{
		started: time.Now().Add(-time.Hour),
		t:       t, key: key, listen: l, socket: filepath.Join(dir, "admin.sock"),
		machine: fsm.New(), served: make(chan struct{}), hanging: make(chan struct{}, 100), denials: map[string]armor.DenialRecord{},
	}
	admin, err := rpc.ListenInit(n.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.check(rpc.ServeInit(ctx, admin, n, nil)) })
	running.Go(func() { n.check(n.serve(ctx)) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return n
}

func (n *fakeNode) check(err error) {
	if err != nil {
		n.t.Error(err)
	}
}

// serve answers operators once the node is initialised.
func (n *fakeNode) serve(ctx context.Context) error {
	select {
	case <-n.served:
	case <-ctx.Done():
		return nil
	}
	peers := rpc.NewPeers(nobody{})
	server, err := rpc.NewServer(rpc.ServerConfig{Node: n, Peers: peers})
	if err != nil {
		return err
	}
	err = server.Serve(ctx, &handshaking{Listener: n.listen, config: n.tlsConfig()})
	return errors.Join(err, peers.Close())
}

func (n *fakeNode) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: n.certificate, NextProtos: []string{rpc.ALPN},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			state, _ := n.Current()
			cas, err := parsePeerCAs(state.Cluster)
			if err == nil {
				_, err = pki.VerifyPeer(cas, fakeCluster, s.PeerCertificates, time.Now())
			}
			return err
		},
	}
}

// certificate is what the node was admitted with, or the one that renewed it.
func (n *fakeNode) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	state, _ := n.Current()
	chain := n.chain
	if m, _ := state.Members.Get(string(n.ID())); len(m.Chain) > 0 {
		chain.Certificate = m.Chain
	}
	return &chain, nil
}

// handshaking hands out connections whose handshake is over.
type handshaking struct {
	net.Listener
	config *tls.Config
}

func (l *handshaking) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := tls.Server(raw, l.config)
		if err := c.Handshake(); err == nil {
			return c, nil
		}
		c.Close()
	}
}

// startMute listens where nobody ever says a word; each connection is told to met.
func startMute(t *testing.T) (address string, met <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	knocks := make(chan struct{}, 100)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			knocks <- struct{}{}
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
	})
	return l.Addr().String(), knocks
}

// nobody is a network on which no other node answers.
type nobody struct{}

func (nobody) Dial(context.Context, armor.NodeID, string) (net.Conn, error) {
	return nil, fmt.Errorf("%w: connection refused", armor.ErrUnavailable)
}

// --- rpc.Initializer

func (n *fakeNode) Identify(context.Context) (rpc.InitIdentity, error) {
	csr, err := pki.NewCSR(n.key, pki.NodeIdentity(fakeCluster, n.ID()))
	address := n.listen.Addr().String()
	return rpc.InitIdentity{Node: n.ID(), Cluster: fakeCluster, PeerAddress: address, ClientAddress: "127.0.0.1:6432",
		OpsAddress: "127.0.0.1:6435", CSR: csr}, err
}

func (n *fakeNode) Initialize(ctx context.Context, d rpc.InitData) error {
	ca, err := x509.ParseCertificate(d.Bootstrap.Cluster.PeerCA)
	if err != nil {
		return err
	}
	chain := []*x509.Certificate{}
	for _, der := range d.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, cert)
	}
	own, err := pki.VerifyPeer([]*x509.Certificate{ca}, fakeCluster, chain, time.Now())
	if err != nil || own.Kind != pki.Node || own.Name != string(n.ID()) {
		return fmt.Errorf("%w: node certificate of %s %q: %w", armor.ErrInvalid, own.Kind, own.Name, err)
	}
	if len(d.GossipKey) != 32 {
		return fmt.Errorf("%w: gossip key of %d bytes", armor.ErrInvalid, len(d.GossipKey))
	}
	if _, err := n.ProposeOwn(ctx, d.Bootstrap); err != nil {
		return err
	}
	n.chain = tls.Certificate{Certificate: d.Chain, PrivateKey: n.key}
	close(n.served)
	return nil
}

// Restore is refused: what a node does with a saved state is for real nodes to show.
func (n *fakeNode) Restore(context.Context, rpc.RestoreData, []armor.Revocation, io.Reader) error {
	return fmt.Errorf("%w: node %s restores nothing", armor.ErrUnavailable, n.ID())
}

// --- rpc.Node

func (n *fakeNode) Current() (*armor.State, <-chan struct{}) { return n.machine.Current() }

func (n *fakeNode) WallClock() time.Time { return time.Now() }

func (n *fakeNode) ID() armor.NodeID { return "n1" }

func (n *fakeNode) Leader() (armor.NodeID, bool) { return "n1", !n.mishap().noLeader }

func (n *fakeNode) Verify(context.Context, uint64) (armor.Verification, error) {
	v := armor.Verification{Node: "n1", Mark: n.machine.Mark(), Entries: 3, Snapshots: 1}
	if n.mishap().damaged {
		v.Problems = []string{"log entry 2: its checksum does not hold"}
	}
	return v, n.machine.Verify()
}

func (n *fakeNode) Ballot(term uint64) armor.Ballot { return armor.Ballot{Term: term} }

func (n *fakeNode) mishap() mishaps {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mishaps
}

func (n *fakeNode) setMishap(change func(*mishaps)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.mishaps)
}

func (n *fakeNode) Propose(ctx context.Context, r armor.Request) (armor.Result, error) {
	m := n.mishap()
	if m.noLeader {
		return armor.Result{}, &armor.NotLeaderError{}
	}
	if m.hung {
		n.hanging <- struct{}{}
		<-ctx.Done()
		return armor.Result{}, fmt.Errorf("%w: %w", armor.ErrUncertain, ctx.Err())
	}
	if err := n.Validate(r); err != nil {
		return armor.Result{}, err
	}
	result, err := n.apply(r)
	if err == nil && m.uncertain {
		return armor.Result{}, fmt.Errorf("%w: the answer was lost", armor.ErrUncertain)
	}
	return result, err
}

func (n *fakeNode) apply(r armor.Request) (armor.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	entry, err := n.machine.Check(r, time.Now()) // as a leader proposes it
	if err != nil {
		return armor.Result{}, err
	}
	n.index++
	result, err := n.machine.Apply(n.index, 3, entry)
	if err != nil {
		return armor.Result{}, err
	}
	return result, result.Err
}

// poison carries log time into the future, as a clock that was believed could.
func (n *fakeNode) poison(by time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	late := time.Now().Add(by)
	entry, err := fsm.Encode(armor.Request{
		ID: "00000000000000000000000000000bad", Principal: "node/n1", Expires: late, Command: armor.PruneExpired{},
	}, late)
	if err != nil {
		return err
	}
	n.index++
	_, err = n.machine.Apply(n.index, 3, entry)
	return err
}

func (n *fakeNode) ProposeOwn(_ context.Context, c armor.Command) (armor.Result, error) {
	return n.apply(armor.Request{
		ID: rpc.NewRequestID(), Principal: armor.NodePrincipal(n.ID()),
		Expires: time.Now().Add(time.Minute), Command: c,
	})
}

func (n *fakeNode) Begin(ctx context.Context, r armor.Request) error {
	_, err := n.Propose(ctx, r)
	return err
}

func (n *fakeNode) Validate(r armor.Request) error {
	_, err := n.machine.Check(r, time.Now())
	return err
}

// AwaitEnforced closes the sessions that the state revokes, and lets a second node
// fail to confirm when that is the mishap.
func (n *fakeNode) AwaitEnforced(ctx context.Context, r armor.Result) (armor.Enforcement, error) {
	e := armor.Enforcement{Revision: r.Revision, Term: r.Term, CommittedAt: r.Time, Complete: true, Nodes: []armor.NodeEnforcement{
		{Node: "n1", Enforced: true, After: 4200 * time.Microsecond, Closed: n.cutRevoked()},
	}}
	switch m := n.mishap(); {
	case m.silent:
		<-ctx.Done()
		e.Complete = false
		e.Nodes = append(e.Nodes, armor.NodeEnforcement{Node: "n2", FencedBy: r.Time.Add(time.Hour)})
	case m.fenced:
		e.Nodes = append(e.Nodes, armor.NodeEnforcement{Node: "n2", FencedBy: r.Time.Add(-time.Second)})
	}
	return e, nil
}

func (n *fakeNode) cutRevoked() int {
	state, _ := n.machine.Current()
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.sessions)
	n.sessions = slices.DeleteFunc(n.sessions, func(s armor.SessionInfo) bool {
		_, revoked := state.Revokes(s.Certificate, nil)
		return revoked
	})
	return before - len(n.sessions)
}

func (n *fakeNode) Attest(revision uint64) (armor.Attestation, error) {
	mark, _ := n.machine.MarkAt(revision)
	if n.mishap().differs {
		mark.State[0] ^= 1
	}
	return armor.Attestation{Mark: mark}, nil
}

// Save sends the state as a node does.
func (n *fakeNode) Save(_ context.Context, by string, w io.Writer) error {
	o := saved.Origin{Node: n.ID(), Build: "test", Term: 3, At: time.Now(), By: by}
	return saved.Write(w, n.machine.Snapshot(), o, saved.Signer{Kind: pki.Node, Name: string(n.ID()), Chain: n.chain.Certificate, Key: n.key})
}

func (n *fakeNode) Answer(context.Context, armor.Renewal) (armor.Freshness, error) {
	return armor.Freshness{}, &armor.NotLeaderError{}
}

func (n *fakeNode) Status() armor.NodeStatus {
	state, _ := n.machine.Current()
	s := armor.NodeStatus{
		Node: n.ID(), Version: "test", Leader: n.ID(), Role: "leader", Term: 3, Revision: state.Revision, Enforced: state.Revision,
		FreshAge: 120 * time.Millisecond, Sessions: len(n.Sessions()), Gossip: []armor.NodeID{"n1"},
		PeerAddress: n.listen.Addr().String(), ClientAddress: "127.0.0.1:6432", OpsAddress: "127.0.0.1:6435",
		StartedAt: n.startedAt(), ClockCompared: true, ClockSkew: n.mishap().clockAhead,
	}
	if n.mishap().noLeader {
		s.Role, s.Leader, s.FreshAge = "candidate", "", -1
	}
	n.mu.Lock()
	s.Certificates = slices.Clone(n.held)
	n.mu.Unlock()
	for key, p := range state.Pools.All() {
		s.Pools = append(s.Pools, armor.PoolStatus{Pool: key, Limit: p.Budget, Open: 2, Idle: 1, NotReady: "secret orders-rw is missing"})
		n.switched(&s.Pools[len(s.Pools)-1])
	}
	return s
}

// Order keeps what was switched. The first look after a pause finds server connections
// that are still in use.
func (n *fakeNode) Order(o armor.PoolOrder) (armor.PoolStatus, error) {
	n.mu.Lock()
	if n.pools == nil {
		n.pools = map[string]armor.PoolStatus{}
	}
	p := n.pools[o.Key()]
	switch o.Verb {
	case armor.PausePool, armor.KillPool:
		p.Paused = true
	case armor.ResumePool:
		p.Paused = false
	case armor.DisablePool, armor.EnablePool:
		p.Disabled = o.Verb == armor.DisablePool
	}
	n.pools[o.Key()] = p
	n.mu.Unlock()
	return armor.PoolStatus{Pool: o.Key(), Open: 2, Paused: p.Paused, Disabled: p.Disabled}, nil
}

// Drain ends the node, and whoever watches over it starts it anew.
func (n *fakeNode) Drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.started = time.Now()
}

func (n *fakeNode) startedAt() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.started
}

// switched puts what was switched into a pool's status.
func (n *fakeNode) switched(p *armor.PoolStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.Paused, p.Disabled = n.pools[p.Pool].Paused, n.pools[p.Pool].Disabled
	if p.Paused {
		p.Open, p.Idle = 0, 0
	}
}

func (n *fakeNode) Sessions() []armor.SessionInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sessions)
}

func (n *fakeNode) Preview(selectors []armor.Selector) []armor.SessionInfo {
	imagined := &armor.State{}
	for _, s := range selectors {
		imagined.Revocations = imagined.Revocations.With(armor.Revocation{Selector: s})
	}
	return slices.DeleteFunc(n.Sessions(), func(s armor.SessionInfo) bool {
		_, cut := imagined.Revokes(s.Certificate, nil)
		return !cut
	})
}

func (n *fakeNode) Denial(id string) (armor.DenialRecord, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, found := n.denials[id]
	return r, found
}

func (n *fakeNode) Cancel(context.Context, armor.CancelKey, bool) bool { return false }
