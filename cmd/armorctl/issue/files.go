package issue

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// The modes of what we write: keys and contexts are the owner's alone.
const (
	Secret = 0o600
	Public = 0o644
	Folder = 0o700
)

// ReadFile reads a file that the user named; that it is not there is the user's
// mistake.
func ReadFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	case err != nil:
		return nil, fmt.Errorf("read a file: %w", err)
	}
	return text, nil
}

// CheckSecret refuses a file that others on this machine may read or write.
func CheckSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fault.Hinted(fmt.Errorf("%w: %s has mode %04o: others may read or change it", armor.ErrInvalid, path, mode), "chmod 600 %s", path)
	}
	return nil
}

// MakeFolder makes a folder that is the owner's alone, with its parents.
func MakeFolder(path string) error {
	if err := os.MkdirAll(path, Folder); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	return nil
}

// Certificates reads a PEM file of certificates.
func Certificates(path string) ([]*x509.Certificate, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificatesPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

// Certificate reads the first certificate of a PEM file.
func Certificate(path string) (*x509.Certificate, error) {
	certs, err := Certificates(path)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

func loadKey(path string) (crypto.Signer, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParsePrivateKeyPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// WritePair writes a key and then its certificate.
func WritePair(certFile, keyFile string, key crypto.Signer, certs ...*x509.Certificate) error {
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		return err
	}
	return errors.Join(file.Replace(keyFile, text, Secret), file.Replace(certFile, pki.EncodeCertificatesPEM(certs...), Public))
}
