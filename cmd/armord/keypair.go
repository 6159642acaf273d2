package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// lookEvery is how often a handshake may look whether a certificate's files changed.
const lookEvery = time.Second

// keyPair is a certificate and its key in files that may be replaced while the node
// runs. What cannot be read, or does not fit together while only one of the two has
// been replaced, leaves the former pair in use.
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

// refresh loads what has changed and remembers what is wrong with it.
func (k *keyPair) refresh() {
	stamp, err := k.stamp()
	if err == nil && stamp == k.current.Load().stamp {
		k.fault.Store(nil)
		return
	}
	if err == nil {
		err = k.load()
	}
	before := k.fault.Load()
	if err == nil {
		k.fault.Store(nil)
		k.log.Info("certificate replaced", armor.KeySerial, k.current.Load().certificate.Leaf.SerialNumber.Text(16))
		return
	}
	k.fault.Store(&err)
	if before == nil {
		k.log.Warn("the former certificate stays in use", armor.KeyErr, err)
	}
}

func (k *keyPair) load() error {
	stamp, err := k.stamp()
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate %s with key %s: %w", k.certFile, k.keyFile, err)
	}
	k.current.Store(&loadedPair{certificate, stamp})
	return nil
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

// check is for /readyz: why the certificate will not do, or soon will not.
func (k *keyPair) check() error {
	certificate, err := k.get()
	if err != nil {
		return err
	}
	if end := certificate.Leaf.NotAfter; time.Now().After(end) {
		return fmt.Errorf("%w: the certificate in %s ended at %s", armor.ErrExpired, k.certFile, end.UTC().Format(time.RFC3339))
	}
	if fault := k.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// readCertificate reads the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
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
	return all[0], nil
}

// isMissing reports whether a file is not there, and nothing else is wrong with it.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
