package pooler_test

import (
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

func newCertificate(t *testing.T) *pgtest.Certificate {
	t.Helper()
	c, err := pgtest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withTLSClients has clients use TLS, as they do behind the edge.
func withTLSClients(t *testing.T) option {
	c := newCertificate(t)
	return func(h *house, _ *pooler.Config) { h.tls = c }
}

func withServerTLS(mode armor.TLSMode, c *pgtest.Certificate) option {
	return func(h *house, _ *pooler.Config) {
		h.database.TLSMode, h.database.CA = mode, "pg-ca"
		if c != nil {
			h.secrets.roots = c.Roots
		}
	}
}

func TestServerTLS(t *testing.T) {
	pg, certificate, stranger := ownPostgres(t), newCertificate(t), newCertificate(t)
	if err := pg.EnableTLS(certificate.PEM, certificate.KeyPEM); err != nil {
		t.Fatal(err)
	}
	byName := net.JoinHostPort("localhost", strconv.Itoa(pg.Port))
	for _, c := range []struct {
		name  string
		mode  armor.TLSMode
		host  string
		trust *pgtest.Certificate
		code  string // SQLSTATE of the refusal; empty: it works
	}{
		{"require", armor.TLSRequire, pg.TCP(), nil, ""},
		{"verify-full", armor.TLSVerifyFull, pg.TCP(), certificate, ""},
		{"verify-full by name", armor.TLSVerifyFull, byName, certificate, ""},
		{"verify-ca", armor.TLSVerifyCA, pg.TCP(), certificate, ""},
		{"verify-ca of a stranger", armor.TLSVerifyCA, pg.TCP(), stranger, "08006"},
		{"verify-full of a stranger", armor.TLSVerifyFull, pg.TCP(), stranger, "08006"},
		{"verify-full without a CA", armor.TLSVerifyFull, pg.TCP(), nil, "57P03"},
		{"nonsense", "nonsense", pg.TCP(), nil, "57P03"},
		{"server without TLS", armor.TLSRequire, postgres.TCP(), nil, "08006"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, on(pg, c.host), withServerTLS(c.mode, c.trust), withTLSClients(t))
			if c.code != "" {
				h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", c.code)
				return
			}
			client := h.client()
			if got := h.query(client, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got[0] != "t" {
				t.Errorf("TLS: %q", got)
			}
			h.startSleeping(client)
			h.Cancel(context.Background(), keyOf(client), false) // over TLS
			_, err := client.Answer()
			h.wantRefusal(err, "ERROR", "57014")
			if got := h.query(client, "SELECT repeat('x', 1000000)"); len(got[0]) != 1000000 {
				t.Errorf("%d bytes", len(got[0]))
			}
		})
	}
}

// TestCleartextPasswordsGoToVerifiedServersAlone is GUARANTEES trap 24.
func TestCleartextPasswordsGoToVerifiedServersAlone(t *testing.T) {
	pg, certificate := ownPostgres(t), newCertificate(t)
	if err := pg.EnableTLS(certificate.PEM, certificate.KeyPEM); err != nil {
		t.Fatal(err)
	}
	if err := pg.SetHBA("local all " + pgtest.SuperUser + " trust\nhost all all all password\n"); err != nil {
		t.Fatal(err)
	}
	for mode, code := range map[armor.TLSMode]string{armor.TLSDisable: "08006", armor.TLSRequire: "08006", armor.TLSVerifyFull: ""} {
		h := newHouse(t, withHost(pg.TCP()), withServerTLS(mode, certificate))
		err := h.dial().Login("user", pgtest.Role, "database", "orders")
		if code == "" {
			h.must(err)
			continue
		}
		h.wantRefusal(err, "FATAL", code)
	}
}
