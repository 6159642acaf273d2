package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// prepare starts PostgreSQL and every system in front of it, all with the same
// certificates and the same cipher. Without PostgreSQL or Armor there is nothing to
// measure; any other that does not start is a gap.
func (b *comparison) prepare(ctx context.Context) error {
	at, err := b.setUp(ctx)
	if err != nil {
		return err
	}
	for _, reference := range []struct {
		name  string
		start func(context.Context, setting) error
	}{
		{PgBouncer, b.pgbouncers}, {Direct, b.direct}, {PlainRelay, b.relays}, {OdysseyPooler, b.odyssey},
	} {
		if err := reference.start(ctx, at); err != nil {
			b.gap(Gap{System: reference.name, Err: err})
		}
	}
	return ctx.Err()
}

// setUp starts PostgreSQL, with a table to ask, and a node of Armor in front of it.
func (b *comparison) setUp(ctx context.Context) (setting, error) {
	bin, err := site.PostgresBin()
	if err != nil {
		return setting{}, err
	}
	b.pgbench = filepath.Join(bin, "pgbench")
	pg, err := site.StartPostgres(ctx, filepath.Join(b.Dir, "postgres"))
	if err != nil {
		return setting{}, err
	}
	b.ends = append(b.ends, pg.Stop)
	socket := fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", site.AppRole, site.AppPassword, site.AppDatabase, pg.Dir,
		pg.Port)
	c, dev, err := site.StartDev(ctx, site.Plan{Bin: b.Bin, Dir: b.Dir, Postgres: socket, Nodes: 1, Config: benchConfig + identities()})
	if err != nil {
		return setting{}, err
	}
	b.ends = append(b.ends, func() error { return dev.Stop(os.Interrupt, 40*time.Second) })
	fill := exec.CommandContext(ctx, b.pgbench, "-i", "-q", "-s", "10", "-h", pg.Dir, "-p", strconv.Itoa(pg.Port), "-U", site.AppRole,
		site.AppDatabase)
	if out, err := fill.CombinedOutput(); err != nil {
		return setting{}, fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	env, err := b.environment(c)
	if err != nil {
		return setting{}, err
	}
	if err := b.issueAll(ctx, c); err != nil {
		return setting{}, err
	}
	pid, err := c.Nodes[0].PID()
	if err != nil {
		return setting{}, err
	}
	port := fmt.Sprintf("PGPORT=%d", c.Nodes[0].Port)
	b.systems = append(b.systems, system{name: Armor, env: append(slices.Clone(env), port), pid: func() int { return pid }})
	return setting{cluster: c, postgres: pg, env: env}, nil
}

// environment is every client's, but for the port. All use the cipher that Go's servers
// prefer, by a configuration for OpenSSL.
func (b *comparison) environment(c *site.Cluster) ([]string, error) {
	cipher := filepath.Join(b.Dir, "openssl.cnf")
	text := "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\n"
	if err := os.WriteFile(cipher, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return []string{
		"OPENSSL_CONF=" + cipher, "PGSSLMODE=verify-full", "PGHOST=localhost", "PGUSER=" + site.AppRole, "PGDATABASE=" + site.AppDatabase,
		"PGSSLCERT=" + c.Env["PGSSLCERT"], "PGSSLKEY=" + c.Env["PGSSLKEY"], "PGSSLROOTCERT=" + c.Env["PGSSLROOTCERT"],
	}, nil
}

// The names of systems in samples.
const (
	Armor        = "armor"
	PgBouncer    = "pgbouncer"
	PgBouncer64k = "pgbouncer-64k" // with pkt_buf=65536; for COPY
	// PgBouncerReset resets each server connection after each transaction
	// (server_reset_query_always): what it takes to keep identities of one role apart.
	PgBouncerReset = "pgbouncer-reset"
	Direct         = "postgresql" // no pooler: TLS in PostgreSQL itself
	OdysseyPooler  = "odyssey"
	PlainRelay     = "relay"    // bytes, and nothing else: the least that a proxy costs
	GoRelay        = "relay-go" // the same in Go, beside the one in C
)

// setting is what all systems share.
type setting struct {
	cluster  *site.Cluster
	postgres *site.Postgres
	env      []string // of every client, but for PGPORT
}

// benchConfig gives armor as many server connections as PgBouncer gets.
const benchConfig = `apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: dev}
spec: {database: app, mode: transaction, budget: 8}
`

const benchPool = 8

// direct has PostgreSQL itself ask for the same certificates.
func (b *comparison) direct(ctx context.Context, at setting) error {
	dir, _, err := b.neighbour(at, Direct)
	if err != nil {
		return err
	}
	hba := filepath.Join(at.postgres.Dir, "data", "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		return err
	}
	rules = append([]byte("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\nhostssl all all ::1/128 trust clientcert=verify-ca\n"),
		rules...)
	if err := os.WriteFile(hba, rules, 0o600); err != nil { // its owner stays
		return err
	}
	conn, err := at.postgres.Admin(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		fmt.Sprintf("ALTER SYSTEM SET ssl_cert_file = '%s/server.crt'", dir), fmt.Sprintf("ALTER SYSTEM SET ssl_key_file = '%s/server.key'", dir),
		fmt.Sprintf("ALTER SYSTEM SET ssl_ca_file = '%s/client-ca.crt'", dir), "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("have PostgreSQL speak TLS: %w", err)
		}
	}
	few := func(c Cell) bool { return c.idle == 0 && !c.several } // each would be a backend
	b.systems = append(b.systems, system{name: Direct, env: append(slices.Clone(at.env), fmt.Sprintf("PGPORT=%d", at.postgres.Port)),
		fits: few})
	return nil
}
