package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// refusedWho are the words of authorize, as opposed to those of a handler that looked
// into the question.
var refusedWho = regexp.MustCompile(`may not call|needs a certificate|is not a member|` +
	`there is no operator|has no role|lacks role|has another certificate|unknown service`)

// whoMayCall makes every call there is, with an empty question, and returns those that
// were not refused for who asked.
func whoMayCall(t *testing.T, address, alpn string, certificates ...tls.Certificate) []string {
	t.Helper()
	l := newLine(address, nearConnect, handshaken{},
		func(ctx context.Context) (net.Conn, error) { return dialLab(ctx, address, alpn, certificates...) })
	defer l.close()
	var allowed []string
	for _, service := range []grpc.ServiceDesc{armorpb.OperatorAPI_ServiceDesc,
		armorpb.PeerAPI_ServiceDesc, armorpb.JoinAPI_ServiceDesc, armorpb.InitAPI_ServiceDesc} {
		var methods []string
		for _, m := range service.Methods {
			methods = append(methods, m.MethodName)
		}
		for _, m := range service.Streams {
			methods = append(methods, m.StreamName)
		}
		for _, method := range methods {
			err := l.use(t.Context(), func(conn grpc.ClientConnInterface) error {
				return callWithNothing(t.Context(), conn, "/"+service.ServiceName+"/"+method)
			})
			if errors.Is(err, armor.ErrUnavailable) {
				t.Fatalf("%s: %v", method, err)
			}
			if err == nil || !refusedWho.MatchString(err.Error()) {
				allowed = append(allowed, strings.TrimPrefix(service.ServiceName, "armor.rpc.v1.")+"/"+method)
			}
		}
	}
	slices.Sort(allowed)
	return allowed
}

func callWithNothing(ctx context.Context, conn grpc.ClientConnInterface, method string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(&armorpb.Empty{}), stream.CloseSend()); err != nil {
		return err
	}
	return stream.RecvMsg(&armorpb.Empty{})
}

