package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// labNode is one node's API and what the test lets it say.
type labNode struct {
	lab         *lab
	id          armor.NodeID
	certificate tls.Certificate
	address     string
	listener    *labListener
	peers       *Peers
	server      *Server
	stop        func()

	mu       sync.Mutex
	sessions []armor.SessionInfo
	denials  map[string]armor.DenialRecord
	orders   []armor.PoolOrder
	drained  int
	believes armor.NodeID // whom it believes to lead, when set
	behind   *armor.State // what it has applied, when that is not everything
	catchUp  func() bool  // whether it catches up once it was asked for its state
	asked    []armor.Renewal
	save     func(ctx context.Context, by string, w io.Writer) error
	// clockAhead is set before the node listens.
	clockAhead time.Duration
	answer     func(ctx context.Context, q armor.Renewal) (armor.Freshness, error)
}

// listen serves the node's API until stop.
func (n *labNode) listen(address string) {
	t := n.lab.t
	t.Helper()
	var err error
	if n.listener, err = listenLab(address, n); err != nil {
		t.Fatal(err)
	}
	n.address = n.listener.raw.Addr().String()
	n.peers = NewPeers(n)
	n.server, err = NewServer(ServerConfig{Node: n, Peers: n.peers, GossipKey: func() ([]byte, error) { return []byte("gossip key"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.server.Serve(ctx, n.listener.api); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	running.Go(func() {
		if err := n.server.ServeJoin(ctx, n.listener.join); err != nil {
			t.Errorf("serve join: %v", err)
		}
	})
	running.Go(n.listener.run)
	n.stop = sync.OnceFunc(func() {
		n.listener.raw.Close()
		cancel()
		n.peers.Close()
		running.Wait()
	})
	t.Cleanup(func() { n.stop() })
}

// kill ends every connection at once and then the node.
func (n *labNode) kill() {
	n.listener.cutAll()
	n.stop()
}

func (n *labNode) Dial(ctx context.Context, node armor.NodeID, alpn string) (net.Conn, error) {
	n.lab.mu.Lock()
	m, ok := n.lab.state.Members.Get(string(node))
	n.lab.mu.Unlock()
	if !ok {
		return nil, armor.ErrNotFound
	}
	return dialLab(ctx, m.PeerAddress, alpn, n.certificate)
}

func (n *labNode) WallClock() time.Time { return time.Now().Add(n.clockAhead) }

func (n *labNode) ID() armor.NodeID { return n.id }

func (n *labNode) Leader() (armor.NodeID, bool) {
	n.mu.Lock()
	believes := n.believes
	n.mu.Unlock()
	if believes != "" {
		return believes, true
	}
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	return n.lab.leader, n.lab.leader != ""
}

func (n *labNode) leads() bool {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	return n.lab.leader == n.id
}

func (n *labNode) Current() (*armor.State, <-chan struct{}) {
	n.mu.Lock()
	behind := n.behind
	if behind != nil && n.catchUp() {
		n.behind = nil
	}
	n.mu.Unlock()
	if behind != nil {
		superseded := make(chan struct{})
		close(superseded)
		return behind, superseded
	}
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	return n.lab.state, n.lab.superseded
}

func (n *labNode) Propose(_ context.Context, r armor.Request) (armor.Result, error) {
	if err := n.lab.judge(r); err != nil {
		return armor.Result{}, err
	}
	n.lab.mu.Lock()
	n.lab.proposed = append(n.lab.proposed, r)
	propose, leader := n.lab.propose, n.lab.leader
	n.lab.mu.Unlock()
	switch {
	case leader != n.id:
		return armor.Result{}, &armor.NotLeaderError{Leader: leader}
	case propose != nil:
		return propose(n, r)
	}
	return n.lab.commit(r)
}

func (n *labNode) Begin(ctx context.Context, r armor.Request) error {
	if err := n.Validate(r); err != nil {
		return err
	}
	_, err := n.Propose(ctx, r)
	return err
}

func (n *labNode) ProposeOwn(_ context.Context, c armor.Command) (armor.Result, error) {
	if !n.leads() {
		return armor.Result{}, &armor.NotLeaderError{}
	}
	n.lab.mu.Lock()
	n.lab.own = append(n.lab.own, c)
	n.lab.mu.Unlock()
	filing := c.(armor.RequestJoin)
	return armor.Result{Revision: n.lab.change(func(s *armor.State) {
		s.Tokens = s.Tokens.Without(filing.Token.String())
		s.Joins = s.Joins.With(filing.Request)
	})}, nil
}

func (n *labNode) Validate(r armor.Request) error {
	if !n.leads() {
		return errors.New("validated on a node that does not lead")
	}
	if err := n.lab.judge(r); err != nil {
		return err
	}
	if _, ok := r.Command.(armor.RemoveMember); ok {
		return fmt.Errorf("%w: the last voter", armor.ErrConflict)
	}
	return nil
}

func (n *labNode) AwaitEnforced(ctx context.Context, r armor.Result) (armor.Enforcement, error) {
	n.lab.mu.Lock()
	await := n.lab.await
	n.lab.mu.Unlock()
	switch {
	case !n.leads():
		return armor.Enforcement{}, &armor.NotLeaderError{}
	case await != nil:
		return await(ctx, n, r)
	}
	return n.enforcement(r), nil
}

func (n *labNode) enforcement(r armor.Result) armor.Enforcement {
	return armor.Enforcement{Revision: r.Revision, Term: r.Term, Complete: true,
		Nodes: []armor.NodeEnforcement{{Node: n.id, Enforced: true, Closed: 2}}}
}

func (n *labNode) Answer(ctx context.Context, q armor.Renewal) (armor.Freshness, error) {
	n.mu.Lock()
	n.asked = append(n.asked, q)
	answer := n.answer
	n.mu.Unlock()
	if answer != nil {
		return answer(ctx, q)
	}
	return armor.Freshness{Term: 3, Index: q.Applied, Bound: time.Second}, nil
}

func (n *labNode) Verify(_ context.Context, revision uint64) (armor.Verification, error) {
	return armor.Verification{Node: n.id, Mark: armor.Mark{Revision: revision, Chain: armor.Digest{1}}, Entries: 3}, nil
}

// Save writes what the test lets it say.
func (n *labNode) Save(ctx context.Context, by string, w io.Writer) error {
	n.mu.Lock()
	save := n.save
	n.mu.Unlock()
	if save == nil {
		return nil
	}
	return save(ctx, by, w)
}

func (n *labNode) Ballot(term uint64) armor.Ballot { return armor.Ballot{Term: term, Leader: "n1"} }

func (n *labNode) Attest(revision uint64) (armor.Attestation, error) {
	return armor.Attestation{Mark: armor.Mark{Revision: revision, Chain: armor.Digest{1}}, LastIndex: 12, LastTerm: 3}, nil
}

func (n *labNode) Status() armor.NodeStatus {
	return armor.NodeStatus{Node: n.id, Version: "lab", Revision: 10}
}

func (n *labNode) Sessions() []armor.SessionInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions
}

func (n *labNode) Preview(selectors []armor.Selector) []armor.SessionInfo {
	var cut []armor.SessionInfo
	for _, s := range n.Sessions() {
		if slices.ContainsFunc(selectors, func(x armor.Selector) bool { return x.Identity.Matches(s.Certificate.Identity) }) {
			cut = append(cut, s)
		}
	}
	return cut
}

func (n *labNode) Denial(id string) (armor.DenialRecord, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	record, ok := n.denials[id]
	return record, ok
}

func (n *labNode) Order(o armor.PoolOrder) (armor.PoolStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if o.Pool == "nowhere" {
		return armor.PoolStatus{}, fmt.Errorf("%w: pool %s", armor.ErrNotFound, o.Key())
	}
	n.orders = append(n.orders, o)
	return armor.PoolStatus{Pool: o.Key(), Open: len(n.orders), Paused: o.Verb == armor.PausePool}, nil
}

func (n *labNode) Drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drained++
}

func (n *labNode) Cancel(_ context.Context, key armor.CancelKey, plaintext bool) bool {
	return key.PID == 7 && plaintext == (key.Long[0] == 1)
}

// labListener hands connections out by protocol, as the node-to-node link does; it
// lets clients without a certificate in, so that the API's own refusal is what is
// tested.
type labListener struct {
	raw       net.Listener
	tls       *tls.Config
	api, join *labRoute

	mu   sync.Mutex
	open map[net.Conn]bool
}

func listenLab(address string, n *labNode) (*labListener, error) {
	raw, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	route := func() *labRoute {
		return &labRoute{conns: make(chan net.Conn), done: make(chan struct{}), addr: raw.Addr()}
	}
	return &labListener{raw: raw, api: route(), join: route(), open: map[net.Conn]bool{}, tls: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{n.certificate}, ClientAuth: tls.RequestClientCert,
		NextProtos: []string{ALPN, ALPNJoin}, SessionTicketsDisabled: true,
	}}, nil
}

func (l *labListener) run() {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	for {
		raw, err := l.raw.Accept()
		if err != nil {
			l.cutAll()
			return
		}
		l.mu.Lock()
		l.open[raw] = true
		l.mu.Unlock()
		handshakes.Go(func() {
			conn := tls.Server(raw, l.tls)
			if conn.Handshake() != nil {
				conn.Close()
				return
			}
			route := l.api
			if conn.ConnectionState().NegotiatedProtocol == ALPNJoin {
				route = l.join
			}
			select {
			case route.conns <- conn:
			case <-route.done:
				conn.Close()
			}
		})
	}
}

func (l *labListener) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		conn.Close()
	}
	clear(l.open)
}

type labRoute struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	addr  net.Addr
}

func (r *labRoute) Accept() (net.Conn, error) {
	select {
	case conn := <-r.conns:
		return conn, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

func (r *labRoute) Close() error { r.once.Do(func() { close(r.done) }); return nil }

func (r *labRoute) Addr() net.Addr { return r.addr }
