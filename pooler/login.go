package pooler

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

// PostgreSQL is asked to find out by itself that we are gone: a share is given to
// another node on the strength of it. These go as startup options, since DISCARD ALL
// takes back what SET has set.
const (
	fenceTCP   = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4 -c tcp_user_timeout=20000"
	fenceQuery = "-c client_connection_check_interval=2000" // since PostgreSQL 14; not on every platform
	// fencedAfter is when PostgreSQL has noticed at the latest that we are gone.
	fencedAfter = 40 * time.Second
)

// target is what a login is for.
type target struct {
	database   armor.Database
	role       string
	terms      *terms
	generation int
	first      string // host to begin with; empty: the database's order
}

// address is where a server connection leads, for its cancel requests too.
type address struct{ network, address string }

// attempt is a login to one host.
type attempt struct {
	home   *Pooler
	target target
	try
	auth armor.RoleAuth
}

func (a attempt) logIn(ctx context.Context) (c *ServerConn, failed *dialed, err error) {
	base, passwords, err := a.config()
	if err != nil {
		return nil, nil, notReady(err)
	}
	addresses, err := resolve(ctx, base.Host)
	if err != nil {
		return nil, nil, loginError(fmt.Errorf("resolve %s: %w", base.Host, err))
	}
	for _, host := range addresses {
		for _, password := range passwords {
			for _, options := range fences(host) {
				if failed.isOpen() && !a.home.endAttempt(failed.Conn) {
					return nil, failed, loginError(err)
				}
				c, failed, err = a.once(ctx, base, host, password, options)
				if err == nil {
					return c, nil, nil
				}
				if !refusedSetting(err) {
					break
				}
			}
			if sqlState(err) != "28P01" {
				break
			}
		}
	}
	return nil, failed, loginError(err)
}

// fences are the startup options to try, the best first.
func fences(host string) []string {
	if path.IsAbs(host) {
		return []string{fenceQuery, ""}
	}
	return []string{fenceTCP + " " + fenceQuery, fenceTCP, ""}
}

// refusedSetting reports whether PostgreSQL does not have one of the options: it is
// too old, or its platform cannot do it.
func refusedSetting(err error) bool { s := sqlState(err); return s == "42704" || s == "22023" }

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// errOneDial keeps pgconn from connecting again by itself, as it does in the background
// for a cancel request when a login breaks off: that connection would be nobody's.
var errOneDial = errors.New("an attempt to log in makes one connection")

// once makes one connection and logs in.
func (a attempt) once(ctx context.Context, base *pgconn.Config, host, password, options string) (*ServerConn, *dialed, error) {
	cfg := base.Copy()
	cfg.Password = password
	if options != "" {
		cfg.RuntimeParams["options"] = options
	}
	var made *dialed
	to := address{}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{host}, nil }
	var asked atomic.Bool
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !asked.CompareAndSwap(false, true) {
			return nil, errOneDial
		}
		conn, err := a.home.cfg.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		made, to = &dialed{Conn: conn}, address{network, addr}
		return made, nil
	}
	var below io.Reader
	cfg.BuildFrontend = exactly(cfg.BuildFrontend, &below)
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, made, err
	}
	hijacked, err := pg.Hijack()
	if err != nil {
		return nil, made, err
	}
	if len(hijacked.SecretKey) != 4 {
		return nil, made, fmt.Errorf("%w: cancel key of %d bytes from PostgreSQL", armor.ErrInvalid, len(hijacked.SecretKey))
	}
	rest, err := takeOver(hijacked.Conn, below)
	if err != nil {
		return nil, made, err
	}
	made.kept.Store(true)
	c := &ServerConn{
		conn: hijacked.Conn, raw: made.Conn, rest: rest, address: to, tls: hijacked.TLSConfig,
		state: core.NewServer(core.NewParams(hijacked.ParameterStatuses)),
		pid:   hijacked.PID, secret: binary.BigEndian.Uint32(hijacked.SecretKey),
	}
	if c.conn == net.Conn(made) {
		c.conn = made.Conn
	}
	return c, nil, nil
}

// config is what pgconn needs for the host, with all of it said explicitly: nothing
// may come from this process's environment.
func (a attempt) config() (*pgconn.Config, []string, error) {
	host, port, err := splitHost(a.host)
	if err != nil {
		return nil, nil, err
	}
	own, err := a.home.credentials(a.target.database, a.auth, a.host)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := emptyConfig()
	if err != nil {
		return nil, nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User = host, port, a.target.database.DBName, a.target.role
	cfg.TLSConfig, cfg.RequireAuth = own.tls, own.methods
	if a.auth.Certificate != "" {
		cfg.SSLCertMode = "require" // else a server that asks for nothing would do
	}
	cfg.RuntimeParams = a.target.terms.startup()
	return cfg, own.passwords, nil
}

// emptyConfig returns a configuration that names no server yet.
func emptyConfig() (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig("host=/ user=nobody sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Fallbacks, cfg.Password, cfg.SSLNegotiation, cfg.SSLCertMode = nil, "", "", "disable"
	cfg.ConnectTimeout, cfg.ValidateConnect, cfg.KerberosSpn, cfg.KerberosSrvName = 0, nil, "", ""
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion, cfg.ChannelBinding = "3.0", "3.0", "prefer"
	return cfg, nil
}

// checkEnvironment finds out early whether pgconn trips over PG… variables.
func checkEnvironment() error {
	if _, err := emptyConfig(); err != nil {
		return fmt.Errorf("%w: the environment's PG… variables: %w", armor.ErrInvalid, err)
	}
	return nil
}

// splitHost takes host:port or /socket/directory:port apart.
func splitHost(s string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, fmt.Errorf("%w: host %q has no port", armor.ErrInvalid, s)
	}
	host, text := s[:i], s[i+1:]
	if !path.IsAbs(host) {
		if host, text, err = net.SplitHostPort(s); err != nil {
			return "", 0, fmt.Errorf("%w: host %q: %w", armor.ErrInvalid, s, err)
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%w: host %q", armor.ErrInvalid, s)
	}
	return host, uint16(n), nil
}

// resolve returns the addresses of a host; a socket directory is its own.
func resolve(ctx context.Context, host string) ([]string, error) {
	if path.IsAbs(host) {
		return []string{host}, nil
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

// failedLogin is why there is no server connection: what the client may read, and
// all of it for the log.
type failedLogin struct {
	*armor.Denial
	cause   error
	passing bool // waiting may help
}

func (f *failedLogin) Error() string { return f.cause.Error() }

// Unwrap leads to the denial and to the cause.
func (f *failedLogin) Unwrap() []error { return []error{f.Denial, f.cause} }

func notReady(cause error) error {
	return &failedLogin{cause: cause, Denial: &armor.Denial{
		Reason: armor.ReasonNotReady, Message: "the pool is not ready on this node", Detail: "The node lacks what it needs to log in to PostgreSQL.",
	}}
}

// loginError tells the client what PostgreSQL has said, and of other failures only
// that there was one: they name hosts.
func loginError(cause error) error {
	d := &armor.Denial{Reason: armor.ReasonServerLogin, Message: "PostgreSQL cannot be reached"}
	if e, ok := errors.AsType[*pgconn.PgError](cause); ok {
		d.Message = "PostgreSQL has refused a connection of the pool"
		d.Detail = fmt.Sprintf("PostgreSQL says: %s (SQLSTATE %s).", e.Message, e.Code)
	}
	return &failedLogin{Denial: d, cause: cause}
}
