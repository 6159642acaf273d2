package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

var putEnvironment = armor.PutEnvironment{Environment: armor.Environment{Name: "production"}}

// brief is a ctx that ends before the test would notice, for calls that cannot succeed.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestAnyNodePassesAChangeOnToTheLeader(t *testing.T) {
	l := newLab(t, 3)
	ada := l.enrol("ada", armor.OperatorRoles()...)
	for _, node := range []armor.NodeID{"n1", "n2", "n3"} {
		c := l.client(ada, node)
		out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{})
		if err != nil {
			t.Fatalf("through %s: %v", node, err)
		}
		if out.Result.Revision == 0 || out.Result.Term != 3 || out.Result.Repeated || out.Enforcement != nil {
			t.Errorf("through %s: %+v", node, out)
		}
		s, err := c.State(t.Context(), armor.Environments)
		if err != nil || s.Revision < out.Result.Revision || !s.Environments.Has("production") {
			t.Errorf("through %s: the change is not in the state: %v", node, err)
		}
	}
	if n := len(l.proposals()); n != 3 {
		t.Errorf("%d proposals of 3 changes", n)
	}
	for _, r := range l.proposals() {
		if r.Principal != "ada" || r.Expires.IsZero() || len(r.Signature) == 0 {
			t.Errorf("proposed %+v", r)
		}
	}
}

