package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
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

// authority is a CA whose key is in our hands.
type authority struct {
	cert *x509.Certificate
	// above are the issuers of cert that ca.crt holds, nearest first.
	above []*x509.Certificate
	key   crypto.Signer
}

// secrecy says how a CA's key is or will be kept.
type secrecy struct {
	passphraseFile string
	unencrypted    bool
}

// hasCA reports whether the folder holds a CA.
func hasCA(dir string) bool {
	return file.Exist(filepath.Join(dir, caCertFile)) || file.Exist(filepath.Join(dir, caSealed)) || file.Exist(filepath.Join(dir, caPlain))
}

// newCA makes a CA in a folder, which must not hold one.
func (a *app) newCA(ctx context.Context, dir string, cfg pki.CAConfig, s secrecy) (authority, error) {
	if hasCA(dir) {
		return authority{}, fmt.Errorf("%w: %s holds a CA", armor.ErrConflict, dir)
	}
	phrase := ""
	if !s.unencrypted {
		var err error
		if phrase, err = a.passphrase(ctx, s.passphraseFile, "CA "+cfg.CommonName, true); err != nil {
			return authority{}, err
		}
	}
	cert, key, err := pki.NewCA(cfg)
	if err != nil {
		return authority{}, err
	}
	ca := authority{cert: cert, key: key}
	return ca, ca.save(dir, phrase)
}

// save writes the CA; without a passphrase its key is not encrypted.
func (ca authority) save(dir, passphrase string) error {
	name, content, err := caPlain, []byte(nil), error(nil)
	if passphrase == "" {
		content, err = pki.EncodePrivateKeyPEM(ca.key)
	} else {
		name = caSealed
		content, err = pkcs12.Modern2023.WithIterations(keyStretch).Encode(ca.key, ca.cert, nil, passphrase)
	}
	if err != nil {
		return fmt.Errorf("encode the key of CA %q: %w", ca.cert.Subject.CommonName, err)
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	return errors.Join(
		file.Replace(filepath.Join(dir, name), content, modeSecret),
		file.Replace(filepath.Join(dir, caCertFile), pki.EncodeCertificatesPEM(ca.cert), modePublic),
	)
}

// openCA reads a CA from its folder. kind is what it must sign.
func (a *app) openCA(ctx context.Context, dir string, kind pki.CAKind, passphraseFile string) (authority, error) {
	if !hasCA(dir) {
		return authority{}, fmt.Errorf("%w: %s holds no CA (%s and %s or %s)", armor.ErrNotFound, dir, caCertFile, caSealed, caPlain)
	}
	certs, err := loadCertificates(filepath.Join(dir, caCertFile))
	if err != nil {
		return authority{}, err
	}
	ca := authority{cert: certs[0], above: certs[1:]}
	if err := checkCAKind(ca.cert, kind); err != nil {
		return authority{}, fmt.Errorf("%s: %w", dir, err)
	}
	if ca.key, err = a.openKey(ctx, dir, ca.cert.Subject.CommonName, passphraseFile); err != nil {
		return authority{}, err
	}
	if !samePublicKey(ca.key.Public(), ca.cert.PublicKey) {
		return authority{}, fmt.Errorf("%w: the key in %s is not the key of its %s", armor.ErrInvalid, dir, caCertFile)
	}
	return ca, nil
}

func (a *app) openKey(ctx context.Context, dir, name, passphraseFile string) (crypto.Signer, error) {
	path := filepath.Join(dir, caPlain)
	if !file.Exist(path) {
		return a.unseal(ctx, filepath.Join(dir, caSealed), name, passphraseFile)
	}
	if err := checkSecret(path); err != nil {
		return nil, err
	}
	return loadKey(path)
}

func (a *app) unseal(ctx context.Context, path, name, passphraseFile string) (crypto.Signer, error) {
	sealed, err := readFile(path)
	if err != nil {
		return nil, err
	}
	phrase, err := a.passphrase(ctx, passphraseFile, "CA "+name, false)
	if err != nil {
		return nil, err
	}
	key, _, _, err := pkcs12.DecodeChain(sealed, phrase)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, &usageError{fmt.Errorf("wrong passphrase for CA %q", name)}
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

func loadKey(path string) (crypto.Signer, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParsePrivateKeyPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// checkCAKind refuses to let one kind of CA sign what another is for. A CA without
// extended key usages, made elsewhere, may be any.
func checkCAKind(cert *x509.Certificate, kind pki.CAKind) error {
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
