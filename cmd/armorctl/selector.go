package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// targets are the flags by which revoke is told what to take away. They add up to one
// commit.
type targets struct {
	files, fingerprints, serials, keys, identities, issuers, lists []string
	issuedBefore                                                   string
}

func targetFlags(cmd *cobra.Command, t *targets) {
	f := cmd.Flags()
	f.StringArrayVar(&t.files, "file", nil, "the certificate in a PEM `FILE`")
	f.StringArrayVar(&t.fingerprints, "fingerprint", nil, "the registered certificate of this `fingerprint`; eight digits or more")
	f.StringArrayVar(&t.serials, "serial", nil, "the certificate `ISSUER/SERIAL`; of a registered one the serial will do")
	f.StringArrayVar(&t.keys, "key", nil, "every certificate of this key, the SHA-256 of its `SPKI`")
	f.StringArrayVar(&t.identities, "identity", nil, "an identity, a `pattern` ending in /*, or the name of an Identity object")
	f.StringArrayVar(&t.issuers, "issuer", nil, "all that a CA has signed: the SHA-256 of its `SPKI`, or a trust anchor's name")
	f.StringArrayVar(&t.lists, "selectors", nil,
		"what a `FILE` lists, or - for stdin; each line is certificate ISSUER/SERIAL, key SPKI, identity PATTERN or issuer SPKI")
	f.StringVar(&t.issuedBefore, "issued-before", "", "of identities, only certificates that began before this `instant` (RFC 3339)")
}

func (t targets) none() bool {
	return len(t.files)+len(t.fingerprints)+len(t.serials)+len(t.keys)+len(t.identities)+len(t.issuers)+len(t.lists) == 0
}

// plain reports whether the flags say themselves what is revoked, so that nothing has to be
// looked up.
func (t targets) plain() bool {
	if len(t.files)+len(t.fingerprints) > 0 {
		return false
	}
	for _, word := range t.serials {
		if !strings.Contains(word, "/") {
			return false
		}
	}
	for _, word := range t.issuers {
		if _, err := armor.ParseDigest(word); err != nil {
			return false
		}
	}
	return !slices.ContainsFunc(t.identities, isName)
}

// isName reports whether a word names an Identity object.
func isName(word string) bool { return !strings.HasPrefix(word, "spiffe://") }

// about is what has to be looked up.
func (t targets) about() (q armor.Question, err error) {
	for _, path := range t.files {
		certs, err := issue.Certificates(path)
		if err != nil {
			return q, err
		}
		q.Leaves = append(q.Leaves, leavesOf(certs)...)
	}
	for _, word := range append(slices.Clone(t.fingerprints), t.serials...) {
		if strings.Contains(word, "/") {
			continue
		}
		digits, err := digitsOf(word)
		if err != nil {
			return q, err
		}
		q.Certificates = append(q.Certificates, digits)
	}
	for _, word := range t.identities {
		if isName(word) {
			q.Identities = append(q.Identities, word)
		}
	}
	return q, nil
}

// scope is what selectors are worked out from.
type scope struct {
	state  *armor.State
	reason armor.RevocationReason
	before time.Time // --issued-before; zero: not given
	now    time.Time
	retry  bool      // the command has a request id that its caller chose
	in     io.Reader // what - reads
}

