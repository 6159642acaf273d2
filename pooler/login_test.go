package pooler_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os/user"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// methods is a PostgreSQL whose every role has to log in in another way.
type methods struct {
	*pgtest.Postgres
	certificate *pgtest.Certificate // the server's, and the CA of clients
}

func withMethods(t *testing.T) methods {
	t.Helper()
	pg, certificate := ownPostgres(t), newCertificate(t)
	us, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	_, err = pg.SQL("postgres", "CREATE ROLE by_cert LOGIN; CREATE ROLE by_trust LOGIN; CREATE ROLE by_peer LOGIN; CREATE ROLE by_wrong_peer LOGIN; GRANT orders_rw TO by_cert, by_trust, by_peer",
		"CREATE ROLE by_scram LOGIN PASSWORD '"+pgtest.Password+"'; CREATE ROLE by_clear LOGIN PASSWORD '"+
			pgtest.Password+"'; CREATE ROLE by_both LOGIN PASSWORD '"+pgtest.Password+"'",
		"SET password_encryption = md5; CREATE ROLE by_md5 LOGIN PASSWORD '"+pgtest.Password+"'")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		pg.EnableTLS(certificate.PEM, certificate.KeyPEM),
		pg.TrustClients(certificate.PEM),
		pg.SetIdent("us "+us.Username+" by_peer\n"),
		pg.SetHBA(`local all postgres trust
local all by_peer,by_wrong_peer peer map=us
local all by_scram scram-sha-256
local all by_clear password
hostssl all by_scram 127.0.0.1/32 scram-sha-256
hostnossl all by_scram 127.0.0.1/32 reject
host all by_md5 127.0.0.1/32 md5
host all by_clear 127.0.0.1/32 password
host all by_trust 127.0.0.1/32 trust
hostssl all by_cert 127.0.0.1/32 cert
hostssl all by_both 127.0.0.1/32 scram-sha-256 clientcert=verify-full
`)); err != nil {
		t.Fatal(err)
	}
	return methods{pg, certificate}
}

// as has the house log in as one role, by what auth says.
func as(auth armor.RoleAuth) option {
	return func(h *house, _ *pooler.Config) { h.database.Roles = []armor.RoleAuth{auth} }
}

