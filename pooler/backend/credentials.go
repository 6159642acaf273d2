package backend

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
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
func (d *Dialer) credentials(db armor.Database, a armor.RoleAuth, address string) (credentials, error) {
	host, _, err := splitHost(address)
	if err != nil {
		return credentials{}, err
	}
	own := credentials{passwords: []string{""}, methods: "none"}
	if own.tls, err = d.serverTLS(db, host); err != nil {
		return own, err
	}
	if a.Certificate != "" {
		if err := d.showCertificate(own.tls, a.Certificate); err != nil {
			return own, err
		}
	}
	if a.Secret == "" {
		return own, nil
	}
	if own.passwords, err = d.cfg.Secrets.Password(a.Secret, address); err != nil {
		return own, fmt.Errorf("password %s for %s: %w", a.Secret, address, err)
	}
	own.methods = "scram-sha-256"
	if a.MD5 {
		own.methods += ",md5"
	}
	if own.tls != nil && verifies(db.TLSMode) {
		own.methods += ",password" // only to a server that has proved who it is
	}
	return own, nil
}

// showCertificate has a server be shown a client certificate. Without TLS there is
// nobody to show it to.
func (d *Dialer) showCertificate(cfg *tls.Config, name armor.SecretName) error {
	if cfg == nil {
		return fmt.Errorf("%w: certificate %s needs TLS", armor.ErrInvalid, name)
	}
	c, err := d.cfg.Secrets.Certificate(name)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	cfg.Certificates = []tls.Certificate{c}
	return nil
}

// explained adds to pgconn's Refusal of what a server asks for what can be done about
// it. pgconn has no type for it.
func (a attempt) explained(err error) error {
	if !strings.Contains(err.Error(), "authentication method requirement") {
		return err
	}
	return fmt.Errorf("%w: change the role's line in pg_hba.conf, or how the Database has role %s log in"+
		" (auth.roles; tls.mode for a clear password)", err, a.target.Role)
}

func verifies(mode armor.TLSMode) bool {
	return mode == armor.TLSVerifyCA || mode == armor.TLSVerifyFull
}

// serverTLS is the TLS towards PostgreSQL; nil for none, which over a Unix socket there
// never is, as in libpq.
func (d *Dialer) serverTLS(db armor.Database, host string) (*tls.Config, error) {
	if db.TLSMode == armor.TLSDisable || path.IsAbs(host) {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if db.TLSMode == armor.TLSRequire {
		cfg.InsecureSkipVerify = true //nolint:gosec // sslmode=require asks for encryption alone
		return cfg, nil
	}
	if !verifies(db.TLSMode) {
		return nil, fmt.Errorf("%w: TLS mode %q", armor.ErrInvalid, db.TLSMode)
	}
	roots, err := d.cfg.Secrets.CA(db.CA)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", db.CA, err)
	}
	cfg.RootCAs = roots
	if db.TLSMode == armor.TLSVerifyCA {
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