func TestWhatIsReadThroughTheSameNodeContainsTheChange(t *testing.T) {
	l := newLab(t, 2)
	ada := l.enrol("ada", armor.OperatorRoles()...)
	n2 := l.nodes["n2"]
	submitting := true
	behind, _ := n2.Current()
	n2.mu.Lock()
	n2.behind, n2.catchUp = behind, func() bool { return submitting && len(l.proposals()) > 0 }
	n2.mu.Unlock()
	out, err := l.client(ada, "n2").Submit(t.Context(), putEnvironment, SubmitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n2.mu.Lock()
	submitting = false
	n2.mu.Unlock()
	s, err := l.client(ada, "n2").State(t.Context(), armor.Environments) // another client, which has seen nothing
	if err != nil || s.Revision < out.Result.Revision {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestARequestIsPassedOnOnce(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	l.nodes["n1"].believes = "n2"                               // it is learned of by the first answer, and does not lead either
	l.nodes["n2"].believes, l.nodes["n3"].believes = "n3", "n2" // they would send it round for ever
	_, err := c.Submit(brief(t), putEnvironment, SubmitOptions{})
	if !errors.Is(err, armor.ErrNoQuorum) || errors.Is(err, armor.ErrUncertain) {
		t.Errorf("no leader was reached: %v", err)
	}
	if err := c.DryRun(t.Context(), putEnvironment); !errors.Is(err, armor.ErrNoQuorum) {
		t.Errorf("dry run: %v", err)
	}
}

func TestRefusalsByTheMachineKeepTheirRevisionAndKind(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	l.onPropose(func(*labNode, armor.Request) (armor.Result, error) {
		err := errors.Join(armor.ErrConflict, errors.New("it exists"))
		return armor.Result{Revision: 99, Term: 4, Err: err}, err
	})
	out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{Wait: WaitAll})
	if !errors.Is(err, armor.ErrConflict) || errors.Is(err, armor.ErrUncertain) ||
		out.Result.Revision != 99 || out.Result.Err == nil || out.Enforcement != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestUncertainChangesAreRetriedWithTheSameRequestID(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2", "n1")
	var tries atomic.Int32
	l.onPropose(func(n *labNode, r armor.Request) (armor.Result, error) {
		result, err := l.commit(r)
		if tries.Add(1) == 1 {
			return armor.Result{}, armor.ErrUncertain // it landed, and nobody can tell
		}
		return result, err
	})
	id := NewRequestID()
	out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{RequestID: id})
	if err != nil || !out.Result.Repeated || out.RequestID != id {
		t.Errorf("%+v, %v", out, err)
	}
	all := l.proposals()
	if len(all) != 2 || all[0].ID != id || all[1].ID != id {
		t.Errorf("proposed %v", all)
	}
}

func TestAConnectionLostMidCommitIsUncertain(t *testing.T) {
	for _, through := range []armor.NodeID{"n1", "n2"} {
		l := newLab(t, 2)
		c := l.client(l.enrol("ada", armor.OperatorRoles()...), through)
		l.onPropose(func(n *labNode, r armor.Request) (armor.Result, error) {
			n.listener.cutAll()
			l.onPropose(func(*labNode, armor.Request) (armor.Result, error) { return armor.Result{}, armor.ErrNoQuorum })
			return armor.Result{}, armor.ErrNoQuorum // which nobody hears
		})
		_, err := c.Submit(brief(t), putEnvironment, SubmitOptions{})
		if !errors.Is(err, armor.ErrUncertain) || errors.Is(err, armor.ErrNoQuorum) || errors.Is(err, armor.ErrUnavailable) {
			t.Errorf("through %s: %v", through, err)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("through %s: it does not say that time was up: %v", through, err)
		}
	}
}

func TestOnceUncertainStaysUncertainUntilThereIsAnOutcome(t *testing.T) {
	later := map[string]error{"no quorum": armor.ErrNoQuorum, "expired": armor.ErrExpired,
		"denied": armor.ErrDenied, "not leader": &armor.NotLeaderError{}}
	for name, second := range later {
		l := newLab(t, 1)
		c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n1")
		var tries atomic.Int32
		l.onPropose(func(*labNode, armor.Request) (armor.Result, error) {
			if tries.Add(1) == 1 {
				return armor.Result{}, armor.ErrUncertain
			}
			return armor.Result{}, second
		})
		_, err := c.Submit(brief(t), putEnvironment, SubmitOptions{})
		if !errors.Is(err, armor.ErrUncertain) || errors.Is(err, second) || errors.Is(err, armor.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingSentIsNeverUncertain(t *testing.T) {
	l := newLab(t, 2)
	ada := l.enrol("ada", armor.OperatorRoles()...)
	c := l.client(ada, "n1", "n2")
	l.lead("")
	_, err := c.Submit(brief(t), putEnvironment, SubmitOptions{})
	if !errors.Is(err, armor.ErrNoQuorum) || errors.Is(err, armor.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no leader: %v", err)
	}
	l.lead("n1")
	l.nodes["n1"].kill() // n2 finds the leader gone
	_, err = l.client(ada, "n2").Submit(brief(t), putEnvironment, SubmitOptions{})
	if !errors.Is(err, armor.ErrUnavailable) || errors.Is(err, armor.ErrUncertain) {
		t.Errorf("leader gone: %v", err)
	}
	l.nodes["n2"].kill()
	nobody, err := Open(ClientConfig{Addresses: c.cfg.Addresses, Cluster: labCluster, ClusterID: labClusterID, Certificate: ada, PeerCAs: []*x509.Certificate{l.ca}})
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	_, err = nobody.Submit(brief(t), putEnvironment, SubmitOptions{})
	if !errors.Is(err, armor.ErrUnavailable) || errors.Is(err, armor.ErrUncertain) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := c.Nodes(t.Context()); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
}

func TestClientFailsOverAndStaysWithWhoAnswers(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2", "n1")
	if _, err := c.Nodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.nodes["n2"].kill()
	if _, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{}); err != nil {
		t.Fatal(err)
	}
	if c.preferred() != c.lines[1] {
		t.Error("the next call would ask the dead node first")
	}
}

func TestWaitAllTellsWhoEnforces(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{Wait: WaitAll})
	if err != nil || out.Enforcement == nil || !out.Enforcement.Complete ||
		len(out.Enforcement.Nodes) != 1 || out.Enforcement.Nodes[0].Closed != 2 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestPatienceEndsWithWhatIsKnown(t *testing.T) {
	for _, through := range []armor.NodeID{"n1", "n2"} {
		l := newLab(t, 2)
		c := l.client(l.enrol("ada", armor.OperatorRoles()...), through)
		l.onAwait(func(ctx context.Context, n *labNode, r armor.Result) (armor.Enforcement, error) {
			<-ctx.Done()
			e := n.enforcement(r)
			e.Complete = false
			return e, nil
		})
		out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{Wait: WaitAll, Patience: 100 * time.Millisecond})
		if !errors.Is(err, armor.ErrUnconfirmed) || out.Result.Revision == 0 || out.Enforcement == nil || len(out.Enforcement.Nodes) != 1 {
			t.Errorf("through %s: %+v, %v", through, out, err)
		}
	}
}

func TestTheNextLeaderIsAskedWhoEnforces(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	l.onAwait(func(_ context.Context, n *labNode, r armor.Result) (armor.Enforcement, error) {
		if n.id == "n1" {
			l.lead("n3")
			return armor.Enforcement{}, &armor.NotLeaderError{Leader: "n3"}
		}
		return n.enforcement(r), nil
	})
	out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{Wait: WaitAll})
	if err != nil || out.Enforcement.Nodes[0].Node != "n3" {
		t.Errorf("%+v, %v", out, err)
	}
	if n := len(l.proposals()); n != 1 {
		t.Errorf("proposed %d times", n)
	}
}

func TestWaitNoneBeginsAndTheSameIDAsksLater(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	out, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{Wait: WaitNone})
	if err != nil || out.Result.Revision != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	again, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{RequestID: out.RequestID})
	if err != nil || again.Result.Revision == 0 {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := c.Submit(t.Context(), armor.RemoveMember{Node: "n1"}, SubmitOptions{Wait: WaitNone}); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a change that the leader refuses: %v", err)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2")
	if err := c.DryRun(t.Context(), putEnvironment); err != nil {
		t.Error(err)
	}
	if err := c.DryRun(t.Context(), armor.RemoveMember{Node: "n1"}); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("what would be refused: %v", err)
	}
	if len(l.proposals()) != 0 {
		t.Error("a dry run was proposed")
	}
}

