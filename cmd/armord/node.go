package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/cluster/link"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/rpc"
	"github.com/armordb/armordb/tlsedge"
)

// What each room asks for is supplied by another, and fits.
var (
	_ cluster.Network    = (*link.Link)(nil)
	_ cluster.Courier    = (*rpc.Peers)(nil)
	_ cluster.Holder     = (*holder)(nil)
	_ cluster.Doorkeeper = doorkeeper{}
	_ rpc.Dialer         = (*link.Link)(nil)
	_ rpc.Node           = (*api)(nil)
	_ armor.Trust        = (*cluster.Node)(nil)
	_ tlsedge.Lease      = (*cluster.Node)(nil)
	_ tlsedge.Reporter   = (*cluster.Node)(nil)
	_ tlsedge.Canceler   = (*node)(nil)
	_ tlsedge.Handler    = handler{}
	_ pooler.Guest       = (*tlsedge.Session)(nil)
	_ pooler.Secrets     = secrets{}
)

const (
	// drainPatience is how long clients may finish their transactions when the node
	// ends.
	drainPatience = 15 * time.Second
	// brokenPatience is how long each part may take to end once one has failed.
	brokenPatience = 5 * time.Second
)

// registerFile is where the node writes down its server connections, in its data directory.
const registerFile = "connections"

// node is a member of a cluster with all of its rooms.
type node struct {
	cfg      home
	log      *slog.Logger
	metrics  *metrics
	leaving  *leaving
	serving  func() // called once clients are served
	shutdown func() // has the process end as by a signal

	server  *keyPair // what clients see
	own     *keyPair // what other nodes and operators see
	filed   atomic.Pointer[filedTrust]
	link    *link.Link
	machine *fsm.Machine
	cluster *cluster.Node
	known   chan struct{} // closed once this node knows what the cluster knows, or that has been waited for long enough
	peers   *rpc.Peers
	api     *rpc.Server
	holder  *holder
	saving  *schedule
	clients atomic.Pointer[clients] // nil until this node knows its own number

	cancelSigner []byte // proves cancel keys of protocol 3.2; the same on all nodes
}

// clients are the rooms that serve clients.
type clients struct {
	edge   *tlsedge.Edge
	pooler *pooler.Pooler
	engine engine
	log    *slog.Logger
}

// newNode makes the rooms of an enrolled node, and starts nothing but the peer
// listener's socket.
func newNode(cfg home, m *metrics, leaving *leaving, serving func(), log *slog.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log, metrics: m, leaving: leaving, serving: serving, holder: &holder{}, known: make(chan struct{}), machine: fsm.New()}
	own, err := cfg.readMembership()
	if err != nil {
		return nil, err
	}
	if n.server, err = openKeyPair(cfg.Client.CertFile, cfg.Client.KeyFile, log); err != nil {
		return nil, fmt.Errorf("what clients shall see: %w", err)
	}
	if n.cancelSigner, err = cfg.sharedKey(cancelKeys); err != nil {
		return nil, err
	}
	if n.link, err = n.listenForPeers(n.machine, own); err != nil {
		return nil, err
	}
	m.watchCertificates(map[string]func() time.Time{"server": n.server.ends, "node": n.own.ends})
	n.peers = rpc.NewPeers(n.link)
	if n.cluster, err = n.newMember(own); err != nil {
		return nil, errors.Join(err, n.peers.Close())
	}
	// The member has locked the data directory.
	if n.holder.register, err = backend.OpenRegister(filepath.Join(cfg.DataDir, registerFile), log); err != nil {
		return nil, errors.Join(err, n.peers.Close())
	}
	m.watchSuspicions(n.cluster.Suspicions)
	n.saving = &schedule{
		cfg: cfg.Snapshots, folder: saved.Folder{Dir: cfg.Snapshots.Directory, Cluster: own.ClusterID, Node: armor.NodeID(cfg.Node)},
		current: n.machine.Snapshot, free: freeSpace, log: log,
		write: func(w io.Writer, s fsm.Snapshot) error { return n.save(w, s, "") },
	}
	m.watchSchedule(n.saving)
	n.api, err = rpc.NewServer(rpc.ServerConfig{Node: (*api)(n), Peers: n.peers, Known: n.known, GossipKey: cfg.gossipKey, Logger: log})
	return n, err
}

func (n *node) listenForPeers(trust armor.Trust, own membership) (*link.Link, error) {
	var err error
	if n.own, err = openKeyPair(n.cfg.Peer.CertFile, n.cfg.Peer.KeyFile, n.log); err != nil {
		return nil, fmt.Errorf("what other nodes shall see: %w", err)
	}
	cas, err := readCertificates(n.cfg.Peer.CAFile)
	if err != nil {
		return nil, fmt.Errorf("peer CA: %w", err)
	}
	n.filed.Store(&filedTrust{cas, own.keys()})
	return link.Listen(link.Config{
		Cluster: n.cfg.Cluster, Node: armor.NodeID(n.cfg.Node), Address: n.cfg.Peer.Listen, Trust: trust,
		Certificate: n.own.get,
		PeerCAs:     n.peerCAs,
		Pins:        n.pins,
		Seeds:       func() map[armor.NodeID]string { return own.Seeds },
		Hint:        n.hint, Now: n.now, MaySpeak: n.maySpeak, Logger: n.log,
	})
}