func TestNodeThatKnowsNothingYetAnswersBallotsOnly(t *testing.T) {
	l := newLab(t, 2)
	known := make(chan struct{})
	s, err := NewServer(ServerConfig{Node: l.nodes["n1"], Peers: l.nodes["n1"].peers, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	as := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: caller{kind: pki.Node, name: "n2", key: pki.SPKI(l.nodes["n2"].certificate.Leaf)}})
	service := "/" + armorpb.PeerAPI_ServiceDesc.ServiceName + "/"
	if err := s.authorize(as, service+"Poll"); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() { asked <- s.authorize(as, service+"Status") }()
	select {
	case err := <-asked:
		t.Fatalf("judged before it knew its members: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(known)
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
}

func TestEachCertificateReachesItsOwnCallsOnly(t *testing.T) {
	operators := []string{
		"OperatorAPI/Attest", "OperatorAPI/Denial", "OperatorAPI/Nodes", "OperatorAPI/Preview", "OperatorAPI/Save", "OperatorAPI/Sessions",
		"OperatorAPI/Submit", "OperatorAPI/Tables", "OperatorAPI/Validate", "OperatorAPI/Verify",
	}
	// Submit and Validate are judged by the leader and by the signature.
	judgedLater := []string{"OperatorAPI/Submit", "OperatorAPI/Validate"}
	nodes := []string{
		"PeerAPI/Attest", "PeerAPI/AwaitEnforced", "PeerAPI/Cancel", "PeerAPI/Clock", "PeerAPI/Denial", "PeerAPI/Drain",
		"PeerAPI/FileJoin", "PeerAPI/Order", "PeerAPI/Poll", "PeerAPI/Preview", "PeerAPI/Propose",
		"PeerAPI/Renew", "PeerAPI/Sessions", "PeerAPI/Status", "PeerAPI/Validate", "PeerAPI/Verify",
	}
	joiners := []string{"JoinAPI/File", "JoinAPI/Introduce", "JoinAPI/Result"}
	l := newLab(t, 2)
	viewer, nobody := l.enrol("vic", armor.Viewer), l.enrol("nora")
	replaced := l.enrol("rita", armor.OperatorRoles()...)
	l.enrol("rita", armor.OperatorRoles()...)
	address := l.nodes["n1"].address
	cases := []struct {
		name, alpn   string
		certificates []tls.Certificate
		want         []string
	}{
		{"operator", ALPN, []tls.Certificate{viewer}, operators},
		{"node admin", ALPN, []tls.Certificate{l.enrol("nell", armor.NodeAdmin)},
			slices.Sorted(slices.Values(append(slices.Clone(operators), "OperatorAPI/Drain", "OperatorAPI/Order")))},
		{"operator without a role", ALPN, []tls.Certificate{nobody}, judgedLater},
		{"operator with a replaced certificate", ALPN, []tls.Certificate{replaced}, judgedLater},
		{"operator that was never registered", ALPN, []tls.Certificate{l.issue(pki.OperatorIdentity(labCluster, "eve"), false)}, judgedLater},
		{"member", ALPN, []tls.Certificate{l.nodes["n2"].certificate}, nodes},
		{"node that is not a member", ALPN, []tls.Certificate{l.issue(pki.NodeIdentity(labCluster, "n9"), true)}, []string{"PeerAPI/Attest", "PeerAPI/Clock", "PeerAPI/Poll", "PeerAPI/Renew"}},
		{"nobody", ALPN, nil, nil},
		{"joiner", ALPNJoin, nil, joiners},
		{"member at the join port", ALPNJoin, []tls.Certificate{l.nodes["n2"].certificate}, joiners},
	}
	for _, c := range cases {
		if got := whoMayCall(t, address, c.alpn, c.certificates...); !slices.Equal(got, c.want) {
			t.Errorf("%s may call %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRequestsOfStrangersAreNotProposed(t *testing.T) {
	l := newLab(t, 2)
	for name, cert := range map[string]tls.Certificate{
		"unknown": l.issue(pki.OperatorIdentity(labCluster, "eve"), false),
		"no role": l.enrol("nora"),
	} {
		for _, through := range []armor.NodeID{"n1", "n2"} {
			c, err := Open(ClientConfig{Addresses: []string{l.nodes[through].address},
				Cluster: labCluster, ClusterID: labClusterID, Certificate: cert, PeerCA: l.ca})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{}); !errors.Is(err, armor.ErrDenied) {
				t.Errorf("%s through %s: %v", name, through, err)
			}
		}
	}
	if len(l.proposals()) != 0 {
		t.Errorf("proposed %v", l.proposals())
	}
}

// TestAMemberIsWhoHasItsKey, also for renewals: nobody reports in the name of another.
func TestAMemberIsWhoHasItsKey(t *testing.T) {
	l := newLab(t, 2)
	renew := func(c tls.Certificate, name armor.NodeID) error {
		line := newLine("n1", nearConnect, handshaken{},
			func(ctx context.Context) (net.Conn, error) { return dialLab(ctx, l.nodes["n1"].address, ALPN, c) })
		defer line.close()
		return line.use(t.Context(), func(conn grpc.ClientConnInterface) error {
			_, err := armorpb.NewPeerAPIClient(conn).Renew(t.Context(), toMessage[armorpb.Renewal](armor.Renewal{Node: name}))
			return err
		})
	}
	former, other := l.issue(pki.NodeIdentity(labCluster, "n9"), true), l.issue(pki.NodeIdentity(labCluster, "n9"), true)
	if err := renew(former, "n9"); errors.Is(err, armor.ErrDenied) {
		t.Errorf("a node that is not known here yet: %v", err)
	}
	if err := renew(l.issue(pki.NodeIdentity(labCluster, "n2"), true), "n2"); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("another key of a member's name: %v", err)
	}
	l.change(func(s *armor.State) {
		s.Tombstones = s.Tombstones.With(armor.Tombstone{ID: "n9", FormerKey: pki.SPKI(former.Leaf)})
	})
	if err := renew(former, "n9"); errors.Is(err, armor.ErrDenied) {
		t.Errorf("the last word of a removed node: %v", err)
	}
	if err := renew(other, "n9"); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("another key of a removed node's name: %v", err)
	}
}

func TestANodeWithoutStateDeniesNobody(t *testing.T) {
	l := newLab(t, 2)
	ada := l.enrol("ada", armor.OperatorRoles()...)
	knowing := l.client(ada, "n1")
	if _, err := knowing.State(t.Context(), armor.Members); err != nil || knowing.clusterID != labClusterID {
		t.Fatalf("the client does not remember cluster %q: %v", knowing.clusterID, err)
	}
	n1 := l.nodes["n1"]
	n1.mu.Lock()
	n1.behind, n1.catchUp = &armor.State{}, func() bool { return false }
	n1.mu.Unlock()
	if _, err := l.client(ada, "n1").Nodes(t.Context()); !errors.Is(err, armor.ErrUnavailable) || errors.Is(err, armor.ErrDenied) {
		t.Errorf("an operator: %v", err)
	}
	if _, err := l.nodes["n2"].peers.Cancel(t.Context(), "n1", armor.CancelKey{}, false); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("a node: %v", err)
	}
	_, err := knowing.Submit(brief(t), putEnvironment, SubmitOptions{})
	for range 20 { // the deadline may strike while a call is under way, and then nobody can tell
		if !errors.Is(err, armor.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) {
			break
		}
		_, err = knowing.Submit(brief(t), putEnvironment, SubmitOptions{})
	}
	if !errors.Is(err, armor.ErrUnavailable) || errors.Is(err, armor.ErrUncertain) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a change: %v", err)
	}
	if _, err := l.client(ada, "n1", "n2").Nodes(t.Context()); err != nil {
		t.Errorf("the next node was not asked: %v", err)
	}
}

func TestClientRefusesWhatIsNoNodeOfItsCluster(t *testing.T) {
	l, other := newLab(t, 1), newLab(t, 1)
	ada := l.enrol("ada", armor.OperatorRoles()...)
	c, err := Open(ClientConfig{Addresses: []string{other.nodes["n1"].address}, Cluster: labCluster, Certificate: ada, PeerCA: l.ca})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Nodes(t.Context()); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("a node of another CA: %v", err)
	}
	if _, err := Open(ClientConfig{Addresses: []string{"x:1"}, Cluster: labCluster,
		Certificate: l.nodes["n1"].certificate, PeerCA: l.ca}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("opened with a node's certificate: %v", err)
	}
	if _, err := Open(ClientConfig{Addresses: []string{"x:1"}, Cluster: "Other",
		Certificate: ada, PeerCA: l.ca}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("opened for another cluster: %v", err)
	}
}

func TestConnectionsWithoutTLSAreRefused(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := callerOf(a); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("%v", err)
	}
}
