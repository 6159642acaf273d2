package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The database and the roles of a test server. SuperUser may connect over the socket
// without a password; everyone else proves one by SCRAM.
const (
	Database  = "orders"
	Role      = "orders_rw"
	OtherRole = "orders_ro"
	Password  = "correct horse"
	SuperUser = "postgres"
)

// binFolders are where PostgreSQL's server binaries are looked for, after the folder
// in ARMOR_TEST_POSTGRES.
var binFolders = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin"}

// Postgres is a running server of our own.
type Postgres struct {
	Dir     string // its socket directory, too
	Port    int    // of TCP on 127.0.0.1, and of the socket
	bin     string
	options []string
	run     *exec.Cmd
	log     *os.File
	exited  chan struct{}
	guarded *exec.Cmd
}

// Start makes a cluster in a new temporary directory and starts it. options are
// further settings, as name=value.
func Start(options ...string) (*Postgres, error) {
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "armor-pg-")
	if err != nil {
		return nil, err
	}
	pg := &Postgres{Dir: dir, bin: bin, options: options}
	if err := pg.make(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return pg, nil
}

func findBin() (string, error) {
	folders := binFolders
	if own := os.Getenv("ARMOR_TEST_POSTGRES"); own != "" {
		folders = []string{own}
	}
	for _, pattern := range folders {
		found, _ := filepath.Glob(filepath.Join(pattern, "initdb"))
		if slices.Sort(found); len(found) > 0 {
			return filepath.Dir(found[len(found)-1]), nil
		}
	}
	return "", fmt.Errorf("no PostgreSQL in %v: install it (Debian: apt-get install postgresql) "+
		"or say where its binaries are by ARMOR_TEST_POSTGRES", folders)
}

func (pg *Postgres) make() error {
	if err := pg.own(pg.Dir); err != nil {
		return err
	}
	initdb := pg.command("initdb", "-D", pg.data(), "-U", SuperUser, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	hba := "local all,replication " + SuperUser + " trust\n" +
		"local all,replication all scram-sha-256\nhost all,replication all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(pg.data(), "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	pg.Port = port
	if err := pg.Restart(); err != nil {
		return err
	}
	_, err = pg.SQL("postgres", fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'; CREATE ROLE %s LOGIN PASSWORD '%s';`,
		Role, Password, OtherRole, Password),
		"CREATE DATABASE "+Database+" OWNER "+Role)
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// own gives a path to the account that the server runs as: it refuses root.
func (pg *Postgres) own(path string) error {
	credential, err := account()
	if err != nil || credential == nil {
		return err
	}
	return os.Chown(path, int(credential.Uid), int(credential.Gid))
}

// account is who runs the server: postgres when we are root, else ourselves.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("we are root, which PostgreSQL refuses to run as: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func (pg *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(pg.bin, name), args...)
	cmd.Dir = pg.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if credential, err := account(); err == nil {
		cmd.SysProcAttr.Credential = credential
	}
	return cmd
}

// Program is the path of one of the programs that came with the server.
func (pg *Postgres) Program(name string) string { return filepath.Join(pg.bin, name) }

func (pg *Postgres) data() string { return filepath.Join(pg.Dir, "data") }

// Socket is the server's Unix socket as a Database names it.
func (pg *Postgres) Socket() string { return pg.Dir + ":" + strconv.Itoa(pg.Port) }

// TCP is the server's address as a Database names it.
func (pg *Postgres) TCP() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(pg.Port)) }

// SocketFile is the path of the socket.
func (pg *Postgres) SocketFile() string {
	return filepath.Join(pg.Dir, ".s.PGSQL."+strconv.Itoa(pg.Port))
}