// hint, maySpeak and now may be asked while the rooms are being made: the link is made first.
func (n *node) hint(id armor.NodeID) (string, bool) {
	if n.cluster == nil {
		return "", false
	}
	return n.cluster.Hint(id)
}

func (n *node) maySpeak(id armor.NodeID) bool { return n.cluster != nil && n.cluster.MaySpeak(id) }

func (n *node) now() time.Time {
	if n.cluster == nil {
		return time.Now()
	}
	return n.cluster.Now()
}

func (n *node) newMember(own membership) (*cluster.Node, error) {
	key, err := n.cfg.gossipKey()
	if err != nil {
		return nil, err
	}
	return cluster.New(cluster.Config{
		Node: armor.NodeID(n.cfg.Node), Cluster: own.ClusterID, DataDir: n.cfg.DataDir,
		Machine: n.machine, Network: n.link, Courier: n.peers, Holder: n.holder, Doorkeeper: doorkeeper{n}, Seeds: slices.Sorted(maps.Keys(own.Seeds)),
		Gossip:  &cluster.GossipConfig{Listen: n.cfg.Gossip.Listen, Advertise: n.cfg.Gossip.Advertise, Keys: [][]byte{key}, Join: n.gossipers},
		Version: version, PeerAddress: n.cfg.Peer.Advertise, ClientAddress: n.cfg.Client.Advertise, OpsAddress: n.cfg.Ops.Advertise,
		ClockSkew: n.cfg.ClockSkew, Draining: n.leaving.begun, Serving: func() bool { return n.clients.Load() != nil }, Logger: n.log,
	})
}

// gossipers are where other nodes may gossip.
func (n *node) gossipers() []string {
	state, _ := n.cluster.Current()
	return gossipAddresses(n.cfg.Config, state.Members.Values())
}

// gossipAddresses are where the configuration says that other nodes gossip, and on our own port
// the hosts of members and of join.addresses: when all have moved, only the configuration knows.
func gossipAddresses(c config.Config, members iter.Seq[armor.Member]) []string {
	all := slices.Clone(c.Gossip.Join)
	_, port, err := config.SplitAddress(c.Gossip.Listen)
	if err != nil {
		return all // it was checked with the configuration
	}
	add := func(peer string) {
		if host, _, err := config.SplitAddress(peer); err == nil {
			all = append(all, net.JoinHostPort(host, strconv.Itoa(port)))
		}
	}
	for m := range members {
		if m.ID != armor.NodeID(c.Node) {
			add(m.PeerAddress)
		}
	}
	for _, address := range c.Join.Addresses {
		add(address)
	}
	return all
}

// run takes part in the cluster and serves clients until ctx ends. The stages end in
// the opposite order: clients leave under full enforcement, then leadership is handed over and
// the last word said, then the API goes, then gossip and the stores, and the connections to
// other nodes at last.
func (n *node) run(ctx context.Context, f *founding) error {
	stages := []stage{
		{"link", n.link.Run},
		{"cluster", n.runCluster},
		{"own trust", n.followOwnTrust},
		{"api", n.serveAPI},
		{"joining nodes", func(ctx context.Context) error { return n.api.ServeJoin(ctx, n.link.Route(link.Join)) }},
		{"saved states", n.saving.run},
		{"office", n.retireAtEnd},
		{"clients", func(ctx context.Context) error { return n.serveClients(ctx) }},
	}
	if f != nil {
		stages = slices.Insert(stages, len(stages)-1, stage{"founding", func(ctx context.Context) error {
			if err := n.found(ctx, f); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}})
	}
	return errors.Join(runStages(ctx, stages, brokenPatience, n.log), n.holder.register.Close())
}

// runCluster ends the calls to other nodes after the member that makes them.
func (n *node) runCluster(ctx context.Context) error {
	return errors.Join(n.cluster.Run(ctx), n.peers.Close())
}

// retireAtEnd says the node's last word once its clients have gone.
func (n *node) retireAtEnd(ctx context.Context) error {
	<-ctx.Done()
	n.cluster.Retire(context.WithoutCancel(ctx))
	return nil
}

// serveAPI answers operators and nodes, most calls once this node knows what the cluster
// knows.
func (n *node) serveAPI(ctx context.Context) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		n.awaitKnowledge(ctx)
		close(n.known)
	})
	return n.api.Serve(ctx, n.link.Route(link.API))
}

const (
	// knowledgePatience is how long the API waits for the node to catch up. Without a
	// quorum there is nobody to catch up with, and operators want to see that.
	knowledgePatience = 5 * time.Second
	knowledgePoll     = 20 * time.Millisecond
)

