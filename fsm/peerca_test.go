package fsm

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// withPeerCA has the lab's cluster begin with a peer CA whose key signs by PeerCAPrincipal.
func withPeerCA(t *testing.T) *lab {
	l := newLab(t)
	b := l.bootstrap("n1", "ada")
	b.Cluster.PeerCA = l.peerCADER(armor.PeerCAPrincipal)
	l.must(l.node("n1", b))
	return l
}

// peerCADER stands for a CA certificate that has the named key.
func (l *lab) peerCADER(key string) []byte {
	point := l.operator(key).PublicKey
	return slices.Concat([]byte("DER before "), p256SPKI, point, []byte(" and after"))
}

func rescue(o armor.Operator) armor.RescueOperator { return armor.RescueOperator{Operator: o} }

func TestThePeerCANamesAnOperatorWhereNoneIsLeft(t *testing.T) {
	l := withPeerCA(t)
	bob := l.operator("bob", armor.OperatorRoles()...)
	l.expect(l.by(armor.PeerCAPrincipal, rescue(bob)), armor.ErrDenied) // ada's certificate is good
	l.now = l.now.Add(year + time.Hour)
	bob.Certificate.NotAfter = l.now.Add(year)
	weak := bob
	weak.Roles = []armor.OperatorRole{armor.Viewer}
	l.expect(l.by(armor.PeerCAPrincipal, rescue(weak)), armor.ErrInvalid)
	l.expect(l.apply(forged(l.request(armor.PeerCAPrincipal, rescue(bob)))), armor.ErrDenied)
	l.expect(l.by("bob", rescue(bob)), armor.ErrDenied)                                      // by his own key
	l.expect(l.by("ada", rescue(bob)), armor.ErrDenied)                                      // who is over
	l.expect(l.node("n1", rescue(bob)), armor.ErrDenied)                                     // by a stolen node
	l.expect(l.by(armor.PeerCAPrincipal, armor.PutOperator{Operator: bob}), armor.ErrDenied) // by any other act
	l.expect(l.by(armor.PeerCAPrincipal, armor.CreateJoinToken{}), armor.ErrDenied)
	l.must(l.by(armor.PeerCAPrincipal, rescue(bob)))
	l.must(l.by("bob", armor.PutEnvironment{Environment: armor.Environment{Name: "test"}}))
	carol := l.operator("carol", armor.OperatorRoles()...)
	carol.Certificate.NotAfter = bob.Certificate.NotAfter
	l.expect(l.by(armor.PeerCAPrincipal, rescue(carol)), armor.ErrDenied) // there is one again
	replayTwice(t, l)
}

func TestAPeerCAOfAnotherKindOfKeyNamesNobody(t *testing.T) {
	l := governed(t) // whose peer CA has no key that this build reads
	l.now = l.now.Add(year + time.Hour)
	bob := l.operator("bob", armor.OperatorRoles()...)
	bob.Certificate.NotAfter = l.now.Add(year)
	l.operator(armor.PeerCAPrincipal)
	l.expect(l.by(armor.PeerCAPrincipal, rescue(bob)), armor.ErrInvalid)
	point := l.operator("x").PublicKey
	for name, der := range map[string][]byte{
		"none": []byte("DER"), "cut short": append(slices.Clone(p256SPKI), point[:64]...),
		"two": slices.Concat(p256SPKI, point, p256SPKI, point), "nothing": nil,
	} {
		if keyWithin(der) != nil {
			t.Errorf("a key is found: %s", name)
		}
	}
}

func peerCA(name string) armor.PutPeerCA {
	c, der := ca(name)
	return armor.PutPeerCA{Certificate: c, DER: der}
}

func retire(name string) armor.RetirePeerCA {
	c, _ := ca(name)
	return armor.RetirePeerCA{Fingerprint: c.Fingerprint, Key: c.Key}
}

