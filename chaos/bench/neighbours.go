package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor/process"
	"github.com/armordb/armordb/chaos/site"
)

// pgbouncers starts PgBouncer beside us: as it comes, with large buffers, and with a reset
// after each transaction.
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
	shared := func(c Cell) bool { return c.several }
	return errors.Join(
		b.pgbouncer(ctx, at, program, system{name: PgBouncer, fits: plain}, ""),
		b.pgbouncer(ctx, at, program, system{name: PgBouncerReset, fits: shared}, "server_reset_query_always = 1\n"),
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

// odyssey starts Odyssey in the same way, if it is asked for.
func (b *comparison) odyssey(ctx context.Context, at setting) error {
	if b.Odyssey == "" {
		return nil
	}
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
	if err := b.awaitPort(ctx, port); err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("wait for %s: %w: %s", s.name, err, said)
	}
	b.systems = append(b.systems, s)
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
