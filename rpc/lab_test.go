package rpc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	labCluster   = "Lab"
	labClusterID = "0123456789abcdef0123456789abcdef"
)

// lab is a cluster whose nodes share one state and have no Raft: what they answer is
// the test's to say. Their API and its connections are real.
type lab struct {
	t     *testing.T
	ca    *x509.Certificate
	caKey crypto.Signer
	nodes map[armor.NodeID]*labNode

	mu         sync.Mutex
	state      *armor.State
	superseded chan struct{}
	leader     armor.NodeID
	outcomes   map[armor.RequestID]armor.Result
	proposed   []armor.Request
	own        []armor.Command
	// propose, when set, answers instead of commit.
	propose func(n *labNode, r armor.Request) (armor.Result, error)
	// await, when set, answers AwaitEnforced.
	await func(ctx context.Context, n *labNode, r armor.Result) (armor.Enforcement, error)
}

// newLab starts nodes n1, n2, … of which n1 leads, and registers operator ada with
// every role.
func newLab(t *testing.T, nodes int) *lab {
	t.Helper()
	ca, key, err := pki.NewCA(pki.CAConfig{Kind: pki.PeerCA, CommonName: "lab peers",
		TrustDomain: pki.ClusterDomain(labCluster), Lifetime: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		t: t, ca: ca, caKey: key, nodes: map[armor.NodeID]*labNode{}, superseded: make(chan struct{}), leader: "n1",
		outcomes: map[armor.RequestID]armor.Result{},
		state: &armor.State{Revision: 10, Time: time.Unix(1_700_000_000, 0).UTC(),
			Cluster: armor.Cluster{ID: labClusterID, Name: labCluster, PeerCA: ca.Raw}},
	}
	for k := range nodes {
		l.start(armor.NodeID(fmt.Sprintf("n%d", k+1)), "127.0.0.1:0")
	}
	l.enrol("ada", armor.OperatorRoles()...)
	return l
}

func (l *lab) change(edit func(s *armor.State)) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := *l.state
	next.Revision++
	edit(&next)
	l.state = &next
	close(l.superseded)
	l.superseded = make(chan struct{})
	return next.Revision
}

func (l *lab) lead(n armor.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader = n
}

func (l *lab) onPropose(f func(n *labNode, r armor.Request) (armor.Result, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.propose = f
}

func (l *lab) onAwait(f func(ctx context.Context, n *labNode, r armor.Result) (armor.Enforcement, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.await = f
}

func (l *lab) proposals() []armor.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.proposed)
}

// commit applies a request once.
func (l *lab) commit(r armor.Request) (armor.Result, error) {
	l.mu.Lock()
	first, again := l.outcomes[r.ID]
	l.mu.Unlock()
	if again {
		first.Repeated = true
		return first, first.Err
	}
	result := armor.Result{Term: 3, Time: time.Unix(1_700_000_100, 0).UTC()}
	result.Revision = l.change(func(s *armor.State) {
		if put, ok := r.Command.(armor.PutEnvironment); ok {
			s.Environments = s.Environments.With(put.Environment)
		}
	})
	l.mu.Lock()
	l.outcomes[r.ID] = result
	l.mu.Unlock()
	return result, nil
}

// issue signs a certificate of the cluster's own.
func (l *lab) issue(id armor.Identity, server bool) tls.Certificate {
	l.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.certify(id, server, key)
}

func (l *lab) certify(id armor.Identity, server bool, key crypto.Signer) tls.Certificate {
	l.t.Helper()
	cert, err := pki.SignLeaf(l.ca, l.caKey, key.Public(), pki.LeafConfig{Identity: id, Client: true, Server: server, Lifetime: time.Hour})
	if err != nil {
		l.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// enrol makes an operator and returns its certificate.
func (l *lab) enrol(name string, roles ...armor.OperatorRole) tls.Certificate {
	l.t.Helper()
	cert := l.issue(pki.OperatorIdentity(labCluster, name), false)
	public, err := cert.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Bytes()
	if err != nil {
		l.t.Fatal(err)
	}
	l.change(func(s *armor.State) {
		s.Operators = s.Operators.With(armor.Operator{
			Name: name, Certificate: pki.Facts(cert.Leaf, pki.SPKI(l.ca)), PublicKey: public, Roles: roles,
		})
	})
	return cert
}

// client is operator name's, who asks the named nodes in this order.
func (l *lab) client(cert tls.Certificate, nodes ...armor.NodeID) *Client {
	l.t.Helper()
	var addresses []string
	for _, n := range nodes {
		addresses = append(addresses, l.nodes[n].address)
	}
	c, err := Open(ClientConfig{Addresses: addresses, Cluster: labCluster, Certificate: cert, PeerCAs: []*x509.Certificate{l.ca}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

func (l *lab) start(id armor.NodeID, address string) *labNode {
	l.t.Helper()
	n := &labNode{lab: l, id: id, denials: map[string]armor.DenialRecord{}, certificate: l.issue(pki.NodeIdentity(labCluster, id), true)}
	l.nodes[id] = n
	n.listen(address)
	l.change(func(s *armor.State) {
		s.Members = s.Members.With(armor.Member{
			ID: id, Index: uint16(len(l.nodes)), PeerAddress: n.address, Voter: true, Certificate: pki.Facts(n.certificate.Leaf, pki.SPKI(l.ca)),
		})
	})
	return n
}

func dialLab(ctx context.Context, address, alpn string, certificates ...tls.Certificate) (*tls.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{alpn}, Certificates: certificates,
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// judge is what the machine asks first: that the request is its operator's own, and that
// the operator may do this.
func (l *lab) judge(r armor.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.HasPrefix(r.Principal, armor.NodePrincipal("")) && r.Command.Needs() == "" {
		return nil // as the machine judges what the leader proposes by itself
	}
	operator, ok := l.state.Operators.Get(r.Principal)
	if !ok || !operator.Has(r.Command.Needs()) {
		return fmt.Errorf("%w: no operator who may %s", armor.ErrDenied, r.Command.Kind())
	}
	return r.Verify(labClusterID, operator.PublicKey)
}
