package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// maxSecret bounds what is read as a secret.
const maxSecret = 256 << 10

// secrets are the files behind the secret names of the cluster configuration:
// NAME.yaml for passwords, NAME.crt and NAME.key for client certificates, NAME.pem for
// CAs, NAME.verifiers for what clients' passwords are checked by, all in one folder. The
// configuration is replicated and may come from anybody who may change it; therefore a name
// is never a path, and a password goes only to hosts that its own file lists.
type secrets struct{ dir string }

// secretFile is NAME.yaml. Two passwords are for the time of a rotation.
type secretFile struct {
	Passwords []string `yaml:"passwords"`
	Hosts     []string `yaml:"hosts"` // host:port as in the Database
}

// Password returns the passwords that may be sent to a host (pooler.Secrets).
func (s secrets) Password(name armor.SecretName, host string) ([]string, error) {
	text, err := s.read(name, ".yaml", 0o077)
	if err != nil {
		return nil, err
	}
	f, err := parseSecret(text)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	if !slices.Contains(f.Hosts, host) {
		return nil, fmt.Errorf("%w: secret %s is not for host %s: hosts in its file must list it", armor.ErrDenied, name, host)
	}
	return f.Passwords, nil
}

// parseSecret never repeats what it has read.
func parseSecret(text []byte) (secretFile, error) {
	var f secretFile
	err := config.Guard(func() error { return yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&f) })
	if err != nil {
		return f, fmt.Errorf("%w: its file has the fields passwords and hosts, each a list, and no others", armor.ErrInvalid)
	}
	if len(f.Hosts) == 0 {
		return f, fmt.Errorf("%w: its file lists no hosts, so it is for none", armor.ErrInvalid)
	}
	if len(f.Passwords) == 0 || slices.Contains(f.Passwords, "") {
		return f, fmt.Errorf("%w: its file lists no passwords, or an empty one", armor.ErrInvalid)
	}
	return f, nil
}

// Certificate returns the client certificate in NAME.crt, with its chain, and its key in
// NAME.key (pooler.Secrets). It is bound to no hosts: what it proves to one is of no use
// anywhere else.
func (s secrets) Certificate(name armor.SecretName) (tls.Certificate, error) {
	pair, err := s.pair(name)
	if err != nil {
		return tls.Certificate{}, err
	}
	switch now := time.Now(); {
	case now.After(pair.Leaf.NotAfter):
		return tls.Certificate{}, fmt.Errorf("%w: secret %s: the certificate in %s.crt expired at %s: put a new one there", armor.ErrInvalid,
			name, name, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return tls.Certificate{}, fmt.Errorf("%w: secret %s: the certificate in %s.crt is not valid before %s", armor.ErrInvalid, name, name,
			pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return pair, nil
}

// pair reads a client certificate and its key, good now or not.
func (s secrets) pair(name armor.SecretName) (tls.Certificate, error) {
	chain, err := s.read(name, ".crt", 0o022)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := s.read(name, ".key", 0o077)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: secret %s: %s.crt and %s.key: %w", armor.ErrInvalid, name, name, name, err)
	}
	return pair, nil
}

// CA returns the certificates that may vouch for a server (pooler.Secrets).
func (s secrets) CA(name armor.SecretName) (*x509.CertPool, error) {
	text, err := s.caFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool, nil
}

// caFile is a file with certificates.
func (s secrets) caFile(name armor.SecretName) ([]byte, error) {
	text, err := s.read(name, ".pem", 0o022)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%w: secret %s: no certificate in its file", armor.ErrInvalid, name)
	}
	return text, nil
}

// read returns the content of a secret's file. The file must not give anybody else one of
// the rights that others names.
func (s secrets) read(name armor.SecretName, suffix string, others fs.FileMode) ([]byte, error) {
	if err := armor.CheckName("secret", string(name)); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, string(name)+suffix)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: secret %s: there is no file %s on this node", armor.ErrNotFound, name, path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("secret %s: %w", name, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: secret %s: %s is no file", armor.ErrInvalid, name, path)
	case info.Mode().Perm()&others != 0:
		return nil, fmt.Errorf("%w: secret %s: file %s has mode %04o, which lets others at it: chmod 600 it", armor.ErrDenied, name, path,
			info.Mode().Perm())
	case info.Size() > maxSecret:
		return nil, fmt.Errorf("%w: secret %s: file %s is larger than %d bytes", armor.ErrInvalid, name, path, maxSecret)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return text, nil
}
