package issue

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// A CA's folder holds its certificate, ca.crt, and its key: ca.p12 under a passphrase
// (PKCS #12, PBES2 with AES-256 and an HMAC of SHA-256) or, for development, ca.key.
const (
	caCertFile = "ca.crt"
	caSealed   = "ca.p12"
	caPlain    = "ca.key"
)

// keyStretch is how many rounds a passphrase goes through: about half a second, each
// time that somebody guesses.
const keyStretch = 600_000

// CA signs certificates with a key that is in our hands; one that was only looked at has
// none.
type CA struct {
	Cert *x509.Certificate
	// above are the issuers of Cert that ca.crt holds, nearest first.
	above []*x509.Certificate
	key   crypto.Signer
}

// HasCA reports whether the folder holds a CA.
func HasCA(dir string) bool {
	return file.Exist(filepath.Join(dir, caCertFile)) || file.Exist(filepath.Join(dir, caSealed)) || file.Exist(filepath.Join(dir, caPlain))
}

// NewCA makes a CA in a folder, which must not hold one. passphrase is asked for what its key
// is encrypted with; empty leaves it as it is.
func NewCA(dir string, cfg pki.CAConfig, passphrase func() (string, error)) (CA, error) {
	if HasCA(dir) {
		return CA{}, fmt.Errorf("%w: %s holds a CA", armor.ErrConflict, dir)
	}
	phrase, err := passphrase()
	if err != nil {
		return CA{}, err
	}
	cert, key, err := pki.NewCA(cfg)
	if err != nil {
		return CA{}, err
	}
	ca := CA{Cert: cert, key: key}
	return ca, ca.save(dir, phrase)
}

// save writes the CA; without a passphrase its key is not encrypted.
func (ca CA) save(dir, passphrase string) error {
	name, content, err := caPlain, []byte(nil), error(nil)
	if passphrase == "" {
		content, err = pki.EncodePrivateKeyPEM(ca.key)
	} else {
		name = caSealed
		content, err = pkcs12.Modern2023.WithIterations(keyStretch).Encode(ca.key, ca.Cert, nil, passphrase)
	}
	if err != nil {
		return fmt.Errorf("encode the key of CA %q: %w", ca.Cert.Subject.CommonName, err)
	}
	if err := MakeFolder(dir); err != nil {
		return err
	}
	return errors.Join(
		file.Replace(filepath.Join(dir, name), content, Secret),
		file.Replace(filepath.Join(dir, caCertFile), pki.EncodeCertificatesPEM(ca.Cert), Public),
	)
}

// LookAt reads a CA's certificate from its folder, and not its key. kind is what it must
// sign.
func LookAt(dir string, kind pki.CAKind) (CA, error) {
	ca, err := readCA(dir)
	if err != nil {
		return CA{}, err
	}
	return ca, checkKind(ca.Cert, kind)
}

func readCA(dir string) (CA, error) {
	certs, err := Certificates(filepath.Join(dir, caCertFile))
	if err != nil {
		return CA{}, err
	}
	return CA{Cert: certs[0], above: certs[1:]}, nil
}

// Facts are what the cluster shall know of the CA's certificate.
func (ca CA) Facts() armor.Certificate { return pki.AnchorFacts(ca.Cert, ca.above...) }

// OpenCA reads a CA from its folder. kind is what it must sign; passphrase is asked, with the
// CA's name, when its key is encrypted.
func OpenCA(dir string, kind pki.CAKind, passphrase func(name string) (string, error)) (CA, error) {
	if !HasCA(dir) {
		return CA{}, fmt.Errorf("%w: %s holds no CA (%s and %s or %s)", armor.ErrNotFound, dir, caCertFile, caSealed, caPlain)
	}
	ca, err := readCA(dir)
	if err != nil {
		return CA{}, err
	}
	if err := checkKind(ca.Cert, kind); err != nil {
		return CA{}, fmt.Errorf("%s: %w", dir, err)
	}
	if ca.key, err = openKey(dir, ca.Cert.Subject.CommonName, passphrase); err != nil {
		return CA{}, err
	}
	if !samePublicKey(ca.key.Public(), ca.Cert.PublicKey) {
		return CA{}, fmt.Errorf("%w: the key in %s is not the key of its %s", armor.ErrInvalid, dir, caCertFile)
	}
	return ca, nil
}

func openKey(dir, name string, passphrase func(name string) (string, error)) (crypto.Signer, error) {
	path := filepath.Join(dir, caPlain)
	if !file.Exist(path) {
		return unseal(filepath.Join(dir, caSealed), name, passphrase)
	}
	if err := CheckSecret(path); err != nil {
		return nil, err
	}
	return loadKey(path)
}

func unseal(path, name string, passphrase func(name string) (string, error)) (crypto.Signer, error) {
	sealed, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	phrase, err := passphrase(name)
	if err != nil {
		return nil, err
	}
	key, _, _, err := pkcs12.DecodeChain(sealed, phrase)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, &fault.Usage{Err: fmt.Errorf("wrong passphrase for CA %q", name)}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", armor.ErrInvalid, path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %s holds a key that cannot sign", armor.ErrInvalid, path)
	}
	return signer, nil
}

// checkKind refuses to let one kind of CA sign what another is for. A CA without
// extended key usages, made elsewhere, may be any.
func checkKind(cert *x509.Certificate, kind pki.CAKind) error {
	serves, clients := false, false
	for _, usage := range cert.ExtKeyUsage {
		serves = serves || usage == x509.ExtKeyUsageServerAuth
		clients = clients || usage == x509.ExtKeyUsageClientAuth
	}
	found := pki.CAKind("")
	switch {
	case serves && clients:
		found = pki.PeerCA
	case serves:
		found = pki.ServerCA
	case clients:
		found = pki.ClientCA
	}
	if found != "" && found != kind {
		return fmt.Errorf("%w: CA %q is a %s CA, and a %s CA is needed", armor.ErrInvalid, cert.Subject.CommonName, found, kind)
	}
	return nil
}

func samePublicKey(x, y crypto.PublicKey) bool {
	key, ok := x.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(y)
}

// RequestKey is the CA's key, to sign a request of the peer CA's.
func (ca CA) RequestKey() (*ecdsa.PrivateKey, error) {
	key, ok := ca.key.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key of CA %q is not an ECDSA P-256 key, and signs no request", armor.ErrInvalid, ca.Cert.Subject.CommonName)
	}
	return key, nil
}

// Endorse signs that another CA shall take the place of this one.
func (ca CA) Endorse(cluster string, next CA) ([]byte, error) {
	return pki.Endorse(ca.key, cluster, next.Cert)
}

// anchor finds the trust anchor that the CA's certificate is.
func (ca CA) anchor(s *armor.State) (armor.TrustAnchor, bool) {
	anchor, found := s.Anchors.Get(pki.Fingerprint(ca.Cert).String())
	return anchor, found && bytes.Equal(anchor.DER, ca.Cert.Raw)
}