// Restart starts the server after it was stopped, or for the first time, and returns
// when it takes connections. After a crash the old one's last processes may take a
// moment to die.
func (pg *Postgres) Restart() error {
	for attempt := 0; ; attempt++ {
		err := pg.start()
		if err == nil || attempt == 100 || !strings.HasSuffix(strings.TrimSpace(pg.Log()), `associated with data directory "`+pg.data()+`".`) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (pg *Postgres) start() error {
	log, err := os.OpenFile(filepath.Join(pg.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	args := []string{"-D", pg.data(), "-k", pg.Dir, "-p", strconv.Itoa(pg.Port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
		"-c", "log_connections=on", "-c", "log_disconnections=on", "-c", "log_line_prefix=%m [%p] %q%u@%d "}
	for _, o := range pg.options {
		args = append(args, "-c", o)
	}
	pg.log, pg.run, pg.exited = log, pg.command("postgres", args...), make(chan struct{})
	pg.run.Stdout, pg.run.Stderr = log, log
	if err := pg.run.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if err := pg.guard(); err != nil {
		return err
	}
	go func(run *exec.Cmd, exited chan struct{}) {
		_ = run.Wait() // how it ended is in its log
		close(exited)
	}(pg.run, pg.exited)
	return pg.awaitReady()
}

// guard has a shell end the server, and remove its files, should this process die
// without having done so: its standard input ends then.
func (pg *Postgres) guard() error {
	pg.guarded = exec.Command("/bin/sh", "-c",
		`cat >/dev/null; kill -QUIT "$0"; sleep 1; rm -rf "$1"`, strconv.Itoa(pg.run.Process.Pid), pg.Dir)
	pg.guarded.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := pg.guarded.StdinPipe(); err != nil {
		return err
	}
	return pg.guarded.Start()
}

func (pg *Postgres) awaitReady() error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if pg.command("pg_isready", "-q", "-h", pg.Dir, "-p", strconv.Itoa(pg.Port)).Run() == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-pg.exited:
			return fmt.Errorf("postgres has ended: %s", pg.Log())
		}
	}
}

// Log returns what the server has logged so far.
func (pg *Postgres) Log() string {
	text, err := os.ReadFile(filepath.Join(pg.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// SQL runs statements as the superuser and returns the rows of all, unaligned and
// without headers.
func (pg *Postgres) SQL(database string, statements ...string) (string, error) {
	args := []string{"-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1",
		"-h", pg.Dir, "-p", strconv.Itoa(pg.Port), "-U", SuperUser, "-d", database}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	var stdout, stderr bytes.Buffer
	psql := pg.command("psql", args...)
	psql.Stdout, psql.Stderr = &stdout, &stderr
	if err := psql.Run(); err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// Kill ends the server at once, as a crash would: with all of its children, and
// without a word to any client.
func (pg *Postgres) Kill() { pg.end(syscall.SIGQUIT) }

// Halt ends the server in its fast mode: clients are told.
func (pg *Postgres) Halt() { pg.end(syscall.SIGINT) }

func (pg *Postgres) end(signal syscall.Signal) {
	if pg.run == nil {
		return
	}
	_ = syscall.Kill(-pg.guarded.Process.Pid, syscall.SIGKILL) // it has nothing to guard any more
	_ = pg.guarded.Wait()                                      // and was killed
	_ = pg.run.Process.Signal(signal)                          // if it has ended already, so much the better
	<-pg.exited
	pg.log.Close()
	pg.run = nil
}

// Stop ends the server and removes its files.
func (pg *Postgres) Stop() error {
	pg.end(syscall.SIGQUIT)
	return os.RemoveAll(pg.Dir)
}

// Crash ends the server and all of its processes without a word to anybody. The
// backends' sockets are closed by the kernel.
func (pg *Postgres) Crash() error {
	if err := syscall.Kill(-pg.run.Process.Pid, syscall.SIGSTOP); err != nil { // so that the first to die has no witnesses
		return err
	}
	children, err := pg.children()
	if err != nil {
		return err
	}
	for _, pid := range append(children, pg.run.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	pg.end(syscall.SIGKILL)
	return nil
}

// children are the processes that the server has forked: each has a process group of
// its own.
func (pg *Postgres) children() ([]int, error) {
	out, err := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(pg.run.Process.Pid)).Output()
	if err != nil {
		return nil, fmt.Errorf("list the children of postgres: %w", err)
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// EnableTLS gives the server a certificate and restarts it.
func (pg *Postgres) EnableTLS(certificate, key []byte) error {
	if err := errors.Join(pg.put("server.crt", certificate), pg.put("server.key", key)); err != nil {
		return err
	}
	pg.Halt()
	pg.options = append(pg.options, "ssl=on")
	return pg.Restart()
}

// TrustClients has the server take client certificates of a CA, and restarts it.
func (pg *Postgres) TrustClients(ca []byte) error {
	if err := pg.put("root.crt", ca); err != nil {
		return err
	}
	pg.Halt()
	pg.options = append(pg.options, "ssl_ca_file=root.crt")
	return pg.Restart()
}

// SetHBA replaces pg_hba.conf and restarts the server.
func (pg *Postgres) SetHBA(text string) error {
	if err := pg.put("pg_hba.conf", []byte(text)); err != nil {
		return err
	}
	pg.Halt()
	return pg.Restart()
}

// SetIdent replaces pg_ident.conf; the server reads it when it starts.
func (pg *Postgres) SetIdent(text string) error { return pg.put("pg_ident.conf", []byte(text)) }

// put writes a file among the server's.
func (pg *Postgres) put(name string, text []byte) error {
	path := filepath.Join(pg.data(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return pg.own(path)
}
