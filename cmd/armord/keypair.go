package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// lookEvery is how often a handshake may look whether a certificate's files changed.
const lookEvery = time.Second

// keyPair is a certificate and its key in files that may be replaced while the node
// runs. What cannot be read, does not fit together while only one of the two has been
// replaced, or would be refused by everybody leaves the former pair in use.
type keyPair struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[loadedPair]
	looked  atomic.Int64 // when the files were looked at last, Unix nanoseconds
	fault   atomic.Pointer[error]
}

type loadedPair struct {
	certificate tls.Certificate
	stamp       pairStamp
}

// pairStamp tells one version of the two files from another.
type pairStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// openKeyPair reads the pair for the first time.
func openKeyPair(certFile, keyFile string, log *slog.Logger) (*keyPair, error) {
	k := &keyPair{certFile: certFile, keyFile: keyFile, log: log}
	if err := k.load(); err != nil {
		return nil, err
	}
	k.looked.Store(time.Now().UnixNano())
	return k, nil
}

// get returns the certificate in force. The error is nil; it is there because TLS
// configurations ask for one.
func (k *keyPair) get() (*tls.Certificate, error) {
	looked, now := k.looked.Load(), time.Now().UnixNano()
	if now-looked > int64(lookEvery) && k.looked.CompareAndSwap(looked, now) {
		k.refresh()
	}
	return &k.current.Load().certificate, nil
}

// reload looks at the files now, whatever their times say, and returns what is wrong with them.
func (k *keyPair) reload() error {
	k.looked.Store(time.Now().UnixNano())
	return k.judged(k.load())
}

// refresh loads what has changed.
func (k *keyPair) refresh() {
	stamp, err := k.stamp()
	if err == nil && stamp == k.current.Load().stamp {
		k.fault.Store(nil)
		return
	}
	if err == nil {
		err = k.load()
	}
	_ = k.judged(err) // it is remembered and logged
}

// judged remembers what is wrong with the files, and says it once.
func (k *keyPair) judged(err error) error {
	if err == nil {
		k.fault.Store(nil)
		return nil
	}
	before := k.fault.Swap(&err)
	if before == nil || (*before).Error() != err.Error() {
		k.log.Warn("the former certificate stays in use", armor.KeyErr, err)
	}
	return err
}

// load takes the files into use. One that others will refuse never replaces one that
// they accept.
func (k *keyPair) load() error {
	stamp, err := k.stamp()
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate %s with key %s: %w", k.certFile, k.keyFile, err)
	}
	next, former, now := &loadedPair{certificate, stamp}, k.current.Load(), time.Now()
	if err := next.unfit(now); err != nil {
		err = fmt.Errorf("%s: %w", k.certFile, err)
		if former != nil && former.unfit(now) == nil {
			return err
		}
		k.log.Warn("a certificate is in use that others refuse", armor.KeyErr, err)
	}
	k.current.Store(next)
	if former != nil && !slices.EqualFunc(former.certificate.Certificate, certificate.Certificate, bytes.Equal) {
		k.log.Info("certificate replaced", armor.KeySerial, certificate.Leaf.SerialNumber.Text(16))
	}
	return nil
}

// unfit says why whoever is shown the certificate will refuse it, if that can be seen here.
func (p *loadedPair) unfit(now time.Time) error {
	for i, der := range p.certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: certificate %d of the file: %w", armor.ErrInvalid, i+1, err)
		}
		if i > 0 && bytes.Equal(c.RawSubject, c.RawIssuer) {
			continue // a root of its own is in nobody's way: who verifies has theirs
		}
		if err := unfitNow(c, now); err != nil {
			return err
		}
	}
	return unfitForServers(p.certificate.Leaf)
}

func unfitNow(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("%w: the certificate of %s ended at %s", armor.ErrExpired, c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%w: the certificate of %s is not valid before %s", armor.ErrInvalid, c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func unfitForServers(leaf *x509.Certificate) error {
	uses := leaf.ExtKeyUsage
	if len(uses)+len(leaf.UnknownExtKeyUsage) == 0 || slices.Contains(uses, x509.ExtKeyUsageServerAuth) ||
		slices.Contains(uses, x509.ExtKeyUsageAny) {
		return nil
	}
	return fmt.Errorf("%w: the certificate of %s is not for TLS servers (extended key usage serverAuth)", armor.ErrInvalid, leaf.Subject)
}

func (k *keyPair) stamp() (pairStamp, error) {
	cert, err := os.Stat(k.certFile)
	if err != nil {
		return pairStamp{}, fmt.Errorf("certificate: %w", err)
	}
	key, err := os.Stat(k.keyFile)
	if err != nil {
		return pairStamp{}, fmt.Errorf("key: %w", err)
	}
	return pairStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

// check is for /readyz: why the certificate in use will not do. A broken successor is no
// reason: it tends to be on all nodes at once, and the one in use serves.
func (k *keyPair) check() error {
	if _, err := k.get(); err != nil {
		return err
	}
	if err := k.current.Load().unfit(time.Now()); err != nil {
		return fmt.Errorf("%s: %w", k.certFile, err)
	}
	return nil
}

// precedes reports whether the certificate in use was made before c was; of the same second, whether it
// ends no later.
func (k *keyPair) precedes(c armor.Certificate) bool {
	leaf := k.current.Load().certificate.Leaf
	return leaf.NotBefore.Before(c.NotBefore) || leaf.NotBefore.Equal(c.NotBefore) && !leaf.NotAfter.After(c.NotAfter)
}

// ends is when the certificate in use expires.
func (k *keyPair) ends() time.Time { return k.current.Load().certificate.Leaf.NotAfter }

func parseCertificates(ders [][]byte) (all []*x509.Certificate, err error) {
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// readCertificates reads the certificates of a PEM file, of which there is at least one.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	all, err := pki.ParseCertificatesPEM(text)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%w: no certificate in it", armor.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// isMissing reports whether a file is not there, and nothing else is wrong with it.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
