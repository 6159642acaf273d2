package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// Bounds on what a client presents. MaxChain counts the leaf and the anchor.
const (
	MaxChain       = 4
	maxCertificate = 16 << 10 // bytes of DER
)

// Verifier builds chains from clients' leaves to trust anchors. One is made for
// each revision of the trust state; it is immutable and safe for concurrent use.
type Verifier struct {
	roots   *x509.CertPool
	hints   *x509.CertPool // those that are neither retired nor distrusted
	anchors []*x509.Certificate
	trusted map[armor.Digest]armor.Certificate // by fingerprint
}

// NewVerifier takes the anchors of one revision. An anchor that does not parse, is
// no CA or does not match its fingerprint is left out, so that it vouches for
// nobody; the error names each. The Verifier is usable even then.
func NewVerifier(anchors []armor.TrustAnchor) (*Verifier, error) {
	v := &Verifier{roots: x509.NewCertPool(), hints: x509.NewCertPool(), trusted: map[armor.Digest]armor.Certificate{}}
	var faults []error
	for _, a := range anchors {
		cert, err := checkAnchor(a)
		if err != nil {
			faults = append(faults, fmt.Errorf("trust anchor %s: %w", a.Name, err))
			continue
		}
		v.roots.AddCert(cert)
		if !a.Retired && !a.Distrusted {
			v.hints.AddCert(cert)
		}
		v.anchors = append(v.anchors, cert)
		v.trusted[a.Certificate.Fingerprint] = a.Certificate
	}
	return v, errors.Join(faults...)
}

// Anchors returns the certificates that chains may end in. The caller must not change them.
func (v *Verifier) Anchors() []*x509.Certificate { return v.anchors }

// Hints returns the anchors of which clients are told, so that they know which of their
// certificates would do: those that are neither retired nor distrusted. The caller must not change them. Where there is
// none, no client is told anything, and each shows what it has.
func (v *Verifier) Hints() *x509.CertPool { return v.hints }

// Verify builds every chain from chain[0], the leaf, over the other certificates
// presented to an anchor, and returns the issuers of each: nearest first, the
// anchor last. Name constraints, path lengths and the extended key usages of
// issuers hold, and issuers must be valid at now.
//
// The leaf's own validity, usages and critical extensions are not judged here:
// armor.State and CheckLeaf do, after the client has proved possession of the key,
// so that it can be told what is wrong. Verify is pure.
func (v *Verifier) Verify(chain []*x509.Certificate, now time.Time) ([][]armor.Certificate, error) {
	if err := bounded(chain); err != nil {
		return nil, err
	}
	leaf := withoutOwnFaults(chain[0], now)
	built, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: intermediates(chain), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("verify client certificate: %w", err)
	}
	chains, err := v.issuersOf(built)
	if err != nil {
		return nil, fmt.Errorf("verify client certificate: %w", err)
	}
	return chains, nil
}

// bounded refuses what no honest client sends before work is spent on it.
func bounded(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: no certificate", armor.ErrInvalid)
	}
	if len(chain) > MaxChain {
		return fmt.Errorf("%w: %d certificates presented, at most %d are looked at", armor.ErrInvalid, len(chain), MaxChain)
	}
	for _, c := range chain {
		if len(c.Raw) > maxCertificate {
			return fmt.Errorf("%w: a certificate of %d bytes presented, at most %d are looked at", armor.ErrInvalid, len(c.Raw), maxCertificate)
		}
	}
	return nil
}

func intermediates(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	return pool
}

// withoutOwnFaults copies the leaf and takes away what would end chain building but
// is judged elsewhere. The signed bytes stay as they are.
func withoutOwnFaults(leaf *x509.Certificate, now time.Time) *x509.Certificate {
	c := *leaf
	c.NotBefore, c.NotAfter = now, now
	c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, nil
	c.UnhandledCriticalExtensions = nil
	return &c
}

// issuersOf keeps the chains that are short and strong enough, as facts.
func (v *Verifier) issuersOf(built [][]*x509.Certificate) ([][]armor.Certificate, error) {
	var chains [][]armor.Certificate
	fault := error(nil)
	for _, chain := range built {
		issuers := chain[1:]
		if len(issuers) == 0 { // the client holds the key of an anchor itself
			issuers = chain
		}
		if err := checkIssuers(issuers, len(chain)); err != nil {
			fault = err
			continue
		}
		chains = append(chains, v.issuerFacts(issuers))
	}
	if len(chains) == 0 {
		return nil, fault
	}
	for _, c := range chains[1:] {
		if c[0].Key != chains[0][0].Key {
			return nil, fmt.Errorf("%w: two keys could have signed it", armor.ErrInvalid)
		}
	}
	return chains, nil
}

func checkIssuers(issuers []*x509.Certificate, length int) error {
	if length > MaxChain {
		return fmt.Errorf("%w: its chain has %d certificates, more than %d", armor.ErrInvalid, length, MaxChain)
	}
	for _, c := range issuers {
		if fault := issuerFault(c); fault != "" {
			return fmt.Errorf("%w: issuer %q %s", armor.ErrInvalid, c.Subject, fault)
		}
	}
	return nil
}

// issuerFacts are the facts of a chain. Who has signed the anchor, if that is an intermediate, was
// found out when it was registered.
func (v *Verifier) issuerFacts(issuers []*x509.Certificate) []armor.Certificate {
	facts := make([]armor.Certificate, len(issuers))
	last := len(issuers) - 1
	for i, c := range issuers[:last] {
		facts[i] = Facts(c, SPKI(issuers[i+1]))
	}
	facts[last] = v.trusted[Fingerprint(issuers[last])]
	return facts
}
