package pooler

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
)

// dial opens a connection to PostgreSQL.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// defaultDialer makes the kernel notice within half a minute that PostgreSQL's machine
// is gone.
var defaultDialer = &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}

// secretsOfServers resolves the names of the replicated configuration on this node. It
// refuses to give a password for a host that the secret is not bound to. Calls may
// read files.
type secretsOfServers interface {
	// Password returns the passwords that may be valid now, the preferred one first.
	Password(name armor.SecretName, host string) ([]string, error)
	// Certificate returns a client certificate that is valid now, and its key.
	Certificate(name armor.SecretName) (tls.Certificate, error)
	// CA returns the certificates that may vouch for a server.
	CA(name armor.SecretName) (*x509.CertPool, error)
}

// dialerConfig is what a dialer needs: all of it.
type dialerConfig struct {
	Dial         dial
	Secrets      secretsOfServers
	LoginTimeout time.Duration // one login, dialling included
	ResetTimeout time.Duration // DISCARD ALL between two clients
	EndTimeout   time.Duration // one attempt to end a connection
	VanishedFor  time.Duration // how long a connection that broke without an end may still have a backend; see FencedAfter
}

// dialer opens connections to PostgreSQL.
type dialer struct{ dialerConfig }

// newDialer finds out early whether logins would trip over PG… variables of the
// environment.
func newDialer(cfg dialerConfig) (*dialer, error) {
	if _, err := emptyConfig(); err != nil {
		return nil, fmt.Errorf("%w: the environment's PG… variables: %w", armor.ErrInvalid, err)
	}
	return &dialer{cfg}, nil
}

// target is what a login is for.
type target struct {
	Database   armor.Database
	Role       string
	Parameters map[string]string // of the startup packet, beside database and role
	First      string            // host to begin with; empty: the database's order
	Log        *slog.Logger      // says whose the connection will be
}

// Open logs in to the first host that lets it and is what it must be. When it fails,
// what it leaves behind, if anything, is still to be ended.
func (d *dialer) Open(ctx context.Context, t target) (*wire, *leftover, error) {
	auth, ok := t.Database.Auth(t.Role)
	if !ok {
		return nil, nil, notReady(fmt.Errorf("%w: no credential for role %s", armor.ErrNotFound, t.Role))
	}
	if len(t.Database.Hosts) == 0 {
		return nil, nil, notReady(fmt.Errorf("%w: database %s has no hosts", armor.ErrInvalid, t.Database.Name))
	}
	var causes []error
	var last *dialed
	for _, try := range tries(t.Database, t.First) {
		if last.isOpen() && !d.endAttempt(last.Conn) {
			break // its place is still taken
		}
		a := attempt{home: d, target: t, try: try, auth: auth}
		c, failed, err := a.within(ctx, perHost(d.LoginTimeout, len(t.Database.Hosts)))
		if err == nil {
			return c, nil, nil
		}
		last, causes = failed, append(causes, err)
	}
	return nil, d.leftover(last), noHost(t.Database, causes)
}
