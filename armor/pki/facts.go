package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// SPKI is the digest of the certificate's SubjectPublicKeyInfo: it names the key,
// whatever certificate holds it.
func SPKI(cert *x509.Certificate) armor.Digest {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Fingerprint is the digest of the whole certificate.
func Fingerprint(cert *x509.Certificate) armor.Digest { return sha256.Sum256(cert.Raw) }

// Facts returns what is compared of a certificate later. issuer is the SPKI of the
// certificate that signed it, which is not in the certificate itself. Identity
// stays empty unless the certificate carries exactly one well-formed SPIFFE ID.
func Facts(cert *x509.Certificate, issuer armor.Digest) armor.Certificate {
	identity, err := URIIdentity(cert)
	if err != nil {
		identity = ""
	}
	return armor.Certificate{
		ID:          armor.CertID{Issuer: issuer, Serial: cert.SerialNumber.Text(16)},
		Fingerprint: Fingerprint(cert),
		Key:         SPKI(cert),
		Identity:    identity,
		NotBefore:   cert.NotBefore.UTC(),
		NotAfter:    cert.NotAfter.UTC(),
	}
}

// AnchorFacts are the facts of a CA certificate that is trusted by itself. The
// issuer of a self-issued one is its own key. That of an intermediate is looked for in above;
// when it is not there it stays zero.
func AnchorFacts(cert *x509.Certificate, above ...*x509.Certificate) armor.Certificate {
	if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		return Facts(cert, SPKI(cert))
	}
	for _, issuer := range above {
		if signs(issuer, cert) {
			return Facts(cert, SPKI(issuer))
		}
	}
	return Facts(cert, armor.Digest{})
}

// errIdentity is what URIIdentity reports; CheckLeaf words it for people.
var errIdentity = errors.New("URI SAN")

// URIIdentity returns the SPIFFE ID of a certificate with exactly one URI SAN. It
// reads the bytes as signed: net/url, through which crypto/x509 hands out URIs,
// lowers the scheme and drops an empty fragment, and then two spellings would be
// one identity.
func URIIdentity(cert *x509.Certificate) (armor.Identity, error) {
	uris, err := rawURIs(cert)
	if err != nil {
		return "", err
	}
	if len(uris) != 1 {
		return "", fmt.Errorf("%w: %d of them, exactly one is required", errIdentity, len(uris))
	}
	id, err := armor.ParseIdentity(uris[0])
	if err != nil {
		return "", fmt.Errorf("%w: %w", errIdentity, err)
	}
	return id, nil
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// tagURI is uniformResourceIdentifier in GeneralName (RFC 5280 §4.2.1.6).
const tagURI = 6

func rawURIs(cert *x509.Certificate) ([]string, error) {
	var uris []string
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		found, err := generalNameURIs(extension.Value)
		if err != nil {
			return nil, err
		}
		uris = append(uris, found...)
	}
	return uris, nil
}

func generalNameURIs(value []byte) ([]string, error) {
	var names asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: malformed subject alternative names", errIdentity)
	}
	var uris []string
	for rest := names.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return nil, fmt.Errorf("%w: malformed subject alternative name", errIdentity)
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
			uris = append(uris, string(name.Bytes))
		}
	}
	return uris, nil
}