func TestOptionsThatMeanNothingAreRefused(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n1")
	for _, o := range []SubmitOptions{{RequestID: "x"}, {Wait: "some"}, {Patience: -1}, {Patience: 2 * maxPatience}} {
		if _, err := c.Submit(t.Context(), putEnvironment, o); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := c.Submit(t.Context(), nil, SubmitOptions{}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no command: %v", err)
	}
}

// A node that passes a request on is not believed: the signature is in the request.
func TestTheLeaderBelievesTheSignatureAndNotTheNode(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n1")
	m, err := c.sign(t.Context(), armor.Request{ID: NewRequestID(), Command: putEnvironment})
	if err != nil {
		t.Fatal(err)
	}
	m.Command = &wire.Command{Kind: &wire.Command_PutEnvironment{
		PutEnvironment: &wire.PutEnvironment{Environment: &wire.Environment{Name: "mine"}},
	}}
	if _, err := l.nodes["n2"].peers.propose(t.Context(), "n1", m, false); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("a changed request: %v", err)
	}
	if len(l.proposals()) != 0 {
		t.Error("it was proposed")
	}
}

func TestAuthorityIsCheckedBeforeProposing(t *testing.T) {
	l := newLab(t, 2)
	bob := l.enrol("bob", armor.Viewer)
	c := l.client(bob, "n2")
	if _, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{}); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("without the role: %v", err)
	}
	if err := c.DryRun(t.Context(), putEnvironment); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("dry run without the role: %v", err)
	}
	for _, own := range []armor.Command{armor.PruneExpired{}, armor.Bootstrap{}, armor.SetShares{}, armor.RequestJoin{}} {
		if _, err := l.client(l.enrol("ada", armor.OperatorRoles()...), "n2").Submit(
			t.Context(), own, SubmitOptions{}); !errors.Is(err, armor.ErrDenied) {
			t.Errorf("the cluster's own %s: %v", own.Kind(), err)
		}
	}
	// bob's connection, and a request that ada signed.
	ada := l.enrol("ada", armor.OperatorRoles()...)
	stolen := l.client(bob, "n2")
	stolen.operator, stolen.key = "ada", ada.PrivateKey.(*ecdsa.PrivateKey)
	if _, err := stolen.Submit(t.Context(), putEnvironment, SubmitOptions{}); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("in another's name: %v", err)
	}
	if len(l.proposals()) != 0 {
		t.Errorf("proposed %v", l.proposals())
	}
}