// selectors turns the flags into what the cluster understands.
func (t targets) selectors(sc scope) ([]armor.Selector, error) {
	if t.none() {
		return nil, fault.Hinted(&fault.Usage{Err: errors.New("revoke what? nothing was named")},
			"an identity, or one of --file, --fingerprint, --serial, --key, --identity, --issuer, --selectors")
	}
	if t.issuedBefore != "" {
		var err error
		if sc.before, err = time.Parse(time.RFC3339, t.issuedBefore); err != nil {
			return nil, &fault.Usage{Err: fmt.Errorf("--issued-before %q is not an instant such as 2026-01-02T15:04:05Z", t.issuedBefore)}
		}
	}
	var all []armor.Selector
	for _, source := range []struct {
		words []string
		read  func(scope, string) ([]armor.Selector, error)
	}{
		{t.files, selectFile}, {t.fingerprints, selectFingerprint}, {t.serials, selectSerial},
		{t.keys, selectKey}, {t.identities, selectIdentity}, {t.issuers, selectIssuer},
		{t.lists, selectList},
	} {
		for _, word := range source.words {
			found, err := source.read(sc, word)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

func selectFile(sc scope, path string) ([]armor.Selector, error) {
	certs, err := issue.Certificates(path)
	if err != nil {
		return nil, err
	}
	if certs[0].IsCA {
		return nil, fault.Hinted(fmt.Errorf("%w: %s holds a CA's certificate", armor.ErrInvalid, path),
			"--issuer %s revokes all that it has signed", pki.SPKI(certs[0]))
	}
	issuer, found := issuerOf(sc.state, certs)
	if !found && sc.reason != armor.KeyCompromise {
		return nil, fault.Hinted(fmt.Errorf("%w: the issuer of %s is not known here: it is neither registered nor of a trust anchor",
			armor.ErrNotFound, path), "--key %s revokes its key", pki.SPKI(certs[0]))
	}
	return sc.ofCertificate(pki.Facts(certs[0], issuer))
}

// issuerOf finds the key that signed a certificate, which the certificate does not
// say: in the inventory, among the trust anchors, or in the file behind it.
func issuerOf(s *armor.State, certs []*x509.Certificate) (armor.Digest, bool) {
	leaf := certs[0]
	if r, found := s.Inventory.Get(pki.Fingerprint(leaf).String()); found {
		return r.Certificate.ID.Issuer, true
	}
	candidates := certs[1:]
	for anchor := range s.Anchors.Values() {
		if ca, err := pki.ParseAnchor(anchor.DER); err == nil {
			candidates = append(candidates[:len(candidates):len(candidates)], ca)
		}
	}
	for _, ca := range candidates {
		if leaf.CheckSignatureFrom(ca) == nil {
			return pki.SPKI(ca), true
		}
	}
	return armor.Digest{}, false
}

func selectFingerprint(sc scope, word string) ([]armor.Selector, error) {
	r, err := findRecord(sc.state, word)
	if err != nil {
		return nil, err
	}
	return sc.ofCertificate(r.Certificate)
}

// ofCertificate revokes one certificate. When its key is out, the serial number alone
// would be bypassed by a thief who has renewed it: then the key goes, and whatever its
// identity was issued so far.
func (sc scope) ofCertificate(c armor.Certificate) ([]armor.Selector, error) {
	if sc.reason != armor.KeyCompromise {
		return []armor.Selector{{Kind: armor.SelectCertificate, Certificate: c.ID}}, nil
	}
	before, err := sc.emptied()
	if err != nil {
		return nil, err
	}
	selectors := []armor.Selector{{Kind: armor.SelectKey, Key: c.Key}}
	if c.Identity != "" {
		selectors = append(selectors, armor.Selector{Kind: armor.SelectIdentity, Identity: armor.Pattern(c.Identity), IssuedBefore: before})
	}
	return selectors, nil
}

// emptied is the instant before which all of an identity's certificates go. A retry
// must ask the same thing, so it cannot take the present.
func (sc scope) emptied() (time.Time, error) {
	switch {
	case !sc.before.IsZero():
		return sc.before, nil
	case sc.retry:
		missing := errors.New("with --request-id, key-compromise also needs --issued-before: a retry must ask the same thing")
		return time.Time{}, fault.Hinted(&fault.Usage{Err: missing},
			"give the instant that the first attempt printed, or the present one at a first attempt")
	}
	return emptiedAt(sc.now), nil
}

// emptiedAt is after every certificate that has been issued so far: they begin on
// whole seconds.
func emptiedAt(now time.Time) time.Time { return now.UTC().Truncate(time.Second).Add(time.Second) }

func selectSerial(sc scope, word string) ([]armor.Selector, error) {
	if !strings.Contains(word, "/") {
		r, err := findRecord(sc.state, word)
		if err != nil {
			return nil, err
		}
		return []armor.Selector{{Kind: armor.SelectCertificate, Certificate: r.Certificate.ID}}, nil
	}
	id, err := parseCertID(word)
	if err != nil {
		return nil, fmt.Errorf("--serial: %w", err)
	}
	s := armor.Selector{Kind: armor.SelectCertificate, Certificate: id}
	return []armor.Selector{s}, s.Validate()
}

// parseCertID reads ISSUER/SERIAL, however a serial number may be spelled.
func parseCertID(word string) (armor.CertID, error) {
	issuer, serial, _ := strings.Cut(word, "/")
	digest, err := armor.ParseDigest(issuer)
	if err != nil {
		return armor.CertID{}, err
	}
	return armor.CertID{Issuer: digest, Serial: strings.TrimLeft(strings.ToLower(strings.ReplaceAll(serial, ":", "")), "0")}, nil
}

func selectKey(_ scope, word string) ([]armor.Selector, error) {
	digest, err := armor.ParseDigest(word)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	return []armor.Selector{{Kind: armor.SelectKey, Key: digest}}, nil
}

func selectIssuer(sc scope, word string) ([]armor.Selector, error) {
	if digest, err := armor.ParseDigest(word); err == nil {
		return []armor.Selector{{Kind: armor.SelectIssuer, Issuer: digest}}, nil
	}
	anchor, err := findAnchor(sc.state, word)
	if err != nil {
		return nil, err
	}
	return []armor.Selector{{Kind: armor.SelectIssuer, Issuer: anchor.Certificate.Key}}, nil
}

func selectIdentity(sc scope, word string) ([]armor.Selector, error) {
	pattern := armor.Pattern(word)
	if !isName(word) {
		if _, err := armor.ParsePattern(word); err != nil {
			return nil, err
		}
	} else {
		object, err := findIdentity(sc.state, word, "")
		if err != nil {
			return nil, err
		}
		pattern = object.ID
	}
	return []armor.Selector{{Kind: armor.SelectIdentity, Identity: pattern, IssuedBefore: sc.before}}, nil
}