// withCertificate gives nodes a client certificate for a role.
func withCertificate(t *testing.T, ca *pgtest.Certificate, role string) option {
	t.Helper()
	certificate, key, err := ca.Client(role, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return func(h *house, _ *pooler.Config) {
		h.secrets.certificate = func() (tls.Certificate, error) { return tls.X509KeyPair(certificate, key) }
	}
}

func withPassword(password string) option {
	return func(h *house, _ *pooler.Config) { h.secrets.passwords = []string{password} }
}

// TestLoginsByEveryMethod: what works, and what the client and the operator read when
// it does not.
func TestLoginsByEveryMethod(t *testing.T) {
	pg := withMethods(t)
	secret := func(role string) armor.RoleAuth { return armor.RoleAuth{Role: role, Secret: "orders"} }
	md5, both, cert := secret("by_md5"), secret("by_both"), armor.RoleAuth{Role: "by_cert", Certificate: "armor"}
	md5.MD5, both.Certificate = true, "armor"
	ours, stranger := withCertificate(t, pg.certificate, "by_cert"), withCertificate(t, newCertificate(t), "by_cert")
	wrong := withPassword("wrong")
	require, full, none := withServerTLS(armor.TLSRequire, pg.certificate),
		withServerTLS(armor.TLSVerifyFull, pg.certificate), withServerTLS(armor.TLSDisable, nil)
	over := func(host string) option { return on(pg.Postgres, host) }
	tcp, socket := over(pg.TCP()), over(pg.Socket())
	for _, c := range []struct {
		name    string
		auth    armor.RoleAuth
		options []option
		detail  string // that the client reads; "-": none
		status  string // that the operator reads; empty: the login works
	}{
		{"scram over TLS", secret("by_scram"), []option{tcp, full}, "", ""},
		{"scram without TLS", secret("by_scram"), []option{tcp, none}, "pg_hba.conf rejects connection", "pg_hba.conf rejects connection"},
		{"scram over the socket", secret("by_scram"), []option{socket, none}, "", ""},
		{"scram over the socket, where TLS is none", secret("by_scram"), []option{socket, full}, "", ""},
		{"scram, wrong password", secret("by_scram"), []option{tcp, full, wrong},
			"password authentication failed", "password authentication failed"},
		{"scram, and nothing to prove", armor.RoleAuth{Role: "by_scram"}, []option{tcp, full}, "-", "change the role's line in pg_hba.conf"},
		{"md5", md5, []option{tcp, full}, "", ""},
		{"md5 without TLS", md5, []option{tcp, none}, "", ""},
		{"md5, wrong password", md5, []option{tcp, full, wrong}, "password authentication failed", "password authentication failed"},
		{"md5, not allowed", secret("by_md5"), []option{tcp, full}, "-", "server requested md5 authentication"},
		{"clear to a verified server", secret("by_clear"), []option{tcp, full}, "", ""},
		{"clear, wrong password", secret("by_clear"), []option{tcp, full, wrong},
			"password authentication failed", "password authentication failed"},
		{"clear to an unverified server", secret("by_clear"), []option{tcp, require}, "-", "server requested password authentication"},
		{"clear over the socket", secret("by_clear"), []option{socket, full}, "-", "server requested password authentication"},
		{"trust", armor.RoleAuth{Role: "by_trust"}, []option{tcp, none}, "", ""},
		{"trust, where a password is to be proved", secret("by_trust"), []option{tcp, none}, "-", "change the role's line in pg_hba.conf"},
		{"trust, where a certificate is to be shown", armor.RoleAuth{Role: "by_trust", Certificate: "armor"},
			[]option{over(postgresWithoutCA(t)), require, ours}, "-", "certificate"},
		{"peer", armor.RoleAuth{Role: "by_peer"}, []option{socket, none}, "", ""},
		{"peer, somebody else", armor.RoleAuth{Role: "by_wrong_peer"},
			[]option{socket, none}, "Peer authentication failed", "Peer authentication failed"},
		{"certificate", cert, []option{tcp, full, ours}, "", ""},
		{"certificate to an unverified server", cert, []option{tcp, require, ours}, "", ""},
		{"certificate of a stranger", cert, []option{tcp, full, stranger}, "-", "login as by_cert: failed to connect"}, // an alert, or a reset
		{"certificate of another role", cert, []option{tcp, full, withCertificate(t, pg.certificate, "somebody")},
			"certificate authentication failed", "certificate authentication failed"},
		{"certificate, and none there", cert, []option{tcp, full}, "-", "role by_cert: certificate armor"},
		{"certificate that has to be shown and is not", armor.RoleAuth{Role: "by_cert"},
			[]option{tcp, full}, "connection requires a valid client certificate", "valid client certificate"},
		{"certificate and password", both, []option{tcp, full, withCertificate(t, pg.certificate, "by_both")}, "", ""},
		{"certificate and wrong password", both, []option{tcp, full, withCertificate(t, pg.certificate, "by_both"), wrong},
			"password authentication failed", "password authentication failed"},
		{"password without the certificate", secret("by_both"), []option{tcp, full},
			"connection requires a valid client certificate", "valid client certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, append(c.options, as(c.auth))...)
			client := h.dial()
			err := client.Login("user", c.auth.Role, "database", "orders")
			if c.status == "" {
				h.must(err)
				if got := h.query(client, "SELECT current_user"); got[0] != c.auth.Role {
					t.Errorf("PostgreSQL sees %q", got)
				}
				return
			}
			code := "08006"
			if strings.HasPrefix(c.status, "role ") {
				code = "57P03"
			}
			fields := h.wantRefusal(err, "FATAL", code)
			if c.detail != "-" && !strings.Contains(fields['D'], c.detail) {
				t.Errorf("the client reads %q", fields)
			}
			if s := h.status(); !strings.Contains(s.NotReady, c.status) || strings.Contains(s.NotReady, pgtest.Password) {
				t.Errorf("the operator reads %q", s.NotReady)
			}
		})
	}
}

// postgresWithoutCA is a server that trusts by_trust and asks nobody for a certificate.
func postgresWithoutCA(t *testing.T) string {
	t.Helper()
	pg, certificate := ownPostgres(t), newCertificate(t)
	if _, err := pg.SQL("postgres", "CREATE ROLE by_trust LOGIN"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pg.EnableTLS(certificate.PEM, certificate.KeyPEM),
		pg.SetHBA("local all postgres trust\nhost all all all trust\n")); err != nil {
		t.Fatal(err)
	}
	return pg.TCP()
}

