package pooler

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"

	"github.com/armordb/armordb/armor"
)

// credentials are what a login to one host proves itself by.
type credentials struct {
	tls       *tls.Config // nil: no TLS
	passwords []string    // to be tried one after the other; one empty one for none
	methods   string      // that the server may ask for, in pgconn's words
}

// credentials gathers them from this node's secrets, as they are now.
func (p *Pooler) credentials(d armor.Database, a armor.RoleAuth, address string) (credentials, error) {
	host, _, err := splitHost(address)
	if err != nil {
		return credentials{}, err
	}
	own := credentials{passwords: []string{""}, methods: "none"}
	if own.tls, err = p.serverTLS(d, host); err != nil {
		return own, err
	}
	if a.Certificate != "" {
		if err := p.showCertificate(own.tls, a.Certificate); err != nil {
			return own, err
		}
	}
	if a.Secret == "" {
		return own, nil
	}
	if own.passwords, err = p.cfg.Secrets.Password(a.Secret, address); err != nil {
		return own, fmt.Errorf("password %s for %s: %w", a.Secret, address, err)
	}
	own.methods = "scram-sha-256"
	if a.MD5 {
		own.methods += ",md5"
	}
	if own.tls != nil && verifies(d.TLSMode) {
		own.methods += ",password" // only to a server that has proved who it is
	}
	return own, nil
}

// showCertificate has a server be shown a client certificate. Without TLS there is
// nobody to show it to.
func (p *Pooler) showCertificate(cfg *tls.Config, name armor.SecretName) error {
	if cfg == nil {
		return fmt.Errorf("%w: certificate %s needs TLS", armor.ErrInvalid, name)
	}
	c, err := p.cfg.Secrets.Certificate(name)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	cfg.Certificates = []tls.Certificate{c}
	return nil
}

// explained adds to pgconn's refusal of what a server asks for what can be done about
// it. pgconn has no type for it.
func (a attempt) explained(err error) error {
	if !strings.Contains(err.Error(), "authentication method requirement") {
		return err
	}
	return fmt.Errorf("%w: change the role's line in pg_hba.conf, or how the Database has role %s log in (auth.roles; tls.mode for a clear password)", err, a.target.role)
}

func verifies(mode armor.TLSMode) bool {
	return mode == armor.TLSVerifyCA || mode == armor.TLSVerifyFull
}

// serverTLS is the TLS towards PostgreSQL; nil for none, which over a Unix socket there
// never is, as in libpq.
func (p *Pooler) serverTLS(d armor.Database, host string) (*tls.Config, error) {
	if d.TLSMode == armor.TLSDisable || path.IsAbs(host) {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if d.TLSMode == armor.TLSRequire {
		cfg.InsecureSkipVerify = true //nolint:gosec // sslmode=require asks for encryption alone
		return cfg, nil
	}
	if !verifies(d.TLSMode) {
		return nil, fmt.Errorf("%w: TLS mode %q", armor.ErrInvalid, d.TLSMode)
	}
	roots, err := p.cfg.Secrets.CA(d.CA)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", d.CA, err)
	}
	cfg.RootCAs = roots
	if d.TLSMode == armor.TLSVerifyCA {
		cfg.InsecureSkipVerify = true //nolint:gosec // verifyChain does it, without the name
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(roots, s) }
	}
	return cfg, nil
}

func verifyChain(roots *x509.CertPool, s tls.ConnectionState) error {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(options)
	return err
}

// missingSecret says which name of the configuration this node does not have.
func (p *Pooler) missingSecret(d armor.Database) string {
	if d.Verifiers != "" {
		if err := p.checkVerifiers(d.Verifiers); err != nil {
			return fmt.Sprintf("verifiers %s: %v", d.Verifiers, err)
		}
	}
	for _, role := range d.Roles {
		for _, host := range d.Hosts {
			if _, err := p.credentials(d, role, host); err != nil {
				return fmt.Sprintf("role %s: %v", role.Role, err)
			}
		}
	}
	return ""
}

// sslRequest asks PostgreSQL for TLS (PostgreSQL, "SSLRequest").
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

var errNoTLS = errors.New("the server does not speak TLS")

// startTLS turns a fresh connection to PostgreSQL into TLS.
func startTLS(ctx context.Context, conn net.Conn, cfg *tls.Config) (net.Conn, error) {
	if _, err := conn.Write(sslRequest); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errNoTLS
	}
	secured := tls.Client(conn, cfg)
	return secured, secured.HandshakeContext(ctx)
}
