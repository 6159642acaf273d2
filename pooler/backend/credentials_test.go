package backend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/armordb/armordb/armor"
)

// vault is safe, with a CA and a certificate.
type vault struct{ safe }

func (vault) CA(armor.SecretName) (*x509.CertPool, error) { return x509.NewCertPool(), nil }
func (vault) Certificate(armor.SecretName) (tls.Certificate, error) {
	return tls.Certificate{Certificate: [][]byte{{1}}}, nil
}

// TestServersMayAskForNoMoreThanTheRoleSays: a clear password only if they have proved
// who they are, MD5 only where that is allowed.
func TestServersMayAskForNoMoreThanTheRoleSays(t *testing.T) {
	password, md5 := armor.RoleAuth{Role: role, Secret: "orders"}, armor.RoleAuth{Role: role, Secret: "orders", MD5: true}
	for _, c := range []struct {
		auth    armor.RoleAuth
		mode    armor.TLSMode
		address string
		methods string
		tls     string // "", "blind", "chain", "name"
	}{
		{armor.RoleAuth{Role: role}, armor.TLSVerifyFull, "db:5432", "none", "name"},
		{password, armor.TLSDisable, "db:5432", "scram-sha-256", ""},
		{password, armor.TLSRequire, "db:5432", "scram-sha-256", "blind"},
		{password, armor.TLSVerifyCA, "db:5432", "scram-sha-256,password", "chain"},
		{password, armor.TLSVerifyFull, "db:5432", "scram-sha-256,password", "name"},
		{password, armor.TLSVerifyFull, "/run/postgresql:5432", "scram-sha-256", ""},
		{md5, armor.TLSRequire, "db:5432", "scram-sha-256,md5", "blind"},
		{md5, armor.TLSVerifyFull, "db:5432", "scram-sha-256,md5,password", "name"},
	} {
		d := Dialer{Config{Secrets: vault{}}}
		own, err := d.credentials(armor.Database{TLSMode: c.mode}, c.auth, c.address)
		if err != nil || own.methods != c.methods || kindOfTLS(own.tls) != c.tls {
			t.Errorf("%+v: %s over TLS %q, %v", c, own.methods, kindOfTLS(own.tls), err)
		}
	}
}

func kindOfTLS(cfg *tls.Config) string {
	switch {
	case cfg == nil:
		return ""
	case !cfg.InsecureSkipVerify:
		return "name"
	case cfg.VerifyConnection != nil:
		return "chain"
	}
	return "blind"
}

func TestCertificatesNeedTLS(t *testing.T) {
	d := Dialer{Config{Secrets: vault{}}}
	auth := armor.RoleAuth{Role: role, Certificate: "orders"}
	if own, err := d.credentials(armor.Database{TLSMode: armor.TLSRequire}, auth, "db:5432"); err != nil || len(own.tls.Certificates) != 1 {
		t.Errorf("over TLS: %v", err)
	}
	if _, err := d.credentials(armor.Database{TLSMode: armor.TLSDisable}, auth, "db:5432"); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("without: %v", err)
	}
}

func TestMissingNamesTheRole(t *testing.T) {
	d := Dialer{Config{Secrets: safe{}}}
	db := armor.Database{TLSMode: armor.TLSDisable, Hosts: []string{"db:5432"}, Roles: []armor.RoleAuth{{Role: role, Secret: "orders"}}}
	if err := d.Missing(db); err != nil {
		t.Errorf("of what is there: %v", err)
	}
	db.Roles = append(db.Roles, armor.RoleAuth{Role: "other", Secret: "lost"})
	want := "role other: password lost for db:5432: " + armor.ErrNotFound.Error()
	if err := d.Missing(db); err == nil || err.Error() != want || !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
