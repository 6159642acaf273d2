package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// patience is how long a client waits for any one answer: a stopped node gives none.
const patience = 2 * time.Second

// client is an app with a certificate.
type client struct {
	tls      *tls.Config
	password string // empty: it has none to prove
	protocol string // the only version that it speaks; empty: 3.0
}

// demo is the identity that `armord dev` issued.
func (c *cluster) demo() (client, error) {
	return loadClient(c.env["PGSSLCERT"], c.env["PGSSLKEY"], c.env["PGSSLROOTCERT"])
}

func loadClient(certFile, keyFile, rootFile string) (client, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return client{}, fmt.Errorf("load client certificate: %w", err)
	}
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		return client{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return client{}, fmt.Errorf("%s holds no certificate", rootFile)
	}
	return client{tls: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}}, nil
}

// connect opens a session on a node.
func (c client) connect(ctx context.Context, n *node) (*pgconn.PgConn, error) {
	return c.connectTo(ctx, n, appDatabase)
}

func (c client) connectTo(ctx context.Context, n *node, database string) (*pgconn.PgConn, error) {
	return c.connectAs(ctx, n, database, appRole)
}

func (c client) connectAs(ctx context.Context, n *node, database, role string) (*pgconn.PgConn, error) {
	config, err := c.config(n, database, role)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return pgconn.ConnectConfig(ctx, config)
}

func (c client) config(n *node, database, role string) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s database=%s sslmode=disable", n.port, role, database))
	if err != nil {
		return nil, err
	}
	config.TLSConfig, config.Password = c.tls, c.password
	config.MinProtocolVersion, config.MaxProtocolVersion = c.protocol, c.protocol
	config.Fallbacks = nil
	return config, nil
}

// ping opens a session, runs one query and closes it.
func (c client) ping(ctx context.Context, n *node) error {
	conn, err := c.connect(ctx, n)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	return exec1(ctx, conn, "SELECT 1")
}

// exec1 runs one statement within patience.
func exec1(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// closeConn says goodbye within patience, also when ctx has already ended.
func closeConn(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	conn.Close(ctx)
}

// verdict turns an error into what a history records of it.
func verdict(err error) (Outcome, string, string) {
	if err == nil {
		return OK, "", ""
	}
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) {
		return Fail, refusal.Code, refusal.Message
	}
	return Unknown, "", err.Error()
}

// issue makes a certificate for the demo identity with the operator's CLI.
func (c *cluster) issue(ctx context.Context, dir string) (client, error) {
	_, err := c.armorctl(ctx, "cert", "issue", "demo", "--environment", "dev", "--ca", filepath.Join(c.dir, "ca", "dev-client"), "--owner", "chaos", "--out", dir)
	if err != nil {
		return client{}, err
	}
	return loadClient(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), c.env["PGSSLROOTCERT"])
}
