package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/armordb/armordb/armor"
)

const (
	maxPEM          = 1 << 20 // bytes
	maxCertificates = 128     // in one file
)

// The labels of PEM blocks (RFC 7468, and the older two).
const (
	labelCertificate = "CERTIFICATE"
	labelRequest     = "CERTIFICATE REQUEST"
	labelPKCS8       = "PRIVATE KEY"
	labelEC          = "EC PRIVATE KEY"
	labelRSA         = "RSA PRIVATE KEY"
	labelEncrypted   = "ENCRYPTED PRIVATE KEY"
)

// ParseCertificatesPEM reads a file of one or more certificates. Text between the
// blocks is allowed, as openssl writes it; any other block, and one that does not
// decode, is refused rather than skipped.
func ParseCertificatesPEM(data []byte) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(blocks))
	for i, b := range blocks {
		if b.Type != labelCertificate {
			return nil, fmt.Errorf("%w: PEM block %d is a %s; only certificates belong here", armor.ErrInvalid, i+1, b.Type)
		}
		if certs[i], err = x509.ParseCertificate(b.Bytes); err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", armor.ErrInvalid, i+1, err)
		}
	}
	return certs, nil
}

// ParsePrivateKeyPEM reads a file of exactly one unencrypted private key: PKCS #8,
// or the older EC and RSA forms.
func ParsePrivateKeyPEM(data []byte) (crypto.Signer, error) {
	block, err := onlyPEM(data, "private key")
	if err != nil {
		return nil, err
	}
	key, err := parseKey(block)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a private key that cannot sign", armor.ErrInvalid)
	}
	if fault := KeyFault(signer.Public()); fault != "" {
		return nil, fmt.Errorf("%w: private key %s", armor.ErrInvalid, fault)
	}
	return signer, nil
}

func parseKey(block *pem.Block) (any, error) {
	var key any
	var err error
	switch _, legacy := block.Headers["DEK-Info"]; {
	case block.Type == labelEncrypted || legacy:
		return nil, fmt.Errorf("%w: the private key is encrypted; decrypt it first", armor.ErrInvalid)
	case block.Type == labelPKCS8:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == labelEC:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == labelRSA:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: a %s instead of a private key", armor.ErrInvalid, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: parse private key: %w", armor.ErrInvalid, err)
	}
	return key, nil
}

// ParseCSRPEM reads a file of exactly one certificate request and checks it as
// ParseCSR does.
func ParseCSRPEM(data []byte) (*x509.CertificateRequest, error) {
	block, err := onlyPEM(data, "certificate request")
	if err != nil {
		return nil, err
	}
	if block.Type != labelRequest && block.Type != "NEW "+labelRequest {
		return nil, fmt.Errorf("%w: a %s instead of a certificate request", armor.ErrInvalid, block.Type)
	}
	return ParseCSR(block.Bytes)
}

// EncodeCertificatesPEM writes certificates in the order given.
func EncodeCertificatesPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: labelCertificate, Bytes: c.Raw})...)
	}
	return out
}

// EncodePrivateKeyPEM writes a key as unencrypted PKCS #8. The file's mode is up to
// the caller.
func EncodePrivateKeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: labelPKCS8, Bytes: der}), nil
}

func onlyPEM(data []byte, what string) (*pem.Block, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("%w: %d PEM blocks; exactly one %s is required", armor.ErrInvalid, len(blocks), what)
	}
	return blocks[0], nil
}

// decodePEM returns every block, and an error where encoding/pem would skip one
// that it cannot decode: half a bundle must not pass for a whole one.
func decodePEM(data []byte) ([]*pem.Block, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("%w: PEM data is longer than %d bytes", armor.ErrInvalid, maxPEM)
	}
	begun := bytes.Count(data, []byte("-----BEGIN "))
	if begun == 0 {
		return nil, fmt.Errorf("%w: no PEM block found", armor.ErrInvalid)
	}
	if begun > maxCertificates {
		return nil, fmt.Errorf("%w: %d PEM blocks, at most %d are read", armor.ErrInvalid, begun, maxCertificates)
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if len(blocks) != begun {
		return nil, fmt.Errorf("%w: %d of %d PEM blocks do not decode: the file is damaged or cut off",
			armor.ErrInvalid, begun-len(blocks), begun)
	}
	return blocks, nil
}
