package tlsedge

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/tlsedge/testca"
)

// asking makes checkout's grant ask for a password that these verifiers check.
func asking(verifiers armor.SecretName) func(*armor.State) {
	return func(s *armor.State) {
		g := ordersGrant()
		g.SecondFactor = armor.SCRAM
		testca.Granted("production", "spiffe://production.test"+appID, g)(s)
		d, _ := s.Databases.Get("production/orders")
		d.Verifiers = verifiers
		s.Databases = s.Databases.With(d)
	}
}

func TestSessionThatProvedItsSecondFactorGoesOnUntilOtherVerifiersAreAsked(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Handler.(*echo).proved = armor.SCRAM })
	r.trust.Publish(asking("apps"))
	conn := r.live(t, r.ca.Leaf(t, appID))
	r.seen.await(t, r.trust.Publish(asking("apps")))
	answers(t, conn)
	revision := r.trust.Publish(asking("apps-2025"))
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonSecondFactor || record.Revision != revision {
		t.Errorf("%+v", record)
	}
	r.seen.await(t, revision)
}

// TestSecondFactorAddedDuringTheLoginIsDemanded: between admission and the end of the
// login no revision demands anything of the session, so the end must look again.
func TestSecondFactorAddedDuringTheLoginIsDemanded(t *testing.T) {
	var r *rig
	revision := make(chan uint64, 1)
	r = newRig(t, func(c *Config) {
		c.Handler.(*echo).beforeProved = func() {
			added := r.trust.Publish(asking("apps"))
			r.seen.await(t, added) // it has been judged already, as one that is still logging in
			revision <- added
		}
	})
	cert := r.ca.Leaf(t, appID)
	_, answer, err := r.login(t, &cert, "orders", "checkout_rw")
	if err != nil {
		t.Fatal(err)
	}
	record, ok := r.edge.Denial(parseFatal(answer).denialID())
	if !ok || record.Denial.Reason != armor.ReasonSecondFactor || record.Revision != <-revision {
		t.Errorf("%q: %+v", answer, record)
	}
}

// TestNothingIsHandedOverUnproved: the edge does not rely on its Handler.
func TestNothingIsHandedOverUnproved(t *testing.T) {
	handed := make(chan error, 1)
	r := newRig(t, func(c *Config) {
		c.Handler.(*echo).onServe = func(_ net.Conn, s *Session) {
			if _, err := s.Admit("orders", "checkout_rw", armor.NoReplication); err != nil {
				handed <- err
				return
			}
			handed <- s.HandOver(func(error, func()) {})
		}
	})
	r.trust.Publish(asking("apps"))
	cert := r.ca.Leaf(t, appID)
	conn, err := upgrade(r.dial(t), r.clientConfig(&cert))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-handed; err != errUnproved {
		t.Errorf("HandOver: %v", err)
	}
	conn.Close()
}

func TestEndPointIsThatOfTheCertificateThatTheClientWasShown(t *testing.T) {
	first, second := testca.New(t, "", "server.test"), testca.New(t, "", "server.test")
	served := []tls.Certificate{first.Server(t), second.Server(t)}
	now := make(chan *tls.Certificate, 2)
	got := make(chan []byte, 2)
	r := newRig(t, func(c *Config) {
		c.Certificate = func() (*tls.Certificate, error) { return <-now, nil }
		c.Handler.(*echo).onServe = func(_ net.Conn, s *Session) { got <- s.EndPoint() }
	})
	cert := r.ca.Leaf(t, appID)
	cfg := r.clientConfig(&cert)
	cfg.InsecureSkipVerify = true
	for i := range served {
		now <- &served[i]
		conn, err := upgrade(r.dial(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
		if !bytes.Equal(<-got, want[:]) {
			t.Errorf("certificate %d: another end point than the client's", i)
		}
		conn.Close()
	}
}

func TestOnlySHA2SignaturesHaveAnEndPoint(t *testing.T) {
	ca := testca.New(t, "", "server.test")
	good := ca.Server(t)
	unparsed := good
	unparsed.Leaf = nil
	want := sha256.Sum256(good.Certificate[0])
	for name, c := range map[string]*tls.Certificate{"parsed": &good, "not parsed": &unparsed} {
		if got := endPoint(c); !bytes.Equal(got, want[:]) {
			t.Errorf("%s: %x", name, got)
		}
	}
	sha384 := selfSigned(t, x509.ECDSAWithSHA384)
	if want := sha512.Sum384(sha384.Certificate[0]); !bytes.Equal(endPoint(sha384), want[:]) {
		t.Error("SHA-384 is not hashed by SHA-384")
	}
	for name, c := range map[string]*tls.Certificate{"Ed25519": selfSigned(t, x509.PureEd25519), "none": nil, "empty": {}} {
		if got := endPoint(c); got != nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func selfSigned(t *testing.T, algorithm x509.SignatureAlgorithm) *tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if algorithm == x509.PureEd25519 {
		if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SignatureAlgorithm: algorithm,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
