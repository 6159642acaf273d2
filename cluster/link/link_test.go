package link

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// patient is the deadline of what should happen soon, on real connections.
const patient = 20 * time.Second

// peerCA signs the nodes and operators of one cluster.
type peerCA struct {
	cluster string
	cert    *x509.Certificate
	key     crypto.Signer
}

func newPeerCA(t *testing.T, cluster string) *peerCA {
	t.Helper()
	cert, key, err := pki.NewCA(pki.CAConfig{
		Kind: pki.PeerCA, CommonName: cluster, TrustDomain: pki.ClusterDomain(cluster), Lifetime: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &peerCA{cluster, cert, key}
}

func (ca *peerCA) issue(t *testing.T, id armor.Identity, server bool) *tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.SignLeaf(ca.cert, ca.key, key.Public(), pki.LeafConfig{
		Identity: id, Client: true, Server: server, Lifetime: time.Hour / 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func (ca *peerCA) node(t *testing.T, id armor.NodeID) *tls.Certificate {
	return ca.issue(t, pki.NodeIdentity(ca.cluster, id), true)
}

// shownTrust is a trust state that the test changes.
type shownTrust struct {
	mu         sync.Mutex // guards below
	state      *armor.State
	superseded chan struct{}
}

func newShownTrust() *shownTrust {
	return &shownTrust{state: &armor.State{}, superseded: make(chan struct{})}
}

func (s *shownTrust) Current() (*armor.State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.superseded
}

func (s *shownTrust) change(f func(*armor.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.state
	next.Revision++
	f(&next)
	s.state = &next
	close(s.superseded)
	s.superseded = make(chan struct{})
}

// ends is two links, a and b, that trust the same CA and state.
type ends struct {
	ca    *peerCA
	trust *shownTrust
	a, b  *Link
}

func newEnds(t *testing.T) *ends {
	t.Helper()
	e := &ends{ca: newPeerCA(t, "Acme"), trust: newShownTrust()}
	e.a, e.b = e.link(t, "a", nil), e.link(t, "b", nil)
	e.trust.change(func(s *armor.State) {
		for _, l := range []*Link{e.a, e.b} {
			s.Members = s.Members.With(e.member(l))
		}
	})
	return e
}

// member is the row of a link's node.
func (e *ends) member(l *Link) armor.Member {
	certificate, _ := l.cfg.Certificate()
	return armor.Member{ID: l.cfg.Node, PeerAddress: l.Addr().String(), Certificate: e.facts(certificate)}
}

func (e *ends) facts(c *tls.Certificate) armor.Certificate {
	return pki.Facts(c.Leaf, pki.SPKI(e.ca.cert))
}

// link runs the link of a node until the test ends.
func (e *ends) link(t *testing.T, node armor.NodeID, change func(*Config)) *Link {
	t.Helper()
	certificate := e.ca.node(t, node)
	cfg := Config{
		Cluster: e.ca.cluster, Node: node, Address: "127.0.0.1:0", Trust: e.trust,
		Certificate: func() (*tls.Certificate, error) { return certificate, nil },
		PeerCAs:     func() []*x509.Certificate { return []*x509.Certificate{e.ca.cert} },
	}
	if change != nil {
		change(&cfg)
	}
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patient):
			t.Error("Run does not return")
		}
	})
	return l
}

// connect joins a to b over one protocol.
func (e *ends) connect(t *testing.T, alpn string) (near, far net.Conn) {
	t.Helper()
	accepted := accept(e.b, alpn)
	near, err := e.a.Dial(t.Context(), "b", alpn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	select {
	case far = <-accepted:
	case <-time.After(patient):
		t.Fatal("not accepted")
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

func accept(l *Link, alpn string) <-chan net.Conn {
	listener, accepted := l.Route(alpn), make(chan net.Conn, 1)
	go func() {
		if c, err := listener.Accept(); err == nil {
			accepted <- c
		}
	}()
	return accepted
}

func TestProvenPeersTalkAndAreNamed(t *testing.T) {
	e := newEnds(t)
	for _, alpn := range []string{Raft, API} {
		near, far := e.connect(t, alpn)
		go near.Write([]byte("hello"))
		b := make([]byte, 5)
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "hello" {
			t.Fatalf("%s: %q, %v", alpn, b, err)
		}
		if id, err := e.b.Peer(far); err != nil || id != "a" {
			t.Fatalf("%s: peer %q, %v", alpn, id, err)
		}
	}
}

// tell dials b as a client of one's own making, and returns the first error that the
// other side's refusal shows.
func (e *ends) tell(t *testing.T, certificate *tls.Certificate, protocols ...string) error {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{*certificate}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", e.b.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patient))
	_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells a client of its refusal on first read
	return err
}

func TestStrangersAreRefusedByTheHandshake(t *testing.T) {
	e := newEnds(t)
	for _, alpn := range []string{Raft, API, Join} {
		accept(e.b, alpn)
	}
	other := newPeerCA(t, "Acme")
	elsewhere := newPeerCA(t, "Other")
	operator := e.ca.issue(t, pki.OperatorIdentity("Acme", "ada"), false)
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		protocols   []string
	}{
		"no certificate":              {nil, []string{API}},
		"no certificate, join hidden": {nil, []string{Join, Raft}},
		"another CA":                  {other.node(t, "a"), []string{Raft}},
		"another cluster":             {elsewhere.node(t, "a"), []string{Raft}},
		"an operator to raft":         {operator, []string{Raft}},
		"no protocol":                 {e.ca.node(t, "a"), nil},
		"unknown protocol":            {e.ca.node(t, "a"), []string{"http/1.1"}},
		"no member to raft":           {e.ca.node(t, "c"), []string{Raft}},
		"a member's name to raft":     {e.ca.node(t, "a"), []string{Raft}},
		"a member's name to the API":  {e.ca.node(t, "a"), []string{API}},
	} {
		if err := e.tell(t, c.certificate, c.protocols...); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
			t.Errorf("%s: %v, want an alert", name, err)
		}
	}
}

func TestOperatorsReachTheAPIAndAreNoNodes(t *testing.T) {
	e := newEnds(t)
	accepted := accept(e.b, API)
	operator := e.ca.issue(t, pki.OperatorIdentity("Acme", "ada"), false)
	conn, err := tls.Dial("tcp", e.b.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{API}, Certificates: []tls.Certificate{*operator},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far := <-accepted
	defer far.Close()
	if _, err := e.b.Peer(far); !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("got %v", err)
	}
}

func TestConnectionEndsAtTheNodeThatWasMeant(t *testing.T) {
	e := newEnds(t)
	accept(e.b, Raft)
	e.trust.change(func(s *armor.State) {
		s.Members = s.Members.With(armor.Member{ID: "c", PeerAddress: e.b.Addr().String()})
	})
	if _, err := e.a.Dial(t.Context(), "c", Raft); !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("dialed b under the name of c: %v", err)
	}
	if _, err := e.a.Dial(t.Context(), "d", Raft); !errors.Is(err, armor.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestWhatGossipSaysIsTriedLastAndNeverBelieved(t *testing.T) {
	e := newEnds(t)
	lie := e.b.Addr().String()
	l := e.link(t, "c", func(c *Config) {
		c.Seeds = func() map[armor.NodeID]string { return map[armor.NodeID]string{"b": "127.0.0.1:1"} }
		c.Hint = func(armor.NodeID) (string, bool) { return lie, true }
	})
	if got := l.addresses("b"); len(got) != 2 || got[0] != e.b.Addr().String() {
		t.Fatalf("%q", got)
	}
	accept(e.b, Raft)
	if _, err := l.Dial(t.Context(), "a", Raft); err != nil && strings.Contains(err.Error(), "wanted node") {
		t.Fatalf("the agreed address of a was not tried first: %v", err)
	}
	if _, err := l.Dial(t.Context(), "elsewhere", Raft); !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("believed gossip: %v", err)
	}
}

func TestRevokedPeersAreCutOffAtOnce(t *testing.T) {
	for name, selector := range map[string]func(armor.Certificate) armor.Selector{
		"key": func(c armor.Certificate) armor.Selector { return armor.Selector{Kind: armor.SelectKey, Key: c.Key} },
		"certificate": func(c armor.Certificate) armor.Selector {
			return armor.Selector{Kind: armor.SelectCertificate, Certificate: c.ID}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnds(t)
			near, far := e.connect(t, Raft)
			leaf, _ := e.a.cfg.Certificate()
			s := selector(pki.Facts(leaf.Leaf, pki.SPKI(e.ca.cert)))
			e.trust.change(func(state *armor.State) {
				state.Revocations = state.Revocations.With(armor.Revocation{Selector: s})
			})
			far.SetReadDeadline(time.Now().Add(patient))
			if _, err := far.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the connection goes on: %v", err)
			}
			near.Close()
			if c, err := e.a.Dial(t.Context(), "b", Raft); err == nil {
				c.SetReadDeadline(time.Now().Add(patient))
				if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
					t.Fatalf("a revoked node was let in again: %v", err)
				}
			}
		})
	}
}

