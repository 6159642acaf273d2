package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/armordb/armordb/armor/process"
)

// The throw-away server's one application role and database. The superuser is
// "postgres" and comes over the Unix socket; the pool's role comes over TCP with a
// password.
const (
	appRole     = "app"
	appDatabase = "app"
	appPassword = "chaos"
)

// postgres is a throw-away PostgreSQL whose log tells when each backend lived.
type postgres struct {
	dir        string
	port       int
	args       []string // of the server, its program first
	credential *syscall.SysProcAttr
	process    *process.Process
}

// startPostgres makes a cluster in dir with initdb and starts it. PostgreSQL refuses
// to run as root, so root hands it to the user "postgres". options are further settings,
// as name=value.
func startPostgres(ctx context.Context, dir string, options ...string) (*postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	credential, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, port: port}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "-N")
	initdb.SysProcAttr = credential
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	p.args = []string{filepath.Join(bin, "postgres"), "-D", data,
		"-c", "port=" + strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + dir,
		"-c", "log_connections=on", "-c", "log_disconnections=on", "-c", "log_line_prefix=%m [%p] ", "-c", "log_timezone=UTC",
		"-c", "fsync=off", "-c", "max_connections=100"}
	for _, o := range options {
		p.args = append(p.args, "-c", o)
	}
	p.credential = credential
	if err := p.start(); err != nil {
		return nil, err
	}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// start runs the server, whose data are there. Its output is appended to its log.
func (p *postgres) start() error {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.SysProcAttr = p.credential
	var err error
	if p.process, err = process.Start(cmd, p.logPath()); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return nil
}

func (p *postgres) logPath() string { return filepath.Join(p.dir, "postgres.log") }

// url is what armord is given.
func (p *postgres) url() string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", appRole, appPassword, p.port, appDatabase)
}

// admin connects as superuser, past armord.
func (p *postgres) admin(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres database=%s sslmode=disable", p.dir, p.port, database))
}

// prepare waits until the server answers, then makes role, database and ledger.
func (p *postgres) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := poll(ctx, func() (*pgx.Conn, error) { return p.admin(ctx, "postgres") })
	if err != nil {
		return fmt.Errorf("wait for postgres: %w", err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", appRole, appPassword),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", appDatabase, appRole),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare postgres: %w", err)
		}
	}
	ledger, err := p.admin(ctx, appDatabase)
	if err != nil {
		return fmt.Errorf("prepare ledger: %w", err)
	}
	defer ledger.Close(ctx)
	_, err = ledger.Exec(ctx, "CREATE TABLE ledger (key text NOT NULL); ALTER TABLE ledger OWNER TO "+appRole)
	return err
}

// stop ends the server, at once if it does not end by itself.
func (p *postgres) stop() error { return p.process.Stop(syscall.SIGINT, 10*time.Second) }

func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("PostgreSQL's initdb is neither in PATH nor under /usr/lib/postgresql (Debian: apt-get install postgresql)")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// unprivileged makes dir belong to the user "postgres" when we are root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("postgres refuses to run as root, and there is no user to hand it to: %w", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// poll tries again every 50 ms until try succeeds or ctx ends; then it returns the
// last failure.
func poll[T any](ctx context.Context, try func() (T, error)) (T, error) {
	for {
		v, err := try()
		if err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
