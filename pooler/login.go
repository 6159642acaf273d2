package pooler

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"github.com/armordb/armordb/pooler/pgwire"
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
	secret armor.SecretName
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
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := a.home.cfg.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		made, to = &dialed{Conn: conn}, address{network, addr}
		return made, nil
	}
	ours := make(chan struct{})
	defer close(ours)
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &exact{Conn: conn, ours: ours}, nil
	}
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
	made.kept.Store(true)
	c := &ServerConn{
		raw: made.Conn, address: to, tls: hijacked.TLSConfig,
		state: core.NewServer(core.NewParams(hijacked.ParameterStatuses)),
		pid:   hijacked.PID, secret: binary.BigEndian.Uint32(hijacked.SecretKey),
	}
	if c.conn = hijacked.Conn.(*exact).Conn; c.conn == net.Conn(made) {
		c.conn = made.Conn
	}
	return c, nil, c.conn.SetDeadline(time.Time{})
}

// config is what pgconn needs for the host, with all of it said explicitly: nothing
// may come from this process's environment.
func (a attempt) config() (*pgconn.Config, []string, error) {
	host, port, err := splitHost(a.host)
	if err != nil {
		return nil, nil, err
	}
	tlsConfig, err := a.home.serverTLS(a.target.database, host)
	if err != nil {
		return nil, nil, err
	}
	passwords := []string{""}
	methods := "none"
	if a.secret != "" {
		if passwords, err = a.home.cfg.Secrets.Password(a.secret, a.host); err != nil {
			return nil, nil, fmt.Errorf("password %s for %s: %w", a.secret, a.host, err)
		}
		methods = "scram-sha-256"
		if verifies(a.target.database.TLSMode) {
			methods += ",password" // only to a server that has proved who it is
		}
	}
	cfg, err := emptyConfig()
	if err != nil {
		return nil, nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User = host, port, a.target.database.DBName, a.target.role
	cfg.TLSConfig, cfg.RequireAuth = tlsConfig, methods
	cfg.RuntimeParams = a.target.terms.startup()
	return cfg, passwords, nil
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

func verifies(mode armor.TLSMode) bool {
	return mode == armor.TLSVerifyCA || mode == armor.TLSVerifyFull
}

// serverTLS is the TLS towards PostgreSQL; nil for none.
func (p *Pooler) serverTLS(d armor.Database, host string) (*tls.Config, error) {
	if d.TLSMode == armor.TLSDisable {
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
	if verifies(d.TLSMode) {
		if _, err := p.cfg.Secrets.CA(d.CA); err != nil {
			return fmt.Sprintf("CA %s: %v", d.CA, err)
		}
	}
	if d.Verifiers != "" {
		if err := p.checkVerifiers(d.Verifiers); err != nil {
			return fmt.Sprintf("verifiers %s: %v", d.Verifiers, err)
		}
	}
	for _, role := range d.Roles {
		for _, host := range d.Hosts {
			if role.Secret == "" {
				continue
			}
			if _, err := p.cfg.Secrets.Password(role.Secret, host); err != nil {
				return fmt.Sprintf("secret %s for %s: %v", role.Secret, host, err)
			}
		}
	}
	return ""
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

// dialed is a connection that pgconn cannot close before it has logged in: its place
// in the pool is taken until PostgreSQL has closed it, which only reading tells.
type dialed struct {
	net.Conn
	kept atomic.Bool
}

// Close closes the connection once it is ours.
func (d *dialed) Close() error {
	if d.kept.Load() {
		return d.Conn.Close()
	}
	return nil
}

func (d *dialed) isOpen() bool { return d != nil }

// exact reads what belongs to one message and never more, and nothing at all behind
// ReadyForQuery, so that nothing is left behind in pgconn's buffers when we take the
// connection over: it may have a goroutine that reads ahead (after a slow write).
type exact struct {
	net.Conn
	ours <-chan struct{} // closed when pgconn has nothing to read any more
	head [pgwire.HeaderSize]byte
	have int // bytes of head that were read
	sent int // bytes of head that were passed on
	body int // bytes of the body still to come
}

// Read returns at most what is left of the present message.
func (e *exact) Read(p []byte) (int, error) {
	if e.sent == len(e.head) {
		if e.body > 0 {
			n, err := e.Conn.Read(p[:min(len(p), e.body)])
			e.body -= n
			return n, err
		}
		if e.head[0] == pgwire.ReadyForQuery {
			<-e.ours
			return 0, io.EOF
		}
		e.have, e.sent = 0, 0
	}
	if err := e.readHead(); err != nil {
		return 0, err
	}
	n := copy(p, e.head[e.sent:])
	e.sent += n
	return n, nil
}

func (e *exact) readHead() error {
	for e.have < len(e.head) {
		n, err := e.Conn.Read(e.head[e.have:])
		if e.have += n; e.have < len(e.head) && err != nil {
			return err
		}
	}
	h, err := pgwire.ServerHeader(e.head[:])
	if err == nil && e.sent == 0 {
		e.body = h.Body
	}
	return err
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
