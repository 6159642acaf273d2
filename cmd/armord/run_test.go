package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/rpc"
)

// patient is the deadline of what should happen soon.
const patient = 30 * time.Second

// site is where nodes of one cluster are made: its CAs and its operator.
type site struct {
	t        *testing.T
	dir      string
	ca       *x509.Certificate
	caKey    crypto.Signer
	operator tls.Certificate
	cluster  armor.Cluster
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	var err error
	if s.ca, s.caKey, err = pki.NewCA(pki.CAConfig{Kind: pki.PeerCA, CommonName: "peers", TrustDomain: pki.ClusterDomain("acme"),
		Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.cluster = armor.Cluster{ID: string(rpc.NewRequestID()), Name: "acme", PeerCA: s.ca.Raw}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s.operator = tls.Certificate{PrivateKey: key, Leaf: s.sign(key.Public(), pki.OperatorIdentity("acme", "ann"), false)}
	s.operator.Certificate = [][]byte{s.operator.Leaf.Raw}
	return s
}

func (s *site) sign(public crypto.PublicKey, id armor.Identity, server bool) *x509.Certificate {
	s.t.Helper()
	cert, err := pki.SignLeaf(s.ca, s.caKey, public, pki.LeafConfig{Identity: id, Client: true, Server: server, Lifetime: time.Hour / 2})
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

// config is a node's, on free ports of loopback.
func (s *site) config(name string) home {
	s.t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	c, err := config.Parse([]byte("node: "+name+"\ncluster: acme\ndataDir: data\n"+
		"client: {listen: '127.0.0.1:0'}\npeer: {listen: '127.0.0.1:0'}\n"+
		"gossip: {listen: '127.0.0.1:0'}\nops: {listen: '127.0.0.1:0'}\ndrain: {delay: 0s}\n"), dir)
	if err != nil {
		s.t.Fatal(err)
	}
	h := home{Config: c}
	if err := errors.Join(h.makeFolders(), h.SettlePorts()); err != nil {
		s.t.Fatal(err)
	}
	writeTestPair(s.t, h.Client.CertFile, h.Client.KeyFile, 1)
	return h
}

// syncBuffer is a log that the test reads while it is written.
type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs a node; stop ends it and returns what runNode did.
func (s *site) start(c home) (log *syncBuffer, stop func() error) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	log, ended := &syncBuffer{}, make(chan error, 1)
	go func() { ended <- runNode(ctx, c, heedSignals(), log) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patient):
			return errors.New("runNode does not return")
		}
	})
	s.t.Cleanup(func() { stop() })
	return log, stop
}

func (s *site) soon(what string, log *syncBuffer, yes func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patient); !yes(); {
		select {
		case <-tick.C:
		case <-late:
			s.t.Fatalf("never: %s\n%s", what, log)
		}
	}
}

