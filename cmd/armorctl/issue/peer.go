package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
)

// Operator signs the certificate of an operator's key.
func (ca CA) Operator(cluster, name string, public crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	if err := armor.CheckName("operator", name); err != nil {
		return nil, err
	}
	return pki.SignLeaf(ca.Cert, ca.key, public, pki.LeafConfig{
		Identity: pki.OperatorIdentity(cluster, name), Client: true, Lifetime: lifetime,
	})
}

// OperatorFacts is an operator as the cluster keeps it.
func (ca CA) OperatorFacts(name string, cert *x509.Certificate, roles []armor.OperatorRole) (armor.Operator, error) {
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return armor.Operator{}, fmt.Errorf("%w: the key of operator %s is not an ECDSA P-256 key", armor.ErrInvalid, name)
	}
	point, err := public.Bytes()
	if err != nil {
		return armor.Operator{}, fmt.Errorf("%w: the key of operator %s: %w", armor.ErrInvalid, name, err)
	}
	return armor.Operator{Name: name, Certificate: pki.Facts(cert, pki.SPKI(ca.Cert)), PublicKey: point, Roles: roles}, nil
}

// The files of an operator's folder.
const (
	OperatorCertFile = "operator.crt"
	OperatorKeyFile  = "operator.key"
	PeerCAFile       = "peer-ca.crt"
)

// WriteOperator hands out an operator's files; key is nil when it stays elsewhere, and beside are the
// other peer CAs of the cluster.
func (ca CA) WriteOperator(dir string, cert *x509.Certificate, key crypto.Signer, beside ...*x509.Certificate) error {
	if err := MakeFolder(dir); err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := file.Replace(in(PeerCAFile), pki.EncodeCertificatesPEM(append([]*x509.Certificate{ca.Cert}, beside...)...), Public); err != nil {
		return err
	}
	if key == nil {
		return file.Replace(in(OperatorCertFile), pki.EncodeCertificatesPEM(cert), Public)
	}
	return WritePair(in(OperatorCertFile), in(OperatorKeyFile), key, cert)
}

// Renewed signs another certificate of the key that a node has.
func (ca CA) Renewed(cluster string, node armor.NodeID, former *x509.Certificate, lifetime time.Duration) (*x509.Certificate, error) {
	return ca.node(cluster, node, former.PublicKey, lifetime)
}

// Node signs the certificate that a node has requested.
func (ca CA) Node(cluster string, node armor.NodeID, csrDER []byte, lifetime time.Duration) (*x509.Certificate, error) {
	csr, err := pki.ParseCSR(csrDER)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	return ca.node(cluster, node, csr.PublicKey, lifetime)
}

func (ca CA) node(cluster string, node armor.NodeID, public crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	return pki.SignLeaf(ca.Cert, ca.key, public, pki.LeafConfig{
		Identity: pki.NodeIdentity(cluster, node), Client: true, Server: true, Lifetime: lifetime,
	})
}
