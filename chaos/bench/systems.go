package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor/process"
	"github.com/armordb/armordb/chaos/site"
)

// prepare starts PostgreSQL and every system in front of it, all with the same
// certificates and the same cipher.
func (b *comparison) prepare(ctx context.Context) error {
	bin, err := site.PostgresBin()
	if err != nil {
		return err
	}
	b.pgbench = filepath.Join(bin, "pgbench")
	pg, err := site.StartPostgres(ctx, filepath.Join(b.Dir, "postgres"))
	if err != nil {
		return err
	}
	b.ends = append(b.ends, pg.Stop)
	socket := fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", site.AppRole, site.AppPassword, site.AppDatabase, pg.Dir, pg.Port)
	c, dev, err := site.StartDev(ctx, site.Plan{Bin: b.Bin, Dir: b.Dir, Postgres: socket, Nodes: 1, Config: benchConfig})
	if err != nil {
		return err
	}
	b.ends = append(b.ends, func() error { return dev.Stop(os.Interrupt, 40*time.Second) })
	fill := exec.CommandContext(ctx, b.pgbench, "-i", "-q", "-s", "10", "-h", pg.Dir, "-p", strconv.Itoa(pg.Port), "-U", site.AppRole, site.AppDatabase)
	if out, err := fill.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	cipher, err := b.forceCipher()
	if err != nil {
		return err
	}
	env := []string{"OPENSSL_CONF=" + cipher, "PGSSLMODE=verify-full", "PGHOST=localhost", "PGUSER=" + site.AppRole, "PGDATABASE=" + site.AppDatabase,
		"PGSSLCERT=" + c.Env["PGSSLCERT"], "PGSSLKEY=" + c.Env["PGSSLKEY"], "PGSSLROOTCERT=" + c.Env["PGSSLROOTCERT"]}
	node := c.Nodes[0]
	pid, err := node.PID()
	if err != nil {
		return err
	}
	b.systems = append(b.systems, system{name: Armor, env: append(env, at(node)), pid: func() int { return pid }})
	at := setting{cluster: c, postgres: pg, env: env}
	if err := b.pgbouncers(ctx, at); err != nil {
		return err
	}
	if err := b.direct(ctx, at); err != nil {
		return err
	}
	if runtime.GOOS == "linux" {
		if err := b.relay(at); err != nil {
			return err
		}
	}
	if b.Odyssey == "" {
		return nil
	}
	return b.odyssey(ctx, at)
}