// readyz is the status code, 0 while nobody answers.
func readyz(c home) int {
	response, err := http.Get("http://" + c.Ops.Listen + "/readyz")
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// birth is what armorctl init sends to a node that has identified itself.
func (s *site) birth(who rpc.InitIdentity) rpc.InitData {
	s.t.Helper()
	csr, err := pki.ParseCSR(who.CSR)
	if err != nil {
		s.t.Fatal(err)
	}
	cert := s.sign(csr.PublicKey, pki.NodeIdentity("acme", who.Node), true)
	point, err := s.operator.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	return rpc.InitData{
		Chain: [][]byte{cert.Raw, s.ca.Raw}, GossipKey: bytes.Repeat([]byte{7}, gossipKeySize),
		Bootstrap: armor.Bootstrap{
			Cluster: s.cluster,
			Member: armor.Member{ID: who.Node, Certificate: pki.Facts(cert, pki.SPKI(s.ca)), Voter: true, PeerAddress: who.PeerAddress,
				ClientAddress: who.ClientAddress, OpsAddress: who.OpsAddress},
			Operator: armor.Operator{Name: "ann", Certificate: pki.Facts(s.operator.Leaf, pki.SPKI(s.ca)), PublicKey: point,
				Roles: armor.OperatorRoles()},
		},
	}
}

// initialise does what armorctl init does.
func (s *site) initialise(c home, log *syncBuffer) {
	s.t.Helper()
	s.soon("the admin socket is there", log, func() bool { return file.Exist(c.AdminSocket) })
	client, err := rpc.OpenInit(c.AdminSocket)
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	who, err := client.Identify(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := client.Initialize(s.t.Context(), s.birth(who)); err != nil {
		s.t.Fatalf("%v\n%s", err, log)
	}
}

func (s *site) client(c home) *rpc.Client {
	s.t.Helper()
	client, err := rpc.Open(rpc.ClientConfig{Addresses: []string{c.Peer.Advertise}, Cluster: "acme", Certificate: s.operator, PeerCAs: []*x509.Certificate{s.ca}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { client.Close() })
	return client
}

func (s *site) submit(client *rpc.Client, c armor.Command) {
	s.t.Helper()
	if _, err := client.Submit(s.t.Context(), c, rpc.SubmitOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func TestNodeIsInitialisedOnceAndTakenUpAgain(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	log, stop := s.start(c)
	s.soon("it says that it is not ready", log, func() bool { return readyz(c) == http.StatusServiceUnavailable })
	s.initialise(c, log)
	s.soon("it is ready", log, func() bool { return readyz(c) == http.StatusOK })
	s.soon("it cannot be initialised again", log, func() bool { return !file.Exist(c.AdminSocket) && !file.Exist(c.foundingFile()) })
	if err := stop(); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	log, stop = s.start(c)
	s.soon("it is ready again", log, func() bool { return readyz(c) == http.StatusOK })
	if err := stop(); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
}

func TestNodeStoppedInTheMiddleOfInitFinishesItAtItsNextStart(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	i, err := newInitializer(c)
	if err != nil {
		t.Fatal(err)
	}
	who, _ := i.Identify(t.Context())
	if err := i.write(s.birth(who)); err != nil { // and then the power fails
		t.Fatal(err)
	}
	log, stop := s.start(c)
	s.soon("it is ready", log, func() bool { return readyz(c) == http.StatusOK })
	if err := stop(); err != nil || file.Exist(c.foundingFile()) {
		t.Fatalf("%v\n%s", err, log)
	}
}

func TestFoundingIsWrittenDownInFull(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	i, err := newInitializer(c)
	if err != nil {
		t.Fatal(err)
	}
	who, _ := i.Identify(t.Context())
	want := s.birth(who)
	if err := i.write(want); err != nil {
		t.Fatal(err)
	}
	f, err := c.begunFounding()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(f.data)
	if !bytes.Equal(a, b) || !reflect.DeepEqual(want.Bootstrap.Operator, f.data.Bootstrap.Operator) {
		t.Fatalf("%s\n%s", a, b)
	}
}

func TestInitRefusesWhatIsNotForThisNode(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	i, err := newInitializer(c)
	if err != nil {
		t.Fatal(err)
	}
	who, _ := i.Identify(t.Context())
	other, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*rpc.InitData){
		"another node":     func(d *rpc.InitData) { d.Bootstrap.Member.ID = "n2" },
		"another cluster":  func(d *rpc.InitData) { d.Bootstrap.Cluster.Name = "other" },
		"another key":      func(d *rpc.InitData) { d.Chain[0] = s.sign(other.Public(), pki.NodeIdentity("acme", "n1"), true).Raw },
		"an operator":      func(d *rpc.InitData) { d.Chain[0] = s.operator.Leaf.Raw },
		"no chain":         func(d *rpc.InitData) { d.Chain = nil },
		"short gossip key": func(d *rpc.InitData) { d.GossipKey = []byte{1} },
		"no CA":            func(d *rpc.InitData) { d.Bootstrap.Cluster.PeerCA = []byte("x") },
	} {
		d := s.birth(who)
		spoil(&d)
		if err := i.Initialize(t.Context(), d); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if c.enrolled() || file.Exist(c.foundingFile()) {
			t.Fatalf("%s: something was written", name)
		}
	}
}

func TestNodeJoinsWithATokenAndAnApproval(t *testing.T) {
	s := newSite(t)
	first := s.config("n1")
	log, _ := s.start(first)
	s.initialise(first, log)
	operator := s.client(first)

	second := s.config("n2")
	token := rpc.NewJoinToken("acme", "n2", s.ca)
	s.submit(operator, armor.CreateJoinToken{Token: armor.JoinToken{Hash: token.Hash(), Node: "n2", Voter: true,
		Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}})
	second.Join = config.Join{Addresses: []string{first.Peer.Advertise}, TokenFile: filepath.Join(s.dir, "token")}
	put(t, second.Join.TokenFile, token.Text()+"\n")
	log2, stop2 := s.start(second)
	var request armor.JoinRequest
	s.soon("it has asked", log2, func() bool {
		state, err := operator.State(t.Context(), armor.Joins)
		if err != nil {
			t.Fatal(err)
		}
		var asked bool
		request, asked = state.Joins.Get("n2")
		return asked
	})
	csr, err := pki.ParseCSR(request.CSR)
	if err != nil {
		t.Fatal(err)
	}
	cert := s.sign(csr.PublicKey, pki.NodeIdentity("acme", "n2"), true)
	s.submit(operator, armor.ApproveJoin{Node: "n2", Certificate: pki.Facts(cert, pki.SPKI(s.ca)), Chain: [][]byte{cert.Raw, s.ca.Raw}})
	s.soon("it is ready", log2, func() bool { return readyz(second) == http.StatusOK })
	s.soon("each node answers for itself", log2, func() bool {
		all, err := operator.Nodes(t.Context())
		return err == nil && len(all) == 2 && all[0].Unreachable == "" && all[1].Unreachable == ""
	})
	// What it was given is there at the next start: the token is spent.
	if err := stop2(); err != nil {
		t.Fatalf("%v\n%s", err, log2)
	}
	if err := os.Remove(second.Join.TokenFile); err != nil {
		t.Fatal(err)
	}
	log2, stop2 = s.start(second)
	s.soon("it is ready again", log2, func() bool { return readyz(second) == http.StatusOK })
	if err := stop2(); err != nil {
		t.Fatalf("%v\n%s", err, log2)
	}
}

func TestTokenOfAnotherNodeIsNotSpent(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	c.Join = config.Join{Addresses: []string{"127.0.0.1:1"}, TokenFile: filepath.Join(s.dir, "token")}
	for node, cluster := range map[armor.NodeID]string{"n2": "acme", "n1": "other"} {
		put(t, c.Join.TokenFile, rpc.NewJoinToken(cluster, node, s.ca).Text())
		if err := runNode(t.Context(), c, signals{}, &syncBuffer{}); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("node %s of %s: %v", node, cluster, err)
		}
		if _, err := c.joinToken(); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("node %s of %s: %v", node, cluster, err)
		}
	}
}

func TestRequestStaysTheSameUntilTheKeyIsReplaced(t *testing.T) {
	c := newSite(t).config("n1")
	request := func() []byte {
		t.Helper()
		key, err := c.nodeKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := c.request(key)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	first := request()
	if !bytes.Equal(first, request()) {
		t.Error("another request with the same key")
	}
	if err := os.Remove(c.Peer.KeyFile); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, request()) {
		t.Error("the request of a key that is gone")
	}
}

func TestNodeEndsWhenItsDirectoryIsAnothers(t *testing.T) {
	s := newSite(t)
	c := s.config("n1")
	log, stop := s.start(c)
	s.initialise(c, log)
	s.soon("it is ready", log, func() bool { return readyz(c) == http.StatusOK })
	thief := s.config("n2") // a second process on the same data
	thief.Node, thief.DataDir, thief.Gossip.KeyFile = "n1", c.DataDir, c.Gossip.KeyFile
	thief.Peer.CertFile, thief.Peer.KeyFile, thief.Peer.CAFile = c.Peer.CertFile, c.Peer.KeyFile, c.Peer.CAFile
	if err := runNode(t.Context(), thief, signals{}, &syncBuffer{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("got %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestEndOfStandardInputEndsTheContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx := untilEnd(t.Context(), r)
	w.Close()
	select {
	case <-ctx.Done():
	case <-time.After(patient):
		t.Fatal("goes on")
	}
	if !errors.Is(context.Cause(ctx), armor.ErrShuttingDown) {
		t.Fatalf("cause %v", context.Cause(ctx))
	}
}
