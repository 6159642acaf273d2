package rpc

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// labDialJoin connects as the node-to-node link's DialJoin does.
func labDialJoin(ctx context.Context, address string, verify func([]*x509.Certificate) error) (*tls.Conn, error) {
	conn, err := dialLab(ctx, address, ALPNJoin)
	if err != nil {
		return nil, err
	}
	return conn, verify(conn.ConnectionState().PeerCertificates)
}

// invite makes a token for node n4 and what n4 joins with.
func (l *lab) invite(addresses ...armor.NodeID) JoinConfig {
	l.t.Helper()
	token := NewJoinToken(labCluster, "n4", l.ca)
	l.change(func(s *armor.State) {
		s.Tokens = s.Tokens.With(armor.JoinToken{Hash: token.Hash(), Node: "n4", Voter: true, Expires: s.Time.Add(time.Hour)})
	})
	key, err := pki.NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	csr, err := pki.NewCSR(key, pki.NodeIdentity(labCluster, "n4"))
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := JoinConfig{Token: token, Key: key, CSR: csr, PeerAddress: "n4:6433",
		ClientAddress: "n4:6432", OpsAddress: "n4:6435", Dial: labDialJoin}
	for _, n := range addresses {
		cfg.Addresses = append(cfg.Addresses, l.nodes[n].address)
	}
	return cfg
}

// approve waits for n4's request and admits it with a certificate for key.
func (l *lab) approve(ctx context.Context, key crypto.Signer) {
	for {
		state, superseded := l.nodes["n1"].Current()
		if request, ok := state.Joins.Get("n4"); ok {
			cert := l.certify(pki.NodeIdentity(labCluster, "n4"), true, key)
			l.change(func(s *armor.State) {
				request.Chain = cert.Certificate
				s.Joins = s.Joins.With(request)
			})
			return
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return
		}
	}
}

func TestAJoinerIsAdmittedThroughAnyNodeOnceAnOperatorApproves(t *testing.T) {
	l := newLab(t, 3)
	l.nodes["n3"].kill()
	cfg := l.invite("n3", "n2")
	var approving sync.WaitGroup
	approving.Go(func() { l.approve(t.Context(), cfg.Key) })
	defer approving.Wait()
	got, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got.ClusterID != labClusterID || got.ClusterName != labCluster || string(got.GossipKey) != "gossip key" ||
		len(got.Chain) != 1 || len(got.Voters) != 3 || got.Voters[0] != (Voter{"n1", l.nodes["n1"].address}) {
		t.Errorf("%+v", got)
	}
	filed := l.own[0].(armor.RequestJoin)
	if filed.Token != cfg.Token.Hash() || filed.Request.PeerAddress != "n4:6433" ||
		filed.Request.ClientAddress != "n4:6432" || filed.Request.OpsAddress != "n4:6435" {
		t.Errorf("filed %+v", filed)
	}
	// A joiner that died before it had saved the answer asks again, with a token spent.
	if again, err := Join(t.Context(), cfg); err != nil || len(again.Chain) != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
}

func TestEveryBadTokenGetsTheSameAnswer(t *testing.T) {
	l := newLab(t, 2)
	good := l.invite("n2")
	unknown, others, expired := good, good, good
	unknown.Token = NewJoinToken(labCluster, "n4", l.ca)
	others.Token = NewJoinToken(labCluster, "n4", l.ca)
	expired.Token = NewJoinToken(labCluster, "n4", l.ca)
	l.change(func(s *armor.State) {
		s.Tokens = s.Tokens.With(armor.JoinToken{Hash: others.Token.Hash(), Node: "n5", Expires: s.Time.Add(time.Hour)})
		s.Tokens = s.Tokens.With(armor.JoinToken{Hash: expired.Token.Hash(), Node: "n4", Expires: s.Time.Add(-1)})
	})
	for name, cfg := range map[string]JoinConfig{"unknown": unknown, "another node's": others, "expired": expired} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // a token that is taken waits for an operator
		_, err := Join(ctx, cfg)
		cancel()
		if !errors.Is(err, armor.ErrDenied) || err.Error() != errToken.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A node of the cluster that knows the hash, as all do, knows no secret.
	hash := good.Token.Hash()
	err := l.nodes["n2"].peers.fileJoin(t.Context(), "n1",
		&armorpb.JoinFiling{Secret: hash[:], Node: "n4", Csr: good.CSR, PeerAddress: "n4:1"})
	if !errors.Is(err, armor.ErrDenied) {
		t.Errorf("the hash was taken for the secret: %v", err)
	}
	if len(l.own) != 0 {
		t.Errorf("filed %v", l.own)
	}
}

