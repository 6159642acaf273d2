package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// Endorse signs that another peer CA shall take the place of the one whose key this is.
func Endorse(key crypto.Signer, cluster string, next *x509.Certificate) ([]byte, error) {
	text := armor.SuccessionText(cluster, next.Raw)
	opts := crypto.SignerOpts(crypto.SHA256)
	if _, whole := key.(ed25519.PrivateKey); whole {
		opts = crypto.Hash(0)
	}
	signature, err := crypto.SignMessage(key, rand.Reader, text, opts)
	if err != nil {
		return nil, fmt.Errorf("endorse CA %q: %w", next.Subject.CommonName, err)
	}
	return signature, nil
}

// Endorsed reports whether one of the CAs that are believed has signed that another one, DER, takes
// its place, and returns that one.
func Endorsed(believed []*x509.Certificate, c armor.Cluster) (next *x509.Certificate, ok bool) {
	if len(c.NextPeerCA) == 0 || len(c.Endorsement) == 0 {
		return nil, false
	}
	next, err := x509.ParseCertificate(c.NextPeerCA)
	if err != nil {
		return nil, false
	}
	text := armor.SuccessionText(c.Name, c.NextPeerCA)
	for _, ca := range believed {
		if ca.CheckSignature(algorithmOf(ca), text, c.Endorsement) == nil {
			return next, true
		}
	}
	return nil, false
}

// algorithmOf is how a CA's key signs a text of ours.
func algorithmOf(ca *x509.Certificate) x509.SignatureAlgorithm {
	switch ca.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return x509.ECDSAWithSHA256
	case *rsa.PublicKey:
		return x509.SHA256WithRSA
	case ed25519.PublicKey:
		return x509.PureEd25519
	}
	return x509.UnknownSignatureAlgorithm
}
