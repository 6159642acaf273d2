package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armord/config"
)

// renewable is a node of its certificate files, and the CA that signs it.
type renewable struct {
	*node
	t     *testing.T
	ca    *x509.Certificate
	caKey crypto.Signer
	key   crypto.Signer
}

func newRenewable(t *testing.T) *renewable {
	t.Helper()
	dir := t.TempDir()
	r := &renewable{t: t, node: &node{cfg: home{Config: config.Config{Node: "n1", Cluster: "acme", DataDir: dir, Peer: config.Peer{
		CertFile: filepath.Join(dir, "node.crt"), KeyFile: filepath.Join(dir, "node.key"), CAFile: filepath.Join(dir, "ca.crt"),
	}}}, log: slog.New(slog.DiscardHandler)}}
	var err error
	if r.ca, r.caKey, err = pki.NewCA(pki.CAConfig{Kind: pki.PeerCA, CommonName: "peers", TrustDomain: pki.ClusterDomain("acme"), Lifetime: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if r.key, err = pki.NewKey(); err != nil {
		t.Fatal(err)
	}
	key, err := pki.EncodePrivateKeyPEM(r.key)
	for path, content := range map[string][]byte{
		r.cfg.Peer.CAFile: pki.EncodeCertificatesPEM(r.ca), r.cfg.Peer.KeyFile: key,
		r.cfg.Peer.CertFile: pki.EncodeCertificatesPEM(r.sign("n1", r.key, time.Hour)),
	} {
		err = errors.Join(err, os.WriteFile(path, content, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.own, err = openKeyPair(r.cfg.Peer.CertFile, r.cfg.Peer.KeyFile, r.log); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *renewable) sign(name armor.NodeID, key crypto.Signer, life time.Duration) *x509.Certificate {
	r.t.Helper()
	return r.signAt(name, key, life, time.Now())
}

func (r *renewable) signAt(name armor.NodeID, key crypto.Signer, life time.Duration, now time.Time) *x509.Certificate {
	r.t.Helper()
	cert, err := pki.SignLeaf(r.ca, r.caKey, key.Public(), pki.LeafConfig{
		Identity: pki.NodeIdentity("acme", name), Client: true, Server: true, Lifetime: life, Now: now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return cert
}

// take is renew under the CA of the test.
func (r *renewable) take(m armor.Member) error { return r.renew([]*x509.Certificate{r.ca}, m) }

func (r *renewable) member(cert *x509.Certificate) armor.Member {
	return armor.Member{ID: "n1", Certificate: pki.Facts(cert, pki.SPKI(r.ca)), Chain: [][]byte{cert.Raw, r.ca.Raw}}
}

func (r *renewable) shows() string {
	r.t.Helper()
	pair, err := r.own.get()
	if err != nil {
		r.t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Text(16)
}

func TestARenewedCertificateIsTakenIntoUse(t *testing.T) {
	r := newRenewable(t)
	next := r.sign("n1", r.key, 2*time.Hour)
	for range 2 {
		if err := r.take(r.member(next)); err != nil || r.shows() != next.SerialNumber.Text(16) {
			t.Fatalf("%v, and %s is shown", err, r.shows())
		}
	}
	written, err := readCertificates(r.cfg.Peer.CertFile)
	if err != nil || !written[0].Equal(next) {
		t.Errorf("after a restart: %v", err)
	}
	// One that an operator has put there by hand is later, and stays.
	former := r.signAt("n1", r.key, 3*time.Hour, time.Now().Add(-30*time.Second))
	if err := r.take(r.member(former)); err != nil || r.shows() != next.SerialNumber.Text(16) {
		t.Errorf("an earlier one: %v, and %s is shown", err, r.shows())
	}
	if err := r.take(armor.Member{}); err != nil {
		t.Errorf("a node that is no member: %v", err)
	}
}

func TestARenewedCertificateThatWillNotDoChangesNothing(t *testing.T) {
	r := newRenewable(t)
	before := r.shows()
	other, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	garbled := r.member(r.sign("n1", r.key, 2*time.Hour))
	garbled.Chain[0] = []byte("no DER")
	for name, m := range map[string]armor.Member{
		"another key": r.member(r.sign("n1", other, 2*time.Hour)), "another node's": r.member(r.sign("n2", r.key, 2*time.Hour)), "no DER": garbled,
	} {
		if err := r.take(m); err == nil || r.shows() != before {
			t.Errorf("%s: %v, and %s is shown", name, err, r.shows())
		}
	}
	r.cfg.Peer.CertFile = filepath.Join(t.TempDir(), "gone", "node.crt")
	if err := r.take(r.member(r.sign("n1", r.key, 2*time.Hour))); err == nil || r.shows() != before {
		t.Errorf("where nothing can be written: %v, and %s is shown", err, r.shows())
	}
}

// TestWhatTheStateSaysOfItsOwnTrustIsWrittenDown for the next start, when there is no state yet: the peer
// CAs, and the members' keys.
func TestWhatTheStateSaysOfItsOwnTrustIsWrittenDown(t *testing.T) {
	r := newRenewable(t)
	next, _, err := pki.NewCA(pki.CAConfig{Kind: pki.PeerCA, CommonName: "next", TrustDomain: pki.ClusterDomain("acme"), Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(r.cfg.membershipFile()), 0o700); err != nil {
		t.Fatal(err)
	}
	seeds := map[armor.NodeID]string{"n2": "127.0.0.1:1"}
	if err := r.cfg.writeMembership(membership{ClusterID: "c", Seeds: seeds}); err != nil {
		t.Fatal(err)
	}
	own := r.member(r.sign("n1", r.key, 2*time.Hour))
	other := armor.Member{ID: "n2", Certificate: armor.Certificate{Key: armor.Digest{7}}}
	s := &armor.State{Cluster: armor.Cluster{ID: "c", PeerCA: r.ca.Raw, NextPeerCA: next.Raw}}
	s.Members = s.Members.With(own).With(other)
	if err := r.keepOwnTrust(s); err != nil {
		t.Fatal(err)
	}
	cas, err := readCertificates(r.cfg.Peer.CAFile)
	if err != nil || !sameCertificates(cas, []*x509.Certificate{r.ca, next}) {
		t.Errorf("peer CAs: %v %v", cas, err)
	}
	m, err := r.cfg.readMembership()
	if err != nil || m.Seeds["n2"] != seeds["n2"] || m.keys()["n2"] != other.Certificate.Key || m.keys()["n1"] != own.Certificate.Key {
		t.Errorf("membership: %+v %v", m, err)
	}
	if r.shows() != own.Certificate.ID.Serial {
		t.Error("the certificate is not taken into use")
	}
	s.Cluster.NextPeerCA = []byte("no DER")
	if err := r.keepOwnTrust(s); err == nil {
		t.Error("a CA that nobody can read is taken")
	}
}