// TestRenewedCertificateIsShownAtTheNextLogin, an expired one at none.
func TestRenewedCertificateIsShownAtTheNextLogin(t *testing.T) {
	pg := withMethods(t)
	h := newHouse(t, on(pg.Postgres, pg.TCP()), withServerTLS(armor.TLSVerifyFull, pg.certificate),
		as(armor.RoleAuth{Role: "by_cert", Certificate: "armor"}))
	h.secrets.certificate = func() (tls.Certificate, error) {
		return tls.Certificate{}, errors.New("the certificate in armor.crt expired at 2020-01-01T00:00:00Z: put a new one there")
	}
	h.wantRefusal(h.dial().Login("user", "by_cert", "database", "orders"), "FATAL", "57P03")
	if s := h.status(); !strings.Contains(s.NotReady, "expired at 2020") {
		t.Errorf("the operator reads %q", s.NotReady)
	}
	h.secrets.mu.Lock()
	withCertificate(t, pg.certificate, "by_cert")(h, nil)
	h.secrets.mu.Unlock()
	h.await("the new one is shown", func() bool { return h.dial().Login("user", "by_cert", "database", "orders") == nil })
}

// TestBothPasswordsOfARotationWork, whichever of them PostgreSQL has.
func TestBothPasswordsOfARotationWork(t *testing.T) {
	pg := ownPostgres(t)
	h := newHouse(t, on(pg, pg.TCP()))
	h.secrets.set("the new one", pgtest.Password)
	h.client()
	if _, err := pg.SQL("postgres", "ALTER ROLE "+pgtest.Role+" PASSWORD 'the new one'"); err != nil {
		t.Fatal(err)
	}
	_, err := h.Order(armor.PoolOrder{Verb: armor.ReconnectPool, Environment: "production", Pool: "orders"})
	h.must(err)
	before := strings.Count(pg.Log(), "password authentication failed")
	h.query(h.client(), "SELECT 1")
	if now := strings.Count(pg.Log(), "password authentication failed"); now != before {
		t.Error("the new one was not tried first")
	}
}

// TestLoginThatBreaksOffIsNotFollowedByAnotherConnection: pgconn would ask a server that
// has not even greeted it to cancel a query, over a connection in no place of the pool.
func TestLoginThatBreaksOffIsNotFollowedByAnotherConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var came atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_, _ = conn.Read(make([]byte, 1000)) // the startup packet
			conn.Close()
		}
	}()
	h := newHouse(t, withHost(l.Addr().String()), withQueryWait(200*time.Millisecond))
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	for range 30 {
		time.Sleep(10 * time.Millisecond)
		if n := came.Load(); n != 1 {
			t.Fatalf("%d connections", n)
		}
	}
	l.Close()
	<-done
}

// TestMiddlemanIsFoundOutByTheChannelBinding: tls.mode require verifies no certificate,
// and yet nobody can sit in between, since PostgreSQL knows the password.
func TestMiddlemanIsFoundOutByTheChannelBinding(t *testing.T) {
	pg := withMethods(t)
	h := newHouse(t, on(pg.Postgres, middleman(t, pg.TCP())),
		withServerTLS(armor.TLSRequire, nil), as(armor.RoleAuth{Role: "by_scram", Secret: "orders"}))
	fields := h.wantRefusal(h.dial().Login("user", "by_scram", "database", "orders"), "FATAL", "08006")
	if !strings.Contains(fields['D'], "channel binding check failed") {
		t.Errorf("%q", fields)
	}
}

// middleman ends the TLS of those that connect, under a certificate of its own, and
// goes on to PostgreSQL under TLS.
func middleman(t *testing.T, to string) (address string) {
	t.Helper()
	own := newCertificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relay(conn, to, own) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func relay(victim net.Conn, to string, own *pgtest.Certificate) {
	defer victim.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	request := make([]byte, 8)
	if _, err := io.ReadFull(victim, request); err != nil {
		return
	}
	if _, err := server.Write(request); err != nil {
		return
	}
	if _, err := io.ReadFull(server, request[:1]); err != nil {
		return
	}
	if _, err := victim.Write(request[:1]); err != nil {
		return
	}
	near := tls.Server(victim, &tls.Config{Certificates: []tls.Certificate{own.TLS}})
	far := tls.Client(server, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is the villain
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, near) // however it ends, so does the other
		server.Close()
	}()
	_, _ = io.Copy(near, far)
	victim.Close()
	<-done
}
