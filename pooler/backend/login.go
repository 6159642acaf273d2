package backend

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
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
)

// FencedAfter is when PostgreSQL has noticed at the latest that we are gone.
const FencedAfter = 40 * time.Second

// address is where a server connection leads, for its cancel requests too.
type address struct{ network, address string }

// attempt is a login to one host.
type attempt struct {
	home   *Dialer
	target Target
	try
	auth armor.RoleAuth
}

func (a attempt) logIn(ctx context.Context) (c *Conn, failed *dialed, err error) {
	base, passwords, err := a.config()
	if err != nil {
		return nil, nil, notReady(err)
	}
	addresses, err := resolve(ctx, base.Host)
	if err != nil {
		return nil, nil, Unreachable(fmt.Errorf("resolve %s: %w", base.Host, err))
	}
	for _, host := range addresses {
		for _, password := range passwords {
			for _, options := range fences(host) {
				if failed.isOpen() && !a.home.endAttempt(failed) {
					return nil, failed, Unreachable(err)
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
	return nil, failed, Unreachable(err)
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

// once makes one connection and logs in.
func (a attempt) once(ctx context.Context, base *pgconn.Config, host, password, options string) (*Conn, *dialed, error) {
	cfg := base.Copy()
	cfg.Password = password
	if options != "" {
		cfg.RuntimeParams["options"] = options
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{host}, nil }
	one := oneDial{dial: a.home.cfg.Dial, note: a.note}
	cfg.DialFunc = one.open
	var below io.Reader
	cfg.BuildFrontend = exactly(cfg.BuildFrontend, &below)
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, one.made, err
	}
	c, err := a.adopt(pg, &one, below)
	if err != nil {
		return nil, one.made, err
	}
	return c, nil, nil
}

// oneDial keeps pgconn from connecting again by itself, as it does in the background for
// a cancel request when a login breaks off: that connection would be nobody's.
type oneDial struct {
	dial  Dial
	note  func(c net.Conn, to address) Entry // in the register
	asked atomic.Bool
	made  *dialed
	to    address
}

var errOneDial = errors.New("an attempt to log in makes one connection")

func (o *oneDial) open(ctx context.Context, network, addr string) (net.Conn, error) {
	if !o.asked.CompareAndSwap(false, true) {
		return nil, errOneDial
	}
	conn, err := o.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	o.to = address{network, addr}
	o.made = &dialed{Conn: conn, entry: o.note(conn, o.to)}
	return o.made, nil
}

// note writes a connection down before it logs in.
func (a attempt) note(c net.Conn, to address) Entry {
	e := Entry{
		Pool: a.target.Pool, Host: a.host, Network: to.network, Address: to.address,
		Database: a.target.Database.DBName, Role: a.target.Role,
	}
	if tcp, ok := c.LocalAddr().(*net.TCPAddr); ok {
		e.Port = tcp.Port
	}
	return a.home.cfg.Register.begin(e)
}

// adopt makes a connection that has logged in ours.
func (a attempt) adopt(pg *pgconn.PgConn, one *oneDial, below io.Reader) (*Conn, error) {
	hijacked, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	if len(hijacked.SecretKey) != 4 {
		return nil, fmt.Errorf("%w: cancel key of %d bytes from PostgreSQL", armor.ErrInvalid, len(hijacked.SecretKey))
	}
	rest, err := takeOver(hijacked.Conn, below)
	if err != nil {
		return nil, err
	}
	one.made.kept.Store(true)
	params := core.NewParams(hijacked.ParameterStatuses)
	standby, _ := params.Get("in_hot_standby")
	var own core.Secret
	_, _ = rand.Read(own[:]) // it never fails
	c := &Conn{
		home: a.home, log: a.target.Log, stream: hijacked.Conn, raw: one.made.Conn,
		pid: hijacked.PID, secret: binary.BigEndian.Uint32(hijacked.SecretKey), to: one.to, tls: hijacked.TLSConfig,
		standby: standby, connect: a.target.Connect, state: core.NewServer(params, own), rest: rest, entry: one.made.entry,
	}
	c.entry.PID, c.entry.Secret = c.pid, c.secret
	a.home.cfg.Register.loggedIn(c.entry)
	if c.stream == net.Conn(one.made) {
		c.stream = one.made.Conn
	}
	return c, nil
}

// config is what pgconn needs for the host, with all of it said explicitly: nothing
// may come from this process's environment.
func (a attempt) config() (*pgconn.Config, []string, error) {
	host, port, err := splitHost(a.host)
	if err != nil {
		return nil, nil, err
	}
	own, err := a.home.credentials(a.target.Database, a.auth, a.host)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := emptyConfig()
	if err != nil {
		return nil, nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User = host, port, a.target.Database.DBName, a.target.Role
	cfg.TLSConfig, cfg.RequireAuth = own.tls, own.methods
	if a.auth.Certificate != "" {
		cfg.SSLCertMode = "require" // else a server that asks for nothing would do
	}
	cfg.RuntimeParams = map[string]string{}
	maps.Copy(cfg.RuntimeParams, a.target.Parameters)
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