func TestPanicsAreErrorsAndUncertain(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n1")
	l.onPropose(func(*labNode, armor.Request) (armor.Result, error) { panic("a broken invariant") })
	if _, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{}); !errors.Is(err, armor.ErrUncertain) {
		t.Errorf("%v", err)
	}
	if _, err := c.Nodes(t.Context()); err != nil {
		t.Errorf("the server did not survive: %v", err)
	}
}

// robber is a node whose answers come from somebody who holds its key, and who keeps what
// operators send.
type robber struct {
	armorpb.UnimplementedOperatorAPIServer
	got chan *armorpb.Request
}

func (r *robber) Validate(_ context.Context, q *armorpb.ValidateRequest) (*armorpb.Empty, error) {
	r.got <- q.Request
	return &armorpb.Empty{}, nil
}

func TestDryRunIsNeverCarriedOut(t *testing.T) {
	l := newLab(t, 2)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{l.nodes["n2"].certificate}, NextProtos: []string{ALPN},
		ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	thief, server := &robber{got: make(chan *armorpb.Request, 1)}, grpc.NewServer()
	armorpb.RegisterOperatorAPIServer(server, thief)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	c, err := Open(ClientConfig{
		Addresses: []string{listener.Addr().String()}, Cluster: labCluster, Certificate: l.enrol("ada", armor.OperatorRoles()...), PeerCAs: []*x509.Certificate{l.ca},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.clusterID = labClusterID
	if err := c.DryRun(t.Context(), putEnvironment); err != nil {
		t.Fatal(err)
	}
	request := <-thief.got
	if _, err := l.nodes["n2"].peers.propose(t.Context(), "n1", request, false); !errors.Is(err, armor.ErrDenied) || len(l.proposals()) > 0 {
		t.Fatalf("what was signed for a dry run: %v, %d proposed", err, len(l.proposals()))
	}
	if err := l.nodes["n2"].peers.validate(t.Context(), "n1", request); err != nil {
		t.Fatalf("as the question that it is: %v", err)
	}
}

func TestRequestIsSignedForLogTimeThatIsALittleAhead(t *testing.T) {
	l := newLab(t, 1)
	for ahead, signedFor := range map[time.Duration]time.Duration{
		armor.RequestWindow - time.Minute: armor.RequestWindow - time.Minute, // it was mended a minute ago
		armor.RequestWindow + time.Minute: 0, -time.Hour: 0,
	} {
		c := l.client(l.enrol("ada", armor.OperatorRoles()...), "n1")
		began := time.Now()
		l.mu.Lock()
		l.state.Time = began.Add(ahead)
		l.mu.Unlock()
		if _, err := c.Submit(t.Context(), putEnvironment, SubmitOptions{}); err != nil {
			t.Fatal(err)
		}
		all := l.proposals()
		expires := all[len(all)-1].Expires
		if off := expires.Sub(began.Add(signedFor + requestLife)); off < 0 || off > time.Since(began) {
			t.Errorf("log time is %s ahead, and the request is signed until %s", ahead, expires)
		}
	}
}
