package pki

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// CAKind says whom a CA signs. The three never share a key, so that a client's
// certificate cannot pose as an edge nor a node's as a client.
type CAKind string

const (
	ClientCA CAKind = "client" // apps
	ServerCA CAKind = "server" // nodes, as clients see them
	PeerCA   CAKind = "peer"   // nodes and operators
)

// backdate is how far NotBefore lies in the past, for readers whose clock is behind.
const backdate = time.Minute

// CAConfig describes a CA to be made.
type CAConfig struct {
	Kind       CAKind
	CommonName string
	// TrustDomain becomes a critical name constraint: whatever the CA signs, X.509
	// itself then refuses identities of another domain. Required for client and
	// peer CAs, not allowed for server CAs.
	TrustDomain string
	Lifetime    time.Duration
	Now         time.Time // zero: the clock
}

// NewKey makes an ECDSA P-256 key.
func NewKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// NewCA makes a key and a self-signed CA certificate that signs leaves only.
func NewCA(cfg CAConfig) (*x509.Certificate, crypto.Signer, error) {
	template, err := caTemplate(cfg)
	if err != nil {
		return nil, nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA %q: %w", cfg.CommonName, err)
	}
	return cert, key, nil
}

func caTemplate(cfg CAConfig) (*x509.Certificate, error) {
	usages := map[CAKind][]x509.ExtKeyUsage{
		ClientCA: {x509.ExtKeyUsageClientAuth},
		ServerCA: {x509.ExtKeyUsageServerAuth},
		PeerCA:   {x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}[cfg.Kind]
	switch {
	case usages == nil:
		return nil, fmt.Errorf("%w: CA kind %q is not one of client, server, peer", armor.ErrInvalid, cfg.Kind)
	case cfg.CommonName == "" || len(cfg.CommonName) > maxCommonName:
		return nil, fmt.Errorf("%w: a CA's common name must have 1 to %d characters", armor.ErrInvalid, maxCommonName)
	case cfg.Lifetime <= 0:
		return nil, fmt.Errorf("%w: lifetime of CA %q must be positive", armor.ErrInvalid, cfg.CommonName)
	case (cfg.Kind == ServerCA) != (cfg.TrustDomain == ""):
		return nil, fmt.Errorf("%w: a client or peer CA needs a trust domain, and a server CA has none", armor.ErrInvalid)
	}
	now := clock(cfg.Now)
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: cfg.CommonName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(cfg.Lifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: usages,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	if cfg.TrustDomain != "" {
		if _, err := armor.ParsePattern("spiffe://" + cfg.TrustDomain + "/*"); err != nil {
			return nil, err
		}
		template.PermittedDNSDomainsCritical = true // governs the whole extension
		template.PermittedURIDomains = []string{cfg.TrustDomain}
	}
	return template, nil
}

// maxCommonName is ub-common-name of RFC 5280 appendix A.
const maxCommonName = 64

// LeafConfig describes a certificate to be signed. At least one of Client and
// Server must be set, and Identity with Client.
type LeafConfig struct {
	Identity   armor.Identity
	CommonName string // for people's eyes only; a name is made from the rest when empty
	Client     bool
	Server     bool
	DNSNames   []string
	IPs        []netip.Addr
	Lifetime   time.Duration
	Now        time.Time // zero: the clock
}

// SignLeaf signs a certificate for public, the key of a checked CSR or of ours. The
// result is held against the profile and the CA's name constraints before it is
// handed out.
func SignLeaf(ca *x509.Certificate, key crypto.Signer, public crypto.PublicKey, cfg LeafConfig) (*x509.Certificate, error) {
	template, err := leafTemplate(cfg)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(ca.NotAfter) {
		return nil, fmt.Errorf("%w: the certificate would outlive its CA %q, which ends at %s: ask for a shorter lifetime or renew the CA",
			armor.ErrInvalid, ca.Subject.CommonName, ca.NotAfter.UTC().Format(time.RFC3339))
	}
	cert, err := sign(template, ca, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", cmp.Or(string(cfg.Identity), template.Subject.CommonName), err)
	}
	if err := checkIssued(cert, ca, cfg); err != nil {
		return nil, err
	}
	return cert, nil
}

func leafTemplate(cfg LeafConfig) (*x509.Certificate, error) {
	switch {
	case !cfg.Client && !cfg.Server:
		return nil, fmt.Errorf("%w: a certificate must be for a client, a server or both", armor.ErrInvalid)
	case cfg.Client && cfg.Identity == "":
		return nil, fmt.Errorf("%w: a client certificate needs an identity", armor.ErrInvalid)
	case cfg.Lifetime <= 0:
		return nil, fmt.Errorf("%w: the lifetime of a certificate must be positive", armor.ErrInvalid)
	}
	now := clock(cfg.Now)
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: commonName(cfg)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(cfg.Lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              cfg.DNSNames,
	}
	if cfg.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if cfg.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, ip := range cfg.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	return template, addIdentity(template, cfg.Identity)
}

func addIdentity(template *x509.Certificate, id armor.Identity) error {
	if id == "" {
		return nil
	}
	if _, err := armor.ParseIdentity(string(id)); err != nil {
		return err
	}
	uri, err := url.Parse(string(id))
	if err != nil {
		return fmt.Errorf("%w: identity %q: %w", armor.ErrInvalid, id, err)
	}
	template.URIs = []*url.URL{uri}
	return nil
}

// commonName is what people see in listings; nothing is decided by it.
func commonName(cfg LeafConfig) string {
	name := cfg.CommonName
	if name == "" && cfg.Identity != "" {
		name = strings.TrimPrefix(cfg.Identity.Path(), "/")
	}
	if name == "" && len(cfg.DNSNames) > 0 {
		name = cfg.DNSNames[0]
	}
	return name[:min(len(name), maxCommonName)]
}

// checkIssued refuses to hand out what the edge would refuse.
func checkIssued(cert, ca *x509.Certificate, cfg LeafConfig) error {
	if cfg.Client {
		if err := CheckLeaf(cert, Profile{SVID: cfg.Server}); err != nil {
			return err
		}
	} else if err := first(basics(cert)); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, usage := range cert.ExtKeyUsage {
		options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: clock(cfg.Now)}
		if _, err := cert.Verify(options); err != nil {
			return fmt.Errorf("%w: CA %q cannot issue this certificate: %w", armor.ErrInvalid, ca.Subject.CommonName, err)
		}
	}
	return nil
}

// sign leaves the serial number to crypto/x509: 20 random octets.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func clock(now time.Time) time.Time {
	if now.IsZero() {
		return time.Now()
	}
	return now
}

const maxCSR = 16 << 10 // bytes of DER

// NewCSR makes a PKCS #10 request for key. The identity in it is a wish: the
// signer decides.
func NewCSR(key crypto.Signer, id armor.Identity) ([]byte, error) {
	template := &x509.Certificate{}
	if err := addIdentity(template, id); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: template.URIs}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR parses a PKCS #10 request and checks that its sender holds the key and
// that the key is one we accept.
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("%w: certificate request is longer than %d bytes", armor.ErrInvalid, maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: parse certificate request: %w", armor.ErrInvalid, err)
	}
	if fault := KeyFault(csr.PublicKey); fault != "" {
		return nil, fmt.Errorf("%w: certificate request %s", armor.ErrInvalid, fault)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: certificate request: %w", armor.ErrInvalid, err)
	}
	return csr, nil
}
