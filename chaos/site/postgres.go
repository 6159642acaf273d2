package site

import (
	"context"
	"errors"
	"fmt"
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
	AppRole     = "app"
	AppDatabase = "app"
	AppPassword = "chaos"
)

// Postgres is a throw-away PostgreSQL whose log tells when each backend lived.
type Postgres struct {
	Dir        string
	Port       int
	args       []string // of the server, its program first
	credential *syscall.SysProcAttr
	process    *process.Process
}

// StartPostgres makes dir and in it a cluster with initdb, and starts it. PostgreSQL refuses
// to run as root, so root hands it to the user "postgres". options are further settings,
// as name=value.
func StartPostgres(ctx context.Context, dir string, options ...string) (*Postgres, error) {
	bin, err := PostgresBin()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	credential, err := Unprivileged(dir)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p := &Postgres{Dir: dir, Port: port}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "--auth-local=trust",
		"--auth-host=scram-sha-256", "-N")
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
	if err := p.Start(); err != nil {
		return nil, err
	}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Start runs the server, whose data are there. Its output is appended to its log.
func (p *Postgres) Start() error {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.SysProcAttr = p.credential
	var err error
	if p.process, err = process.Start(cmd, p.LogPath()); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return nil
}

// LogPath is the file of PostgreSQL's own log.
func (p *Postgres) LogPath() string { return filepath.Join(p.Dir, "postgres.log") }

// URL is what armord is given.
func (p *Postgres) URL() string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", AppRole, AppPassword, p.Port, AppDatabase)
}

// Admin connects as superuser, past armord.
func (p *Postgres) Admin(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres database=%s sslmode=disable", p.Dir, p.Port, database))
}

// prepare waits until the server answers, then makes role and database.
func (p *Postgres) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := Poll(ctx, func() (*pgx.Conn, error) { return p.Admin(ctx, "postgres") })
	if err != nil {
		return fmt.Errorf("wait for postgres: %w", err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", AppRole, AppPassword),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", AppDatabase, AppRole),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare postgres: %w", err)
		}
	}
	return nil
}

// Stop ends the server.
func (p *Postgres) Stop() error { return p.End(syscall.SIGINT) }

// End asks the server to end in one of PostgreSQL's three ways (pg_ctl(1)), and kills it
// when it has not within 20 s.
func (p *Postgres) End(how os.Signal) error { return p.process.Stop(how, 20*time.Second) }

// PostgresBin finds the folder of PostgreSQL's programs: of the initdb in PATH, or of the
// newest that Debian has installed.
func PostgresBin() (string, error) {
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

// Unprivileged makes dir belong to the user "postgres" when we are root.
func Unprivileged(dir string) (*syscall.SysProcAttr, error) {
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