func TestTheSecretIsToldToNobodyButTheClustersNodes(t *testing.T) {
	l, evil := newLab(t, 1), newLab(t, 1)
	cfg := l.invite("n1")
	cfg.Addresses = []string{evil.nodes["n1"].address}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Join(ctx, cfg); !errors.Is(err, armor.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another CA: %v", err)
	}
	// It can show the right CA, but no certificate of it.
	evil.change(func(s *armor.State) { s.Cluster.PeerCA = l.ca.Raw })
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Join(ctx, cfg); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("the right CA shown by the wrong node: %v", err)
	}
	evil.mu.Lock()
	defer evil.mu.Unlock()
	if len(evil.own) != 0 {
		t.Error("the secret was told")
	}
}

// The token is spent when the question is asked, and the answer holds the gossip key:
// the asker proves the key of its certificate request, on this connection.
func TestOnlyTheHolderOfTheKeyGetsTheAnswer(t *testing.T) {
	l := newLab(t, 1)
	cfg := l.invite("n1")
	var approving sync.WaitGroup
	approving.Go(func() { l.approve(t.Context(), cfg.Key) })
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	approving.Wait()
	thief, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	address := l.nodes["n1"].address
	ask := func(node armor.NodeID, proof []byte) error {
		line := newLine(address, nearConnect, handshaken{},
			func(ctx context.Context) (net.Conn, error) { return dialLab(ctx, address, ALPNJoin) })
		defer line.close()
		return line.use(t.Context(), func(conn grpc.ClientConnInterface) error {
			_, err := armorpb.NewJoinAPIClient(conn).Result(t.Context(), &armorpb.JoinQuestion{Node: string(node), Proof: proof})
			return err
		})
	}
	conn, err := dialLab(t.Context(), address, ALPNJoin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	digest, err := joinProof(caller{conn: conn}, "n4")
	if err != nil {
		t.Fatal(err)
	}
	otherConnections, err := cfg.Key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	thiefs, err := thief.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for name, proof := range map[string][]byte{"none": nil, "of another connection": otherConnections, "of another key": thiefs} {
		if err := ask("n4", proof); !errors.Is(err, armor.ErrDenied) || err.Error() != errToken.Error() {
			t.Errorf("proof %s: %v", name, err)
		}
	}
	if err := ask("n9", thiefs); err == nil || err.Error() != errToken.Error() {
		t.Errorf("a node that never asked: %v", err)
	}
}

func TestAJoinerTakesOnlyACertificateForItsOwnKey(t *testing.T) {
	l := newLab(t, 1)
	cfg := l.invite("n1")
	other, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var approving sync.WaitGroup
	approving.Go(func() { l.approve(t.Context(), other) })
	defer approving.Wait()
	if _, err := Join(t.Context(), cfg); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("%v", err)
	}
}

func TestStrangersAreLimited(t *testing.T) {
	limits := newJoinLimits()
	var err error
	for range joinBurst + 1 {
		err = limits.admit(t.Context(), "")
	}
	if !errors.Is(err, armor.ErrExhausted) {
		t.Errorf("after %d calls at once: %v", joinBurst+1, err)
	}
}

// TestAJoinerBelievesAPeerCAThatItsPinnedOneEndorses, and no other one that a node shows beside it.
func TestAJoinerBelievesAPeerCAThatItsPinnedOneEndorses(t *testing.T) {
	for name, endorsed := range map[string]bool{"endorsed": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1) // whose node has a certificate of the next CA
			old, oldKey, err := pki.NewCA(pki.CAConfig{Kind: pki.PeerCA, CommonName: "old peers",
				TrustDomain: pki.ClusterDomain(labCluster), Lifetime: 24 * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			signer := oldKey
			if !endorsed {
				signer = l.caKey
			}
			endorsement, err := pki.Endorse(signer, labCluster, l.ca)
			if err != nil {
				t.Fatal(err)
			}
			cfg := l.invite("n1")
			cfg.Token = NewJoinToken(labCluster, "n4", old)
			l.change(func(s *armor.State) {
				s.Tokens = s.Tokens.With(armor.JoinToken{Hash: cfg.Token.Hash(), Node: "n4", Expires: s.Time.Add(time.Hour)})
				s.SetPeerCAs(old.Raw, l.ca.Raw, endorsement)
			})
			if !endorsed {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				if _, err := Join(ctx, cfg); !errors.Is(err, armor.ErrUnavailable) {
					t.Errorf("joined: %v", err)
				}
				return
			}
			var approving sync.WaitGroup
			approving.Go(func() { l.approve(t.Context(), cfg.Key) })
			defer approving.Wait()
			got, err := Join(t.Context(), cfg)
			if err != nil || len(got.PeerCAs) != 2 || !got.PeerCAs[1].Equal(l.ca) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}