// The names of systems in samples.
const (
	Armor         = "armor"
	PgBouncer     = "pgbouncer"
	PgBouncer64k  = "pgbouncer-64k" // with pkt_buf=65536; for COPY
	Direct        = "postgresql"    // no pooler: TLS in PostgreSQL itself
	OdysseyPooler = "odyssey"
	PlainRelay    = "relay" // bytes, and nothing else: the least that a proxy costs
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

// at is libpq's variable for one node's own port.
func at(n *site.Node) string { return fmt.Sprintf("PGPORT=%d", n.Port) }

// forceCipher writes a configuration for OpenSSL, so that all clients use the cipher
// that Go's servers prefer.
func (b *comparison) forceCipher() (string, error) {
	path := filepath.Join(b.Dir, "openssl.cnf")
	return path, os.WriteFile(path, []byte("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\n"), 0o644)
}

// pgbouncers starts PgBouncer beside us, once as it comes and once with large buffers.
func (b *comparison) pgbouncers(ctx context.Context, at setting) error {
	program := b.PgBouncer
	if program == "" {
		var err error
		if program, err = exec.LookPath("pgbouncer"); err != nil {
			return errors.New("pgbouncer is not in PATH (Debian: apt-get install pgbouncer)")
		}
	}
	old, err := isOld(ctx, program)
	if err != nil {
		return err
	}
	plain := func(c Cell) bool { return !c.prepared() || !old }
	bulk := func(c Cell) bool { return c.pgbench == nil }
	return errors.Join(
		b.pgbouncer(ctx, at, program, system{name: PgBouncer, fits: plain}, ""),
		b.pgbouncer(ctx, at, program, system{name: PgBouncer64k, fits: bulk}, "pkt_buf = 65536\n"))
}

// pgbouncer starts one: the same server certificate, the same CA for clients,
// transaction mode, the same number of server connections over the same socket.
func (b *comparison) pgbouncer(ctx context.Context, at setting, program string, s system, further string) error {
	dir, port, err := b.neighbour(at, s.name)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]d dbname=%[1]s user=%[4]s password=%[5]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[6]d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %[7]d
max_client_conn = 10000
client_tls_sslmode = verify-full
client_tls_ca_file = %[8]s/client-ca.crt
client_tls_cert_file = %[8]s/server.crt
client_tls_key_file = %[8]s/server.key
ignore_startup_parameters = extra_float_digits
`, site.AppDatabase, at.postgres.Dir, at.postgres.Port, site.AppRole, site.AppPassword, port, benchPool, dir) + further
	return b.beside(ctx, at, s, dir, port, config, program, "-q")
}

// odyssey starts Odyssey in the same way.
func (b *comparison) odyssey(ctx context.Context, at setting) error {
	dir, port, err := b.neighbour(at, OdysseyPooler)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`daemonize no
workers 1
log_to_stdout yes
log_format "%%p %%t %%l [%%i %%s] (%%c) %%m\n"
log_session no
unix_socket_dir "%[2]s"
unix_socket_mode "0644"
listen {
  host "127.0.0.1"
  port %[6]d
  tls "verify_full"
  tls_ca_file "%[8]s/client-ca.crt"
  tls_cert_file "%[8]s/server.crt"
  tls_key_file "%[8]s/server.key"
}
storage "postgres" {
  type "remote"
  port %[3]d
}
database "%[1]s" {
  user "%[4]s" {
    authentication "none"
    storage "postgres"
    storage_user "%[4]s"
    storage_password "%[5]s"
    pool "transaction"
    pool_size %[7]d
    pool_reserve_prepared_statement yes
  }
}
`, site.AppDatabase, at.postgres.Dir, at.postgres.Port, site.AppRole, site.AppPassword, port, benchPool, dir)
	return b.beside(ctx, at, system{name: OdysseyPooler}, dir, port, config, b.Odyssey)
}

// neighbour makes a folder with the certificates of our node, for a pooler that runs as
// PostgreSQL's user, and finds it a port.
func (b *comparison) neighbour(at setting, name string) (dir string, port int, err error) {
	dir = filepath.Join(b.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", 0, err
	}
	node := at.cluster.Nodes[0].Dir
	for name, from := range map[string]string{
		"server.crt": filepath.Join(node, "server.crt"), "server.key": filepath.Join(node, "server.key"),
		"client-ca.crt": filepath.Join(at.cluster.Dir, "ca", "dev-client", "ca.crt"),
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			return "", 0, err
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return "", 0, err
		}
		if _, err := site.Unprivileged(path); err != nil {
			return "", 0, err
		}
	}
	port, err = site.FreePort()
	return dir, port, err
}

// beside starts a pooler with its configuration, in a session of its own: the kernel
// shares processors out by sessions.
func (b *comparison) beside(ctx context.Context, at setting, s system, dir string, port int, config, program string, args ...string) error {
	credential, err := site.Unprivileged(dir)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "configuration")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	log := filepath.Join(b.Dir, s.name+".log")
	cmd := exec.Command(program, append(args, file)...)
	if credential == nil {
		credential = &syscall.SysProcAttr{}
	}
	credential.Setsid = true
	cmd.SysProcAttr = credential
	p, err := process.Start(cmd, log)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	b.ends = append(b.ends, func() error { return p.Stop(syscall.SIGINT, 10*time.Second) })
	s.env, s.pid = append(slices.Clone(at.env), fmt.Sprintf("PGPORT=%d", port)), p.PID
	b.systems = append(b.systems, s)
	if err := b.awaitPort(ctx, port); err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("wait for %s: %w: %s", s.name, err, said)
	}
	return nil
}

// relay starts the floor: no TLS, no pool.
func (b *comparison) relay(at setting) error {
	cmd := exec.Command(filepath.Join(b.Bin, "armor-chaos"), "relay", filepath.Join(at.postgres.Dir, fmt.Sprintf(".s.PGSQL.%d", at.postgres.Port)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p, err := process.Start(cmd, "")
	if err != nil {
		return fmt.Errorf("start the relay: %w", err)
	}
	b.ends = append(b.ends, func() error { return p.Stop(syscall.SIGINT, 10*time.Second) })
	var port int
	if _, err := fmt.Fscan(said, &port); err != nil {
		return fmt.Errorf("ask the relay for its port: %w", err)
	}
	few := func(c Cell) bool { return c.idle == 0 } // each would be a backend
	b.systems = append(b.systems, system{
		name: PlainRelay, env: append(slices.Clone(at.env), "PGSSLMODE=disable", fmt.Sprintf("PGPORT=%d", port)),
		pid: p.PID, fits: few,
	})
	return nil
}

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
	rules = append([]byte("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\nhostssl all all ::1/128 trust clientcert=verify-ca\n"), rules...)
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
	few := func(c Cell) bool { return c.idle == 0 } // each would be a backend
	b.systems = append(b.systems, system{name: Direct, env: append(slices.Clone(at.env), fmt.Sprintf("PGPORT=%d", at.postgres.Port)), fits: few})
	return nil
}

// isOld reports whether this PgBouncer has no prepared statements in transaction mode
// (before 1.21).
func isOld(ctx context.Context, program string) (bool, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return false, fmt.Errorf("ask pgbouncer for its version: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		return false, fmt.Errorf("version of pgbouncer %q: %w", out, err)
	}
	return major == 1 && minor < 21, nil
}

// awaitPort waits until somebody listens.
func (b *comparison) awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := site.Poll(ctx, func() (struct{}, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, conn.Close()
	})
	return err
}
