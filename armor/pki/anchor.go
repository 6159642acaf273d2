package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

func checkAnchor(a armor.TrustAnchor) (*x509.Certificate, error) {
	if armor.Digest(sha256.Sum256(a.DER)) != a.Certificate.Fingerprint {
		return nil, fmt.Errorf("%w: its certificate has another fingerprint", armor.ErrInvalid)
	}
	cert, err := ParseAnchor(a.DER)
	if err != nil {
		return nil, err
	}
	if Facts(cert, a.Certificate.ID.Issuer) != a.Certificate {
		return nil, fmt.Errorf("%w: what is known of its certificate is not what the certificate says", armor.ErrInvalid)
	}
	return cert, nil
}

// ParseAnchor parses a CA certificate and checks that it can be a trust anchor.
func ParseAnchor(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%w: certificate is longer than %d bytes", armor.ErrInvalid, maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: parse certificate: %w", armor.ErrInvalid, err)
	}
	if fault := issuerFault(cert); fault != "" {
		return nil, fmt.Errorf("%w: certificate %s", armor.ErrInvalid, fault)
	}
	return cert, nil
}

// issuerFault says why a certificate is not accepted as an issuer; "" when it is.
func issuerFault(cert *x509.Certificate) string {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return "is not a CA certificate"
	case statesKeyUsage(cert) && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return "may not sign certificates by its key usage"
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok && key.Curve == elliptic.P521() {
		return "" // a common choice for roots
	}
	return KeyFault(cert.PublicKey)
}

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// statesKeyUsage tells a key usage without any bit from none at all, which
// x509.Certificate.KeyUsage does not.
func statesKeyUsage(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidKeyUsage) })
}

// AnchorFault says why a CA can vouch for no client whose identity is matched by prefix; "" when
// it can, now or once it has begun. It is asked before a CA is registered.
func AnchorFault(cert *x509.Certificate, prefix armor.Pattern, now time.Time) string {
	if fault := issuerFault(cert); fault != "" {
		return fault
	}
	switch {
	case now.After(cert.NotAfter):
		return "ended at " + cert.NotAfter.UTC().Format(time.RFC3339)
	case weaklySigned(cert):
		return fmt.Sprintf("is signed with %s, which can be forged", cert.SignatureAlgorithm)
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Sprintf("has a critical extension (%s) that nobody here understands", cert.UnhandledCriticalExtensions[0])
	case !maySignClients(cert):
		return "may not sign clients by its extended key usage: clientAuth is missing"
	case !permits(cert, prefix):
		return fmt.Sprintf("may not sign identities of %s by its name constraints", prefix)
	}
	return ""
}

func weaklySigned(cert *x509.Certificate) bool {
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// maySignClients: extended key usages of a CA bound those of what it signs, by everybody's
// custom, and none allow all.
func maySignClients(cert *x509.Certificate) bool {
	return len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// permits holds the trust domain of a prefix against the CA's constraints on URIs (RFC 5280
// section 4.2.1.10: a host, or with a period before it all below a domain).
func permits(cert *x509.Certificate, prefix armor.Pattern) bool {
	u, err := url.Parse(string(prefix))
	if err != nil {
		return false
	}
	within := func(constraint string) bool {
		if strings.HasPrefix(constraint, ".") {
			return strings.HasSuffix(strings.ToLower(u.Host), strings.ToLower(constraint))
		}
		return strings.EqualFold(u.Host, constraint)
	}
	if slices.ContainsFunc(cert.ExcludedURIDomains, within) {
		return false
	}
	return len(cert.PermittedURIDomains) == 0 || slices.ContainsFunc(cert.PermittedURIDomains, within)
}

// DefaultPrefix is all identities of the one trust domain that a CA is for: by its name
// constraints, or by its own SPIFFE ID (X.509-SVID section 4.1); "" when neither names one.
func DefaultPrefix(cert *x509.Certificate) string {
	domain := ""
	switch {
	case len(cert.PermittedURIDomains) == 1:
		domain = cert.PermittedURIDomains[0]
	case len(cert.PermittedURIDomains) == 0 && len(cert.URIs) == 1 && cert.URIs[0].Scheme == "spiffe":
		domain = cert.URIs[0].Host
	}
	if domain == "" || strings.HasPrefix(domain, ".") {
		return ""
	}
	return "spiffe://" + domain + "/*"
}