func TestJoinersReachTheJoinProtocolAndPinTheNode(t *testing.T) {
	e := newEnds(t)
	accepted := accept(e.b, Join)
	pin := func(chain []*x509.Certificate) error {
		met, err := pki.VerifyPeer([]*x509.Certificate{e.ca.cert}, "Acme", chain, time.Now())
		if err == nil && (met.Kind != pki.Node || met.Name != "b") {
			err = armor.ErrDenied
		}
		return err
	}
	conn, err := DialJoin(t.Context(), e.b.Addr().String(), pin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far := <-accepted
	defer far.Close()
	if _, err := e.b.Peer(far); !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("a joiner passes for a node: %v", err)
	}
	if _, err := DialJoin(t.Context(), e.a.Addr().String(), pin); !errors.Is(err, armor.ErrDenied) {
		t.Fatalf("the joiner told its secret to another node: %v", err)
	}
}

func TestLinkThatHasEndedDialsNobody(t *testing.T) {
	e := newEnds(t)
	l, err := Listen(Config{
		Cluster: "Acme", Node: "c", Address: "127.0.0.1:0", Trust: e.trust, Certificate: e.a.cfg.Certificate, PeerCAs: e.a.cfg.PeerCAs,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Dial(t.Context(), "b", Raft); !errors.Is(err, armor.ErrShuttingDown) {
		t.Fatalf("got %v", err)
	}
	if _, err := l.Route(Raft).Accept(); err == nil {
		t.Fatal("accepts")
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
