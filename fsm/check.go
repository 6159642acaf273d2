package fsm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// The checks here are on facts that were parsed before they were proposed. They use
// only armor's own grammar and arithmetic; to tighten one takes a new level, since a
// build that refuses what another accepts has diverged.

const (
	maxDER   = 1 << 14 // one certificate or certificate request
	maxChain = 8
)

// p256SPKI is what stands before the point in the SubjectPublicKeyInfo of a P-256
// key (RFC 5480 §2.1.1).
var p256SPKI = []byte{0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
	0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00}

// checkCertificate checks the facts of a certificate that is to carry an identity, or
// none when it is a CA's.
func checkCertificate(c armor.Certificate, isCA bool) error {
	switch {
	case c.ID.Issuer.IsZero() || c.Fingerprint.IsZero() || c.Key.IsZero():
		return refuse(armor.ErrInvalid, "certificate lacks the digest of its issuer, its DER encoding or its key")
	case !isSerial(c.ID.Serial):
		return refuse(armor.ErrInvalid, "certificate serial %.60q is not lower-case hex without leading zeros", c.ID.Serial)
	case !c.NotBefore.Before(c.NotAfter):
		return refuse(armor.ErrInvalid, "certificate %s is never valid: %s to %s", c.ID.Serial, stamp(c.NotBefore), stamp(c.NotAfter))
	case isCA && c.Identity != "":
		return refuse(armor.ErrInvalid, "certificate %s carries identity %q, so it is no CA certificate", c.ID.Serial, c.Identity)
	case isCA:
		return nil
	}
	_, err := armor.ParseIdentity(string(c.Identity))
	return describe(err, "certificate %s", c.ID.Serial)
}

func isSerial(s string) bool {
	if s == "0" {
		return true
	}
	if s == "" || len(s) > 40 || s[0] == '0' {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// checkOwn checks a certificate of the cluster's own, a node's or an operator's.
func (d *draft) checkOwn(c armor.Certificate, want armor.Identity) error {
	if err := checkCertificate(c, false); err != nil {
		return err
	}
	if c.Identity != want {
		return refuse(armor.ErrInvalid, "certificate %s carries identity %q, and %q is needed", c.ID.Serial, c.Identity, want)
	}
	return d.usable(c)
}

// usable returns why a certificate of the cluster's own does not count now, by log
// time; nil when it does.
func (d *draft) usable(c armor.Certificate) error { return d.usableAt(c, d.Time) }

func (d *draft) usableAt(c armor.Certificate, now time.Time) error {
	if r, found := d.RevokesOwn(c); found {
		return refuse(armor.ErrRevoked, "%s is revoked", r.Selector)
	}
	if now.After(c.NotAfter) {
		return refuse(armor.ErrInvalid, "certificate %s expired at %s", c.ID.Serial, stamp(c.NotAfter))
	}
	return nil
}

// checkOperatorKey ties the key that verifies signatures to the certificate, so that
// revoking one ends the other.
func checkOperatorKey(o armor.Operator) error {
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), o.PublicKey); err != nil {
		return refuse(armor.ErrInvalid, "public key of operator %s is not an uncompressed P-256 point", o.Name)
	}
	if spki := append(p256SPKI[:len(p256SPKI):len(p256SPKI)], o.PublicKey...); sha256.Sum256(spki) != o.Certificate.Key {
		return refuse(armor.ErrInvalid, "public key of operator %s is not the key of its certificate", o.Name)
	}
	return nil
}

func checkAddresses(peer, client, ops string) error {
	return firstError(
		armor.CheckAddress("peer address", peer, true),
		armor.CheckAddress("client address", client, false),
		armor.CheckAddress("ops address", ops, false),
	)
}

func checkDER(what string, der []byte) error {
	if len(der) == 0 || len(der) > maxDER {
		return refuse(armor.ErrInvalid, "%s has %d bytes; 1 to %d are taken", what, len(der), maxDER)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