func (n *node) awaitKnowledge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, knowledgePatience)
	defer cancel()
	tick := time.NewTicker(knowledgePoll)
	defer tick.Stop()
	for n.cluster.AdmitNew("") != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serveClients serves clients once the state says which member this node is: its
// number is in every cancel key.
func (n *node) serveClients(ctx context.Context) error {
	member, ok := n.awaitMembership(ctx)
	if !ok {
		return nil
	}
	c, err := n.newClients(member)
	if err != nil {
		return err
	}
	n.clients.Store(c)
	n.holder.attach(c.pooler)
	n.serving()
	return runStages(ctx, []stage{
		{"engine", c.engine.run},
		{"pooler", c.pooler.Run},
		{"configuration", func(ctx context.Context) error { return follow(ctx, n.cluster, c.pooler) }},
		{"edge", func(ctx context.Context) error { return c.serve(ctx, n.leaving) }},
	}, brokenPatience, n.log)
}

func (n *node) awaitMembership(ctx context.Context) (armor.Member, bool) {
	for {
		state, superseded := n.cluster.Current()
		if m, ok := state.Members.Get(n.cfg.Node); ok {
			return m, true
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return armor.Member{}, false
		}
	}
}

// serve serves clients. When ctx ends, new ones are taken until the load balancers have seen
// that they should not come; then each ends at its next idle boundary, and the edge cuts
// those that have not within its grace.
func (c *clients) serve(ctx context.Context, l *leaving) error {
	open, shut := context.WithCancel(context.WithoutCancel(ctx))
	var drained sync.WaitGroup
	drained.Go(func() {
		select {
		case <-ctx.Done():
			l.seen(open)
			c.log.Info("leaving: the client port closes")
		case <-open.Done(): // the edge has ended by itself
		}
		shut()
		limit, stop := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
		defer stop()
		_ = c.pooler.Drain(limit) // the edge cuts who is left then
	})
	err := c.edge.Run(open)
	shut()
	drained.Wait()
	return err
}

// follow keeps the pooler's tables those of the state in force, until ctx ends.
func follow(ctx context.Context, trust armor.Trust, p *pooler.Pooler) error {
	var before *armor.State
	for {
		state, superseded := trust.Current()
		if state.Differs(before, armor.Pooling) {
			p.Configure(slices.Collect(state.Databases.Values()), slices.Collect(state.Pools.Values()))
		}
		if state.Differs(before, armor.Sharing, armor.Joining) {
			p.SetWithheld(state.Withheld())
		}
		before = state
		select {
		case <-superseded:
		case <-ctx.Done():
			return nil
		}
	}
}

// newClients makes the rooms that serve clients, and opens their port.
func (n *node) newClients(member armor.Member) (*clients, error) {
	engine, err := newEngine(n.cfg.Limits.Loops, n.log)
	if err != nil {
		return nil, err
	}
	decoyKey, err := n.cfg.sharedKey(decoys)
	if err != nil {
		return nil, err
	}
	p, err := pooler.New(pooler.Config{
		Node: member.Index, Secrets: secrets{n.cfg.SecretsDir}, Driver: engine.driver, Dial: engine.dial, Logger: n.log,
		Hooks: n.metrics.poolerHooks(), CancelTLSOnly: n.cancelTLSOnly, CancelSigner: n.cancelSigner,
		DecoyKey: decoyKey, Register: n.holder.register,
		Console: console.Node{Version: version, MaxClients: n.cfg.Limits.MaxClients, Shutdown: n.shutdown,
			Announce: n.leaving.announce, Hurry: n.leaving.hurry},
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", n.cfg.Client.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	edge, err := tlsedge.New(tlsedge.Config{
		Node: armor.NodeID(n.cfg.Node), Listener: listener, Trust: n.cluster, Lease: n.cluster, Handler: handler{p}, Canceler: n,
		Reporter: n.cluster, Certificate: n.server.get, Logger: n.log, Environments: n.cfg.Client.Environments,
		ProxyFrom: n.cfg.Client.ProxyProtocol.Networks(), Wrap: engine.client, Hooks: n.metrics.edgeHooks(), MaxSessions: n.cfg.Limits.MaxClients,
		Grace: drainPatience,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n.metrics.registry.MustRegister(pgbouncerCollector{p.Tally, n.cfg.Limits.MaxClients}, n.rotations())
	return &clients{edge, p, engine, n.log}, nil
}

// doorkeeper is the edge as the cluster sees it (cluster.Doorkeeper): it comes later than the cluster.
type doorkeeper struct{ node *node }

// Uses are those that the edge has seen.
func (d doorkeeper) Uses(s *armor.State) []armor.Use {
	if c := d.node.clients.Load(); c != nil {
		return c.edge.Uses(s)
	}
	return nil
}

// handler lets the pooler serve the edge's sessions.
type handler struct{ pooler *pooler.Pooler }

// ServeConn serves one session (tlsedge.Handler).
func (h handler) ServeConn(ctx context.Context, c net.Conn, s *tlsedge.Session) {
	h.pooler.ServeConn(ctx, c, s)
}
