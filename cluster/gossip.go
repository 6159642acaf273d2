package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/armordb/armordb/armor"
)

const (
	gossipKeySize = 32 // AES-256
	rejoinEvery   = 10 * time.Second
	reclaimAfter  = 30 * time.Second
	leaveTimeout  = time.Second
)

// GossipConfig says where and with whom to gossip, over TCP and UDP on one port.
type GossipConfig struct {
	Listen    string   // host:port; port 0 picks one
	Advertise string   // host:port that others use; empty: as bound
	Keys      [][]byte // 32 bytes each; the first encrypts, all decrypt
	// Join returns gossip addresses to try for as long as somebody is missing.
	Join func() []string
}

func (c *GossipConfig) validate() error {
	if len(c.Keys) == 0 {
		return fmt.Errorf("%w: gossip needs a key of %d bytes: nobody else may listen or speak", armor.ErrInvalid, gossipKeySize)
	}
	for _, k := range c.Keys {
		if len(k) != gossipKeySize {
			return fmt.Errorf("%w: a gossip key has %d bytes, not %d", armor.ErrInvalid, len(k), gossipKeySize)
		}
	}
	_, _, err := splitAddress(c.Listen)
	if err == nil && c.Advertise != "" {
		_, _, err = splitAddress(c.Advertise)
	}
	return err
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%w: gossip address %q: %v", armor.ErrInvalid, address, err)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%w: gossip address %q has no usable port", armor.ErrInvalid, address)
	}
	return host, port, nil
}

// gossip is this node's part in gossip. What it learns is a hint: it shows who seems
// to be there, and decides nothing.
type gossip struct {
	cfg       *GossipConfig
	list      *memberlist.Memberlist
	transport *guardedTransport
	self      meta

	mu      sync.Mutex // guards all below; memberlist calls our delegates under its own locks
	nodes   map[armor.NodeID]meta
	seen    map[armor.NodeID]string // gossip addresses, also of nodes that are gone
	sources map[netip.Addr]bool     // of the same
}

// maxSeen bounds the addresses remembered.
const maxSeen = 2048

// gossips takes part in gossip until ctx ends. It begins once the cluster is known,
// because its name is on every packet.
func (n *Node) gossips(ctx context.Context) {
	for {
		state, superseded := n.machine.Current()
		cluster := state.Cluster.ID
		if cluster == "" {
			cluster = n.cfg.Cluster
		}
		if cluster != "" {
			n.gossipAs(ctx, cluster)
			return
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) gossipAs(ctx context.Context, cluster string) {
	g, err := n.startGossip(cluster)
	for err != nil { // the port may be taken for a moment by a former life
		n.cfg.Logger.Warn("cannot gossip", armor.KeyErr, err)
		if !sleep(ctx, rejoinEvery) {
			return
		}
		g, err = n.startGossip(cluster)
	}
	n.gossip.Store(g)
	defer n.gossip.Store(nil)
	defer g.end()
	for {
		g.rejoin(n.members())
		if !sleep(ctx, rejoinEvery) {
			return
		}
	}
}

func (n *Node) members() []armor.NodeID {
	state, _ := n.machine.Current()
	var all []armor.NodeID
	for m := range state.Members.Values() {
		all = append(all, m.ID)
	}
	return all
}

func (n *Node) startGossip(cluster string) (*gossip, error) {
	g := &gossip{
		cfg:   n.cfg.Gossip,
		self:  meta{Cluster: cluster, Epoch: n.epoch, PeerAddress: n.cfg.PeerAddress, Version: n.cfg.Version},
		nodes: map[armor.NodeID]meta{}, seen: map[armor.NodeID]string{}, sources: map[netip.Addr]bool{},
	}
	if _, err := g.self.encode(); err != nil {
		return nil, err
	}
	cfg, err := g.config(n)
	if err != nil {
		return nil, err
	}
	if err = g.listen(cfg); err == nil {
		if g.list, err = memberlist.Create(cfg); err != nil {
			err = errors.Join(err, g.transport.Shutdown())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", g.cfg.Listen, err)
	}
	return g, nil
}

func (g *gossip) config(n *Node) (*memberlist.Config, error) {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.Label = string(n.cfg.Node), g.self.Cluster
	var err error
	if cfg.BindAddr, cfg.BindPort, err = splitAddress(g.cfg.Listen); err != nil {
		return nil, err
	}
	if cfg.BindAddr == "" {
		cfg.BindAddr = "0.0.0.0"
	}
	cfg.AdvertisePort = cfg.BindPort
	if g.cfg.Advertise != "" {
		if cfg.AdvertiseAddr, cfg.AdvertisePort, err = splitAddress(g.cfg.Advertise); err != nil {
			return nil, err
		}
	}
	if cfg.Keyring, err = memberlist.NewKeyring(g.cfg.Keys, g.cfg.Keys[0]); err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	cfg.GossipVerifyIncoming, cfg.GossipVerifyOutgoing = true, true
	cfg.DeadNodeReclaimTime = reclaimAfter
	cfg.Delegate, cfg.Events, cfg.Alive = g, g, g
	cfg.Logger = newLimitedLog(n.cfg.Logger, "gossip", gossipLines).StandardLogger(nil)
	return cfg, nil
}

// rejoin looks for members that gossip does not see: after a partition both sides
// forget each other for good, unless somebody calls.
func (g *gossip) rejoin(members []armor.NodeID) {
	g.mu.Lock()
	var calls []string
	missing := len(g.nodes) < 2 || len(members) == 0
	for _, m := range members {
		if _, alive := g.nodes[m]; !alive {
			missing = true
			if address, ok := g.seen[m]; ok {
				calls = append(calls, address)
			}
		}
	}
	g.mu.Unlock()
	if !missing {
		return
	}
	if g.cfg.Join != nil {
		calls = append(calls, g.cfg.Join()...)
	}
	slices.Sort(calls)
	if calls = slices.Compact(calls); len(calls) > 0 {
		g.list.Join(calls) // who did not answer is called again
	}
}

func (g *gossip) end() {
	g.list.Leave(leaveTimeout)
	g.list.Shutdown()
}

// alive is whom gossip sees, sorted.
func (g *gossip) alive() []armor.NodeID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.nodes))
}

