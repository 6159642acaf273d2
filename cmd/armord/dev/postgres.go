package dev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// server is the PostgreSQL behind `armord dev`, as its URL says and as it was found.
type server struct {
	host     string // host:port, or socket directory:port
	database string
	role     string
	password string // empty when the server wants none
	tls      armor.TLSMode
	caFile   string // CA for verify-ca and verify-full
	version  string
}

// probePatience bounds the first connection to PostgreSQL.
const probePatience = 10 * time.Second

// findServer connects to the URL once, so that a wrong one is told before anything
// is started, and learns whether a password and TLS are wanted.
func findServer(ctx context.Context, raw string) (server, error) {
	parsed, err := pgconn.ParseConfig(raw)
	if err != nil {
		return server{}, &config.Mistake{Err: fmt.Errorf("--postgres: %w", err)}
	}
	s := server{host: net.JoinHostPort(parsed.Host, strconv.Itoa(int(parsed.Port))), database: parsed.Database, role: parsed.User,
		password: parsed.Password}
	if strings.HasPrefix(parsed.Host, "/") {
		s.host = parsed.Host + ":" + strconv.Itoa(int(parsed.Port))
	}
	if s.database == "" {
		s.database = s.role
	}
	if err := s.checkURL(raw, parsed); err != nil {
		return server{}, &config.Mistake{Err: fmt.Errorf("--postgres: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if err := s.probe(ctx, parsed); err != nil {
		return server{}, fmt.Errorf("PostgreSQL at %s as role %q: %w", s.host, s.role, err)
	}
	return s, nil
}

// checkURL refuses what a node could not do the same way.
func (s *server) checkURL(raw string, parsed *pgconn.Config) error {
	if err := armor.CheckName("database", s.database); err != nil {
		return err
	}
	for _, f := range parsed.Fallbacks {
		if f.Host != parsed.Host || f.Port != parsed.Port {
			return fmt.Errorf("%w: more than one host: give the primary alone", armor.ErrInvalid)
		}
	}
	options := options(raw)
	if options.Get("sslcert") != "" || os.Getenv("PGSSLCERT") != "" {
		return fmt.Errorf("%w: a client certificate towards PostgreSQL (sslcert) is not supported in this version", armor.ErrInvalid)
	}
	s.tls = armor.TLSMode(cmp.Or(options.Get("sslmode"), cmp.Or(os.Getenv("PGSSLMODE"), "prefer")))
	s.caFile = cmp.Or(options.Get("sslrootcert"), os.Getenv("PGSSLROOTCERT"))
	if (s.tls == armor.TLSVerifyCA || s.tls == armor.TLSVerifyFull) && s.caFile == "" {
		return fmt.Errorf("%w: sslmode=%s also needs sslrootcert", armor.ErrInvalid, s.tls)
	}
	return nil
}

// options are the parameters of a URL; the key=value form has none that we look at.
func options(raw string) url.Values {
	u, err := url.Parse(raw)
	if err != nil {
		return url.Values{}
	}
	return u.Query()
}

// probe logs in without the password first: a server that trusts us would never ask
// a node for it either.
func (s *server) probe(ctx context.Context, parsed *pgconn.Config) error {
	bare := parsed.Copy()
	bare.Password = ""
	conn, err := pgconn.ConnectConfig(ctx, bare)
	if err == nil {
		s.password = ""
		return s.learn(ctx, conn)
	}
	if s.password == "" {
		return explainConnect(err)
	}
	if conn, err = pgconn.ConnectConfig(ctx, parsed); err != nil {
		return explainConnect(err)
	}
	return s.learn(ctx, conn)
}

// learn settles what sslmode left open by how the connection came to be.
func (s *server) learn(ctx context.Context, conn *pgconn.PgConn) error {
	s.version = conn.ParameterStatus("server_version")
	if s.tls == "prefer" || s.tls == "allow" {
		s.tls = armor.TLSDisable
		if isTLS(conn.Conn()) {
			s.tls = armor.TLSRequire
		}
	}
	return conn.Close(ctx)
}

func isTLS(c net.Conn) bool {
	_, ok := c.(interface{ VerifyHostname(string) error })
	return ok
}

// explainConnect turns the usual failures into what to do about them.
func explainConnect(err error) error {
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) {
		switch refusal.Code {
		case "28P01", "28000":
			return fmt.Errorf("%w: %s (is the password in the URL right?)", armor.ErrDenied, refusal.Message)
		case "3D000":
			return fmt.Errorf("%w: %s", armor.ErrNotFound, refusal.Message)
		}
		return fmt.Errorf("%s (SQLSTATE %s)", refusal.Message, refusal.Code)
	}
	if network := (*net.OpError)(nil); errors.As(err, &network) {
		return fmt.Errorf("%w: %w (is PostgreSQL running there?)", armor.ErrUnavailable, network)
	}
	return err
}

// String names the server as the folder's mark does.
func (s server) String() string { return s.role + "@" + s.host + "/" + s.database }