// under is the renewal of a node with a certificate of another CA, which ends earlier.
func (l *lab) under(n, issuer string) armor.RenewMember {
	c := l.renewal(n, -time.Hour)
	der := append(nodeDER(n), " of "+issuer...)
	c.Certificate.ID.Issuer, c.Certificate.Fingerprint, c.Chain[0] = digest("key", issuer), sha256.Sum256(der), der
	return c
}

func TestPeerCAIsRotated(t *testing.T) {
	l := governed(t, "n2", "n3")
	_, old := ca("peer")
	_, next := ca("next")
	l.expect(l.by("ada", retire("peer")), armor.ErrConflict) // the only one
	before := l.state()
	for range 2 {
		l.must(l.by("ada", peerCA("next")))
	}
	s := l.state()
	if !s.Differs(before, armor.Joining) || string(s.Cluster.PeerCA) != string(old) || string(s.Cluster.NextPeerCA) != string(next) {
		t.Fatalf("after: %q %q", s.Cluster.PeerCA, s.Cluster.NextPeerCA)
	}
	l.expect(l.by("ada", peerCA("third")), armor.ErrConflict)
	for _, n := range []string{"n1", "n2", "n3"} {
		l.expect(l.by("ada", retire("peer")), armor.ErrConflict) // while a node depends on it
		l.must(l.by("ada", l.under(n, "next")))
	}
	l.expect(l.by("ada", retire("peer")), armor.ErrConflict) // while ada does
	ada := l.operator("ada", armor.OperatorRoles()...)
	ada.Certificate.ID.Issuer, ada.Certificate.Fingerprint = digest("key", "next"), digest("ada under next")
	l.must(l.by("ada", armor.PutOperator{Operator: ada}))
	l.expect(l.by("ada", retire("third")), armor.ErrNotFound)
	l.must(l.by("ada", retire("peer")))
	if s := l.state(); string(s.Cluster.PeerCA) != string(next) || s.Cluster.NextPeerCA != nil {
		t.Errorf("after: %q %q", s.Cluster.PeerCA, s.Cluster.NextPeerCA)
	}
	l.must(l.by("ada", peerCA("third")))
	l.must(l.by("ada", retire("third"))) // taken back
	replayTwice(t, l)
}

func TestWhatCannotBeAPeerCAIsRefused(t *testing.T) {
	l := governed(t)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "test"}}))
	l.must(l.by("ada", l.anchor("clients", "test", "spiffe://td/*")))
	l.must(l.by("ada", armor.Revoke{Reason: armor.CACompromise, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest("key", "stolen")}}}))
	for name, c := range map[string]struct {
		command armor.PutPeerCA
		want    error
	}{
		"one of clients":       {peerCA("clients"), armor.ErrInvalid},
		"another's facts":      {armor.PutPeerCA{Certificate: peerCA("a").Certificate, DER: peerCA("b").DER}, armor.ErrInvalid},
		"no DER":               {armor.PutPeerCA{Certificate: peerCA("a").Certificate}, armor.ErrInvalid},
		"a leaf":               {armor.PutPeerCA{Certificate: l.nodeCert("n1"), DER: nodeDER("n1")}, armor.ErrInvalid},
		"one that is revoked":  {peerCA("stolen"), armor.ErrRevoked},
		"one that has expired": {spoiled(peerCA("old"), func(c *armor.Certificate) { c.NotAfter = epoch.Add(-time.Second) }), armor.ErrInvalid},
	} {
		if err := l.by("ada", c.command).Err; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	l.must(l.by("ada", peerCA("next")))
	l.expect(l.by("ada", l.anchor("next", "test", "spiffe://td/*")), armor.ErrInvalid)
	l.expect(l.node("n1", peerCA("mine")), armor.ErrDenied)
	l.expect(l.node("n1", retire("peer")), armor.ErrDenied)
}

func spoiled(c armor.PutPeerCA, by func(*armor.Certificate)) armor.PutPeerCA {
	by(&c.Certificate)
	return c
}
