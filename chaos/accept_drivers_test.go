package chaos

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/armordb/armordb/chaos/site"
)

var rewrite = flag.Bool("rewrite", false, "write the expected differences as they come out now; commit only what is documented")

// driver is a program in testdata/drivers that prints what it is answered.
type driver struct {
	name    string
	command []string // its last word is the file
	check   []string // succeeds if what it needs is there
	debian  string   // the packages that it needs
}

var drivers = []driver{
	{"psql", []string{"sh", "psql.sh"}, []string{"psql", "--version"}, "postgresql-client"},
	{"psycopg", []string{"/usr/bin/python3", "try_psycopg.py"}, []string{"/usr/bin/python3", "-c", "import psycopg"}, "python3-psycopg"},
	{"asyncpg", []string{"/usr/bin/python3", "try_asyncpg.py"}, []string{"/usr/bin/python3", "-c", "import asyncpg"}, "python3-asyncpg"},
	{"JDBC", []string{"java", "-cp", jdbcJar, "Try.java"}, []string{"sh", "-c", "javac -version && test -e " + jdbcJar},
		"openjdk-17-jdk-headless libpostgresql-jdbc-java"},
	{"node-postgres", []string{"node", "node_postgres.js"}, []string{"node", "-e", "require('pg'); require('pg-cursor')"},
		"nodejs node-pg (tools/node-pg.sh where nodejs is not Debian's)"},
}

const jdbcJar = "/usr/share/java/postgresql.jar"

// TestDriversCannotTellArmorFromPostgreSQL: in session mode each driver is answered the
// same; in transaction mode the differences are those that docs/pooling.md lists, and no
// others.
func TestDriversCannotTellArmorFromPostgreSQL(t *testing.T) {
	a := acceptance(t)
	all := map[string]func(*testing.T, seat) string{"pgx": pgxTranscript, "lib-pq": pqTranscript}
	for _, d := range drivers {
		all[d.name] = d.transcript
	}
	for name, transcript := range all {
		t.Run(name, func(t *testing.T) {
			documented, err := filepath.Abs(filepath.Join("testdata", "drivers", name+".transaction.diff"))
			if err != nil {
				t.Fatal(err)
			}
			direct := transcript(t, a.seatAtPostgres(t))
			if strings.Count(direct, "\n") < 20 {
				t.Fatalf("it did not get far:\n%s", direct)
			}
			if got := differing(t, direct, transcript(t, a.seat(t, "app_session"))); got != "" {
				t.Errorf("in session mode:\n%s", got)
			}
			expect(t, documented, differing(t, direct, transcript(t, a.seat(t, "app"))))
		})
	}
}

// expect compares with a file.
func expect(t *testing.T, file, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("in transaction mode the differences are\n%swhich %s says are\n%s", got, file, want)
	}
}

// seat is where a driver sits: the folder that it runs in, which has its certificate, and
// what its environment says.
type seat struct {
	dir                            string
	host, port, database, password string
}

// seat is one at the load balancer.
func (a *arena) seat(t *testing.T, database string) seat {
	t.Helper()
	dir := a.fresh(t)
	root, err := os.ReadFile(a.Env["PGSSLROOTCERT"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	return seat{dir: dir, host: "localhost", port: a.Env["PGPORT"], database: database}
}

func (a *arena) seatAtPostgres(t *testing.T) seat {
	t.Helper()
	return seat{dir: t.TempDir(), host: "127.0.0.1", port: strconv.Itoa(a.pg.Port), database: site.AppDatabase, password: site.AppPassword}
}

// environment is a program's, without anything of ours that a driver might heed.
func (s seat) environment() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C.UTF-8", "TZ=UTC", "PGHOST=" + s.host, "PGPORT=" + s.port,
		"PGDATABASE=" + s.database, "PGUSER=" + site.AppRole,
		"PGCONNECT_TIMEOUT=20", "NODE_PATH=/usr/share/nodejs:/usr/local/share/nodejs"}
	if s.password != "" {
		env = append(env, "PGPASSWORD="+s.password)
	}
	return env
}

// transcript runs the driver's script and returns what it printed.
func (d driver) transcript(t *testing.T, s seat) string {
	t.Helper()
	if out, err := s.run(t, d.check); err != nil {
		t.Fatalf("%s is not here: apt-get install --no-install-recommends %s (%v: %s)", d.name, d.debian, err, out)
	}
	last := len(d.command) - 1
	script, err := filepath.Abs(filepath.Join("testdata", "drivers", d.command[last]))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.run(t, append(d.command[:last:last], script))
	if err != nil {
		t.Fatalf("%s on %s: %v:\n%s", script, s.database, err, out)
	}
	return out
}

// run returns what a program has printed, on its standard output and then on the other.
func (s seat) run(t *testing.T, command []string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.environment()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	return out.String() + errOut.String(), err
}

// differing is what diff says of two transcripts; empty if they are the same.
func differing(t *testing.T, direct, through string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"direct": direct, "through": through} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "diff", "direct", "through")
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("diff: %v", err)
	}
	return string(out)
}

// TestDriversDocumentShowsWhatRuns: each block in docs/drivers.md that connects is what
// the driver's script runs between "docs: NAME" and "docs: end".
func TestDriversDocumentShowsWhatRuns(t *testing.T) {
	text, err := os.ReadFile("../docs/drivers.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/drivers/*")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, file := range append(files, "accept_drivers_go_test.go") {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, block, ok := printedBlock(string(script))
		if !ok {
			continue
		}
		shown++
		if want := "```" + fence[filepath.Ext(file)] + "\n" + block + "```\n"; !strings.Contains(string(text), want) {
			t.Errorf("docs/drivers.md does not show what %s does for %s:\n%s", file, name, want)
		}
	}
	if want := len(drivers) + 1; shown != want || strings.Count(string(text), "```")/2 != want {
		t.Errorf("%d scripts are to be shown, and %d blocks are, not %d", shown, strings.Count(string(text), "```")/2, want)
	}
}

var fence = map[string]string{".sh": "sh", ".py": "python", ".java": "java", ".js": "js", ".go": "go"}

// printedBlock returns what stands between the marks, without what all of its lines are
// indented by.
func printedBlock(script string) (name, block string, ok bool) {
	inside, indent := false, 0
	var b strings.Builder
	for line := range strings.Lines(script) {
		_, mark, marked := strings.Cut(line, " docs: ")
		switch mark = strings.TrimSpace(mark); {
		case marked && inside && mark == "end":
			return name, b.String(), true
		case marked && !inside && mark != "":
			name, inside, indent = mark, true, len(line)-len(strings.TrimLeft(line, " \t"))
		case inside:
			fmt.Fprintln(&b, strings.TrimRight(line[min(indent, len(line)-1):], "\n"))
		}
	}
	return "", "", false
}
