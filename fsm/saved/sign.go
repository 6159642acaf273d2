package saved

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
)

// Signer signs manifests: a node or an operator of the cluster (pki.Node, pki.Operator).
type Signer struct {
	Kind, Name string
	Chain      [][]byte      // certificates, DER, the leaf first
	Key        crypto.Signer // ECDSA
}

// Signature is a signer's under a manifest. It mirrors fsmpb.Signature.
type Signature struct {
	Kind, Name string
	Chain      [][]byte
	Signature  []byte // ECDSA, ASN.1
}

// Sign makes a signature under the file's manifest, to be appended to the file. Whoever
// signs has verified it.
func (f *File) Sign(by Signer) ([]byte, error) {
	if len(f.signatures) == maxSignatures {
		return nil, fmt.Errorf("%w: the file has %d signatures already", armor.ErrExhausted, maxSignatures)
	}
	return by.sign(f.manifest)
}

// sign returns the signature as it stands in a file.
func (s Signer) sign(manifest []byte) ([]byte, error) {
	if _, ok := s.Key.Public().(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("%w: the key of %s %s is no ECDSA key", armor.ErrInvalid, s.Kind, s.Name)
	}
	signed := Signature{Kind: s.Kind, Name: s.Name, Chain: s.Chain}
	digest := signed.digest(manifest)
	var err error
	if signed.Signature, err = s.Key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		return nil, fmt.Errorf("sign a saved state: %w", err)
	}
	message := &fsmpb.Signature{}
	wire.Log.Fill(message, signed)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil || len(b) > maxSignature {
		return nil, fmt.Errorf("%w: the signature of %s %s has %d bytes: %v", armor.ErrInvalid, s.Kind, s.Name, len(b), err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), nil
}

// digest is what is signed: a manifest, for this purpose and by this signer.
func (s Signature) digest(manifest []byte) armor.Digest {
	return sha256.Sum256(armor.Canonical(struct {
		Purpose, Kind, Name string
		Manifest            armor.Digest
	}{"armor saved state v1", s.Kind, s.Name, sha256.Sum256(manifest)}))
}

func readSignature(b []byte) (s Signature, err error) {
	var message fsmpb.Signature
	err = wire.Log.UnmarshalMessage(b, &message)
	if err == nil {
		err = wire.Log.Read(&s, &message)
	}
	ours := s.Kind == pki.Node || s.Kind == pki.Operator
	if err == nil && (!ours || len(s.Chain) == 0 || len(s.Chain) > pki.MaxChain || len(s.Name) > maxText) {
		err = fmt.Errorf("of %.20q %.80q with %d certificates", s.Kind, s.Name, len(s.Chain))
	}
	if err != nil {
		return s, fmt.Errorf("%w: signature: %w", armor.ErrInvalid, err)
	}
	return s, nil
}

// certificates are the signer's.
func (s Signature) certificates() (chain []*x509.Certificate, err error) {
	for _, der := range s.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate of %s %s: %w", armor.ErrInvalid, s.Kind, s.Name, err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// verify says who has signed: the facts of the certificate with whose key it was. A
// certificate is held against the peer CA as of when the state was saved, or of its own end, if
// that came before: the end of a certificate says nothing about what its key has signed, and a
// node may serve beyond it.
func (s Signature) verify(f *File, ca *x509.Certificate) (armor.Certificate, error) {
	chain, err := s.certificates()
	if err != nil {
		return armor.Certificate{}, err
	}
	at := f.Manifest.At
	if end := chain[0].NotAfter; at.After(end) {
		at = end
	}
	if begin := chain[0].NotBefore; at.Before(begin) {
		at = begin
	}
	facts, err := s.vouched(f.Manifest.Cluster.Name, chain, ca, at)
	if err != nil {
		return facts, err
	}
	key, ok := chain[0].PublicKey.(*ecdsa.PublicKey)
	digest := s.digest(f.manifest)
	if !ok || !ecdsa.VerifyASN1(key, digest[:], s.Signature) {
		return facts, fmt.Errorf("%w: the signature of %s %s does not hold: the file is not what was signed", armor.ErrDenied, s.Kind, s.Name)
	}
	return facts, nil
}

// vouched holds the signer's certificate against a peer CA.
func (s Signature) vouched(cluster string, chain []*x509.Certificate, ca *x509.Certificate, at time.Time) (armor.Certificate, error) {
	kind, name, facts, err := pki.VerifyPeer(ca, cluster, chain, at)
	if err != nil {
		return facts, fmt.Errorf("%w: signature of %s %s: %w", armor.ErrDenied, s.Kind, s.Name, err)
	}
	if kind != s.Kind || name != s.Name {
		return facts, fmt.Errorf("%w: the signature of %s %s has the certificate of %s %s", armor.ErrDenied, s.Kind, s.Name, kind, name)
	}
	return facts, nil
}
