package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prepare starts PostgreSQL and every system in front of it, all with the same
// certificates and the same cipher.
func (b *bench) prepare(ctx context.Context) error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	b.pgbench = filepath.Join(bin, "pgbench")
	pgDir := filepath.Join(b.Dir, "postgres")
	if err := os.MkdirAll(pgDir, 0o755); err != nil {
		return err
	}
	pg, err := startPostgres(ctx, pgDir)
	if err != nil {
		return err
	}
	b.ends = append(b.ends, pg.stop)
	socket := fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", appRole, appPassword, appDatabase, pg.dir, pg.port)
	c, dev, err := startDev(ctx, b.Bin, b.Dir, socket, 1, benchConfig)
	if err != nil {
		return err
	}
	b.ends = append(b.ends, func() error { return stopProcess(dev, os.Interrupt, 40*time.Second) })
	fill := exec.CommandContext(ctx, b.pgbench, "-i", "-q", "-s", "10", "-h", pg.dir, "-p", strconv.Itoa(pg.port), "-U", appRole, appDatabase)
	if out, err := fill.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	cipher, err := b.forceCipher()
	if err != nil {
		return err
	}
	env := []string{"OPENSSL_CONF=" + cipher, "PGSSLMODE=verify-full", "PGHOST=localhost", "PGUSER=" + appRole, "PGDATABASE=" + appDatabase,
		"PGSSLCERT=" + c.env["PGSSLCERT"], "PGSSLKEY=" + c.env["PGSSLKEY"], "PGSSLROOTCERT=" + c.env["PGSSLROOTCERT"]}
	node := c.nodes[0]
	pid, err := readPID(filepath.Join(node.dir, "armord.pid"))
	if err != nil {
		return err
	}
	b.systems = append(b.systems, system{name: "armor", env: append(env, at(node)), pid: func() int { return pid }})
	return b.pgbouncer(ctx, c, pg, env)
}

// benchConfig gives armor as many server connections as PgBouncer gets.
const benchConfig = `apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: dev}
spec: {database: app, mode: transaction, budget: 8}
`

const benchPool = 8

// at is libpq's variable for one node's own port.
func at(n *node) string { return fmt.Sprintf("PGPORT=%d", n.port) }

func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// forceCipher writes a configuration for OpenSSL, so that all clients use the cipher
// that Go's servers prefer.
func (b *bench) forceCipher() (string, error) {
	path := filepath.Join(b.Dir, "openssl.cnf")
	return path, os.WriteFile(path, []byte("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\n"), 0o644)
}

// pgbouncer starts PgBouncer beside us: the same server certificate, the same CA for
// clients, transaction mode, the same number of server connections over the same
// socket.
func (b *bench) pgbouncer(ctx context.Context, c *cluster, pg *postgres, env []string) error {
	program := b.PgBouncer
	if program == "" {
		var err error
		if program, err = exec.LookPath("pgbouncer"); err != nil {
			return errors.New("pgbouncer is not in PATH (Debian: apt-get install pgbouncer)")
		}
	}
	dir := filepath.Join(b.Dir, "pgbouncer")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	credential, err := unprivileged(dir)
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	for name, from := range map[string]string{
		"server.crt": filepath.Join(c.nodes[0].dir, "server.crt"), "server.key": filepath.Join(c.nodes[0].dir, "server.key"),
		"client-ca.crt": filepath.Join(c.dir, "ca", "dev-client", "ca.crt"),
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
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
`, appDatabase, pg.dir, pg.port, appRole, appPassword, port, benchPool, dir)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(config), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.Dir, "pgbouncer.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, "-q", ini)
	cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = credential, log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start pgbouncer: %w", err)
	}
	b.ends = append(b.ends, func() error { return stopProcess(cmd, syscall.SIGINT, 10*time.Second) })
	old, err := isOld(ctx, program)
	if err != nil {
		return err
	}
	pid := cmd.Process.Pid
	b.systems = append(b.systems, system{
		name: "pgbouncer", env: append(env, fmt.Sprintf("PGPORT=%d", port)), pid: func() int { return pid },
		skips: func(protocol string) bool { return protocol == "prepared" && old },
	})
	return b.awaitPort(ctx, port)
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
func (b *bench) awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := poll(ctx, func() (struct{}, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, conn.Close()
	})
	return err
}
