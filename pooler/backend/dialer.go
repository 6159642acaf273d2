package backend

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

// Dial opens a connection to PostgreSQL.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// DefaultDialer makes the kernel notice within half a minute that PostgreSQL's machine
// is gone.
var DefaultDialer = &net.Dialer{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
}

// Secrets resolves what logins need of the replicated configuration's names. It refuses
// to give a password for a host that the secret is not bound to. Calls may read files.
type Secrets interface {
	// Password returns the passwords that may be valid now, the preferred one first.
	Password(name armor.SecretName, host string) ([]string, error)
	// Certificate returns a client certificate that is valid now, and its key.
	Certificate(name armor.SecretName) (tls.Certificate, error)
	// CA returns the certificates that may vouch for a server.
	CA(name armor.SecretName) (*x509.CertPool, error)
}

// Config is what a Dialer needs: all of it but the Register.
type Config struct {
	Dial         Dial
	Secrets      Secrets
	LoginTimeout time.Duration // one login, dialling included
	ResetTimeout time.Duration // DISCARD ALL between two clients
	EndTimeout   time.Duration // one attempt to end a connection
	VanishedFor  time.Duration // how long a connection that broke without an end counts as open: see FencedAfter
	Register     *Register     // nil: nothing is written down
}

// Dialer opens connections to PostgreSQL. It may be used from any goroutine.
type Dialer struct{ cfg Config }

// New starts nothing. It finds out early whether logins would trip over PG… variables of
// the environment.
func New(cfg Config) (*Dialer, error) {
	if _, err := emptyConfig(); err != nil {
		return nil, fmt.Errorf("%w: the environment's PG… variables: %w", armor.ErrInvalid, err)
	}
	return &Dialer{cfg}, nil
}

// Target is what a login is for.
type Target struct {
	Pool       string // the pool's key, for the register
	Database   armor.Database
	Role       string
	Parameters map[string]string // of the startup packet, beside database and role
	First      string            // the host to begin with; empty: the database's order
	Connect    Connect
	Log        *slog.Logger // says whose the connection will be
}

// Open logs in to the first host that lets it and is what it must be. The error wraps
// a *LoginError. What a failed login leaves behind, if anything, is the caller's to end.
func (d *Dialer) Open(ctx context.Context, t Target) (*Conn, *Leftover, error) {
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
		if last.isOpen() && !d.endAttempt(last) {
			break // its place is still taken
		}
		a := attempt{home: d, target: t, try: try, auth: auth}
		c, failed, err := a.within(ctx, perHost(d.cfg.LoginTimeout, len(t.Database.Hosts)))
		if err == nil {
			return c, nil, nil
		}
		last, causes = failed, append(causes, err)
	}
	return nil, d.leftover(last), noHost(t.Database, causes)
}

// Missing says which name of the configuration this node does not have, so that some
// login to the database must fail; nil if it has all.
func (d *Dialer) Missing(db armor.Database) error {
	for _, role := range db.Roles {
		for _, host := range db.Hosts {
			if _, err := d.credentials(db, role, host); err != nil {
				return fmt.Errorf("role %s: %w", role.Role, err)
			}
		}
	}
	return nil
}
