package saved_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
)

// lab is a cluster of one machine, with real certificates.
type lab struct {
	t       testing.TB
	cluster armor.Cluster
	ca      *x509.Certificate
	caKey   crypto.Signer
	machine *fsm.Machine
	node    saved.Signer
	ada     saved.Signer
	index   uint64
}

// token is the secret of the join token that the lab's state has.
const token = "a-join-token-that-nobody-else-may-see"

func newLab(t testing.TB, name string) *lab {
	t.Helper()
	l := &lab{t: t, machine: fsm.New()}
	var err error
	l.ca, l.caKey, err = pki.NewCA(pki.CAConfig{
		Kind: pki.PeerCA, CommonName: name, TrustDomain: pki.ClusterDomain(name), Lifetime: 10 * 365 * 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(name))
	l.cluster = armor.Cluster{
		ID: fmt.Sprintf("%x", id[:16]), Name: name, PeerCA: l.ca.Raw, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	l.node, l.ada = l.signer(pki.Node, "n1"), l.signer(pki.Operator, "ada")
	l.apply(armor.NodePrincipal("n1"), armor.Bootstrap{
		Cluster: l.cluster,
		Member:  armor.Member{ID: "n1", Certificate: l.facts(l.node), PeerAddress: "n1:7432", Voter: true},
		Operator: armor.Operator{
			Name: "ada", Certificate: l.facts(l.ada), PublicKey: point(t, l.ada.Key), Roles: armor.OperatorRoles(),
		},
	})
	l.apply("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}})
	l.apply("ada", armor.CreateJoinToken{Token: armor.JoinToken{
		Hash: sha256.Sum256([]byte(token)), Node: "n2", Expires: time.Now().Add(time.Hour), By: "ada",
	}})
	l.apply("ada", armor.Revoke{Reason: armor.KeyCompromise, Selectors: []armor.Selector{
		{Kind: armor.SelectKey, Key: sha256.Sum256([]byte("k"))},
	}})
	return l
}

// signer makes a node or an operator whom the lab's CA vouches for.
func (l *lab) signer(kind, name string) saved.Signer {
	l.t.Helper()
	return l.signerOf(kind, name, time.Time{})
}

func (l *lab) signerOf(kind, name string, at time.Time) saved.Signer {
	l.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := pki.LeafConfig{
		Identity: pki.OperatorIdentity(l.ca.Subject.CommonName, name), Client: true, Lifetime: time.Hour, Now: at,
	}
	if kind == pki.Node {
		cfg.Identity, cfg.Server = pki.NodeIdentity(l.ca.Subject.CommonName, armor.NodeID(name)), true
	}
	cert, err := pki.SignLeaf(l.ca, l.caKey, key.Public(), cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	return saved.Signer{Kind: kind, Name: name, Chain: [][]byte{cert.Raw}, Key: key}
}

func (l *lab) facts(s saved.Signer) armor.Certificate {
	l.t.Helper()
	cert, err := x509.ParseCertificate(s.Chain[0])
	if err != nil {
		l.t.Fatal(err)
	}
	return pki.Facts(cert, pki.SPKI(l.ca))
}

func point(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	public := key.Public().(*ecdsa.PublicKey)
	if public.Curve != elliptic.P256() {
		t.Fatal("no P-256 key")
	}
	b, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (l *lab) apply(principal string, c armor.Command) {
	l.t.Helper()
	l.index++
	r := armor.Request{
		ID: armor.RequestID(fmt.Sprintf("%032x", l.index)), Principal: principal, Expires: time.Now().Add(5 * time.Minute), Command: c,
	}
	digest := r.SigningDigest(l.cluster.ID)
	if principal == "ada" {
		var err error
		if r.Signature, err = l.ada.Key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			l.t.Fatal(err)
		}
	}
	entry, err := fsm.Encode(r, time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	result, err := l.machine.Apply(l.index, 1, entry)
	if err != nil || result.Err != nil {
		l.t.Fatal(err, result.Err)
	}
}

var origin = saved.Origin{Node: "n1", Build: "test", Term: 1, By: "ada"}

// file is the state as n1 saves it now.
func (l *lab) file() []byte {
	l.t.Helper()
	o := origin
	o.At = time.Now()
	return l.fileOf(o, l.node)
}

func (l *lab) fileOf(o saved.Origin, by saved.Signer) []byte {
	l.t.Helper()
	var b bytes.Buffer
	if err := saved.Write(&b, l.machine.Snapshot(), o, by); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

func verify(b []byte, ca *x509.Certificate) (*armor.State, error) {
	f, err := saved.NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return f.Verify(ca)
}
