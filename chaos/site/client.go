package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Patience is how long a client waits for any one answer: a stopped node gives none.
const Patience = 2 * time.Second

// Client is an app with a certificate.
type Client struct {
	TLS      *tls.Config
	Password string // empty: it has none to prove
	Protocol string // the only version that it speaks; empty: 3.0
}

// Demo is the identity that `armord dev` issued.
func (c *Cluster) Demo() (Client, error) {
	return LoadClient(c.Env["PGSSLCERT"], c.Env["PGSSLKEY"], c.Env["PGSSLROOTCERT"])
}

// LoadClient reads an app's certificate, its key, and the CA that it knows nodes by.
func LoadClient(certFile, keyFile, rootFile string) (Client, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return Client{}, fmt.Errorf("load client certificate: %w", err)
	}
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		return Client{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return Client{}, fmt.Errorf("%s holds no certificate", rootFile)
	}
	return Client{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}}, nil
}

// Connect opens a session on a node.
func (c Client) Connect(ctx context.Context, n *Node) (*pgconn.PgConn, error) {
	return c.ConnectTo(ctx, n, AppDatabase)
}

// ConnectTo opens a session on a node, to a database of the caller's choice.
func (c Client) ConnectTo(ctx context.Context, n *Node, database string) (*pgconn.PgConn, error) {
	return c.ConnectAs(ctx, n, database, AppRole)
}

// ConnectAs opens a session on a node, with a role of the caller's choice too.
func (c Client) ConnectAs(ctx context.Context, n *Node, database, role string) (*pgconn.PgConn, error) {
	config, err := c.Config(n, database, role)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return pgconn.ConnectConfig(ctx, config)
}

// Config is what ConnectAs connects with, for drivers that want it themselves.
func (c Client) Config(n *Node, database, role string) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s database=%s sslmode=disable", n.Port, role, database))
	if err != nil {
		return nil, err
	}
	config.TLSConfig, config.Password = c.TLS, c.Password
	config.MinProtocolVersion, config.MaxProtocolVersion = c.Protocol, c.Protocol
	config.Fallbacks = nil
	return config, nil
}

// Ping opens a session, runs one query and closes it.
func (c Client) Ping(ctx context.Context, n *Node) error {
	conn, err := c.Connect(ctx, n)
	if err != nil {
		return err
	}
	defer CloseConn(ctx, conn)
	return Exec(ctx, conn, "SELECT 1")
}

// Exec runs one statement within patience.
func Exec(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// CloseConn says goodbye within patience, also when ctx has already ended.
func CloseConn(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Patience)
	defer cancel()
	conn.Close(ctx)
}

// Issue makes a certificate for the demo identity with the operator's CLI.
func (c *Cluster) Issue(ctx context.Context, dir string) (Client, error) {
	return c.IssueTo(ctx, "demo", dir)
}

// IssueTo makes a certificate for an identity of the environment dev.
func (c *Cluster) IssueTo(ctx context.Context, identity, dir string) (Client, error) {
	_, err := c.Armorctl(ctx, "cert", "issue", identity, "--environment", "dev", "--ca", filepath.Join(c.Dir, "ca", "dev-client"), "--owner",
		"chaos", "--out", dir)
	if err != nil {
		return Client{}, err
	}
	return LoadClient(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), c.Env["PGSSLROOTCERT"])
}