// Hint returns where gossip says a node's peer port is. It may be wrong or a lie:
// whoever dials it must pin the node's identity, as link.Link does.
func (n *Node) Hint(node armor.NodeID) (address string, ok bool) {
	g := n.gossip.Load()
	if g == nil {
		return "", false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.nodes[node]
	return m.PeerAddress, ok && m.PeerAddress != ""
}

// GossipAddress is where this node gossips, or "" while it does not.
func (n *Node) GossipAddress() string {
	g := n.gossip.Load()
	if g == nil {
		return ""
	}
	return g.list.LocalNode().Address()
}

// NodeMeta is memberlist's way to ask what we say of ourselves.
func (g *gossip) NodeMeta(limit int) []byte {
	b, err := g.self.encode()
	if err != nil || len(b) > limit {
		return nil // startGossip has checked it
	}
	return b
}

// NotifyAlive refuses nodes that are not of our cluster or cannot be read.
func (g *gossip) NotifyAlive(peer *memberlist.Node) error {
	m, err := decodeMeta(peer.Meta)
	if err != nil {
		return err
	}
	if m.Cluster != g.self.Cluster {
		return fmt.Errorf("%w: %q is of another cluster", armor.ErrDenied, peer.Name)
	}
	_, err = armor.ParseNodeID(peer.Name)
	return err
}

// NotifyJoin notes who is there.
func (g *gossip) NotifyJoin(peer *memberlist.Node) { g.note(peer) }

// NotifyUpdate notes what a node says of itself now.
func (g *gossip) NotifyUpdate(peer *memberlist.Node) { g.note(peer) }

// NotifyLeave notes who is gone.
func (g *gossip) NotifyLeave(peer *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.nodes, armor.NodeID(peer.Name))
}

func (g *gossip) note(peer *memberlist.Node) {
	m, err := decodeMeta(peer.Meta)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodes[armor.NodeID(peer.Name)] = m
	if len(g.seen) < maxSeen {
		g.seen[armor.NodeID(peer.Name)] = peer.Address()
	}
	if at, ok := netip.AddrFromSlice(peer.Addr); ok && len(g.sources) < maxSeen {
		g.sources[armor.SourceOf(at)] = true
	}
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState are for data that travels
// with gossip; none of ours does.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to tell.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what it is told.
func (g *gossip) MergeRemoteState([]byte, bool) {}
