package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/armordb/armordb/armor"
)

// Profile says what a client's leaf may carry beyond the strict rules.
type Profile struct {
	// SVID also allows serverAuth, which X.509-SVIDs carry (X.509-SVID §4.4).
	SVID bool
}

// Rule names one demand of the leaf profile.
type Rule string

const (
	RuleVersion     Rule = "version"       // X.509 version 3
	RuleSerial      Rule = "serial"        // a serial number that RFC 5280 allows
	RuleKey         Rule = "key"           // a key of an algorithm and size that we trust
	RuleCA          Rule = "ca"            // not a CA itself
	RuleKeyUsage    Rule = "key_usage"     // it signs handshakes, and neither certificates nor CRLs
	RuleExtKeyUsage Rule = "ext_key_usage" // it is for TLS clients, and for servers only with Profile.SVID
	RuleExtension   Rule = "extension"     // no critical extension that we do not know
	RuleIdentity    Rule = "identity"      // one URI SAN, and it is a SPIFFE id
)

// Violation is one rule that a certificate breaks. It is an armor.ErrInvalid.
type Violation struct {
	Rule Rule
	What string // completes "certificate …"
}

// Error is a sentence about the certificate.
func (v *Violation) Error() string { return "certificate " + v.What }

// Is makes errors.Is(err, armor.ErrInvalid) true.
func (v *Violation) Is(target error) bool { return target == armor.ErrInvalid }

// CheckLeaf returns the first rule of the client leaf profile that cert breaks, as
// a *Violation, or nil. It judges the certificate by itself: neither its chain nor
// its validity, which belong to Verifier and armor.State.
//
// crypto/x509 accepts all of what is refused here.
func CheckLeaf(cert *x509.Certificate, p Profile) error {
	return first(Violations(cert, p))
}

// Violations returns every rule of the client leaf profile that cert breaks.
func Violations(cert *x509.Certificate, p Profile) []*Violation {
	broken := basics(cert)
	broken = append(broken, clientUsage(cert, p.SVID)...)
	return append(broken, identityRule(cert)...)
}

func first(broken []*Violation) error {
	if len(broken) == 0 {
		return nil
	}
	return broken[0]
}

// basics are the rules that clients, nodes and operators share.
func basics(cert *x509.Certificate) []*Violation {
	var broken []*Violation
	add := func(rule Rule, what string) {
		if what != "" {
			broken = append(broken, &Violation{Rule: rule, What: what})
		}
	}
	add(RuleCA, caFault(cert))
	add(RuleVersion, versionFault(cert))
	add(RuleSerial, serialFault(cert))
	add(RuleKey, KeyFault(cert.PublicKey))
	add(RuleKeyUsage, keyUsageFault(cert))
	add(RuleExtension, extensionFault(cert))
	return broken
}

func versionFault(cert *x509.Certificate) string {
	if cert.Version != 3 {
		return fmt.Sprintf("is of version %d; version 3 is required", cert.Version)
	}
	return ""
}

// maxSerialBits: RFC 5280 §4.1.2.2 allows 20 octets, of which the first bit is the
// sign.
const maxSerialBits = 159

func serialFault(cert *x509.Certificate) string {
	if n := cert.SerialNumber; n == nil || n.Sign() <= 0 || n.BitLen() > maxSerialBits {
		return "has a serial number that is not positive or is longer than 20 octets"
	}
	return ""
}

func caFault(cert *x509.Certificate) string {
	if cert.IsCA {
		return "is a CA certificate; a leaf certificate is required"
	}
	return ""
}

func keyUsageFault(cert *x509.Certificate) string {
	switch {
	case cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "may sign certificates or CRLs by its key usage; a leaf must not"
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "lacks the key usage digitalSignature"
	}
	return ""
}

func extensionFault(cert *x509.Certificate) string {
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return fmt.Sprintf("has the critical extension %s, which is not understood here", cert.UnhandledCriticalExtensions[0])
	}
	return ""
}

// Sizes of RSA keys in bits: smaller is breakable, larger is a way to keep us busy.
const (
	minRSABits = 2048
	maxRSABits = 4096
)

// KeyFault says why a public key is not accepted in a certificate; "" when it is.
func KeyFault(public any) string {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return ""
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return ""
		}
		return fmt.Sprintf("has a key on curve %s; P-256 or P-384 is required", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits || bits%8 != 0 {
			return fmt.Sprintf("has an RSA key of %d bits; %d to %d are required", bits, minRSABits, maxRSABits)
		}
		return ""
	}
	return "has a key of an unknown kind; ECDSA P-256 or P-384, Ed25519 or RSA is required"
}

func clientUsage(cert *x509.Certificate, svid bool) []*Violation {
	fault := ""
	switch usages := cert.ExtKeyUsage; {
	case slices.Contains(usages, x509.ExtKeyUsageAny):
		fault = "has the extended key usage anyExtendedKeyUsage"
	case !slices.Contains(usages, x509.ExtKeyUsageClientAuth):
		fault = "lacks the extended key usage clientAuth"
	case slices.Contains(usages, x509.ExtKeyUsageServerAuth) && !svid:
		fault = "has the extended key usage serverAuth, which its issuer is not marked for"
	}
	if fault == "" {
		return nil
	}
	return []*Violation{{Rule: RuleExtKeyUsage, What: fault}}
}

// ServesToo reports whether the leaf also carries serverAuth.
func ServesToo(cert *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
}

func identityRule(cert *x509.Certificate) []*Violation {
	uris, err := rawURIs(cert)
	fault := ""
	switch {
	case err != nil:
		fault = "has malformed subject alternative names"
	case len(uris) != 1:
		fault = fmt.Sprintf("carries %d URI SANs; exactly one, its SPIFFE ID, is required", len(uris))
	default:
		if _, err := armor.ParseIdentity(uris[0]); err != nil {
			fault = fmt.Sprintf("carries a malformed SPIFFE ID: %v", err)
		}
	}
	if fault == "" {
		return nil
	}
	return []*Violation{{Rule: RuleIdentity, What: fault}}
}
