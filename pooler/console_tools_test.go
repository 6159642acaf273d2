package pooler_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"

	"github.com/armordb/armordb/pooler/pgtest"
)

// The columns of PgBouncer 1.26, and one of our own (pinned), and their types: t text, i int4, q int8, n numeric.
var pgbouncerColumns = map[string]string{
	"POOLS": "t database,t user,i cl_active,i cl_waiting,i cl_active_cancel_req,i cl_waiting_cancel_req,i sv_active,i sv_active_cancel," +
		"i sv_being_canceled,i sv_idle,i sv_used,i sv_tested,i sv_login,i maxwait,i maxwait_us,t pool_mode,t load_balance_hosts",
	"DATABASES": "t name,t host,i port,t database,t force_user,i pool_size,i min_pool_size,i reserve_pool_size,i server_lifetime,t pool_mode," +
		"t load_balance_hosts,i max_connections,i current_connections,i max_client_connections,i current_client_connections,i paused,i disabled",
	"CLIENTS": sockets, "SERVERS": sockets, "SOCKETS": sockets + socketsDebug, "ACTIVE_SOCKETS": sockets + socketsDebug,
	"STATS": "t database,n total_server_assignment_count,n total_xact_count,n total_query_count,n total_received,n total_sent,n total_xact_time," +
		"n total_query_time,n total_wait_time,n total_client_parse_count,n total_server_parse_count,n total_bind_count," +
		"n total_client_login_count," +
		"n avg_server_assignment_count,n avg_xact_count,n avg_query_count,n avg_recv,n avg_sent,n avg_xact_time,n avg_query_time,n avg_wait_time," +
		"n avg_client_parse_count,n avg_server_parse_count,n avg_bind_count,n avg_client_login_count",
	"STATS_TOTALS": statsPart, "STATS_AVERAGES": statsPart,
	"TOTALS": "t name,n value",
	"LISTS":  "t list,i items",
	"CONFIG": "t key,t value,t default,t changeable",
	"USERS": "t name,t pool_size,t reserve_pool_size,t pool_mode,i max_user_connections,i current_connections,i max_user_client_connections," +
		"i current_client_connections",
	"MEM": "t name,i size,i used,i free,i memtotal", "STATE": "t key,t value", "VERSION": "t version",
	"DNS_HOSTS": "t hostname,q ttl,t addrs", "DNS_ZONES": "t zonename,q serial,i count",
	"PEERS":      "i peer_id,t host,i port,i pool_size",
	"PEER_POOLS": "i peer_id,i cl_active_cancel_req,i cl_waiting_cancel_req,i sv_active_cancel,i sv_login",
}

const (
	sockets = "t type,t user,t database,t replication,t state,t addr,i port,t local_addr,i local_port,t connect_time,t request_time,i wait,i wait_us," +
		"i close_needed,t ptr,t link,i remote_pid,t tls,t application_name,i prepared_statements,i id,t pinned"
	socketsDebug = ",i recv_pos,i pkt_pos,i pkt_remain,i send_pos,i send_remain,i pkt_avail,i send_avail"
	statsPart    = "t database,n server_assignment_count,n xact_count,n query_count,n bytes_received,n bytes_sent,n xact_time,n query_time,n wait_time," +
		"n client_parse_count,n server_parse_count,n bind_count,n client_login_count"
)

// shape writes an answer's columns as above.
func (r result) shape() string {
	letters := map[uint32]string{25: "t", 23: "i", 20: "q", 1700: "n"}
	var all []string
	for i, name := range r.columns {
		all = append(all, letters[r.types[i]]+" "+name)
	}
	return strings.Join(all, ",")
}

func TestColumnsAreThoseOfPgBouncer(t *testing.T) {
	h := newHouse(t)
	h.query(h.client(), "SELECT 1")
	c := h.console("stats")
	for name, want := range pgbouncerColumns {
		if got := h.show(c, "SHOW "+name).shape(); got != want {
			t.Errorf("SHOW %s has the columns\n%s, want\n%s", name, got, want)
		}
	}
}

// renamed are columns that a later PgBouncer calls otherwise.
var renamed = map[string]string{"reserve_pool": "reserve_pool_size"}

// TestInstalledPgBouncerHasNoColumnThatWeLack compares with an older PgBouncer: what it
// shows has the same type and the same order here.
func TestInstalledPgBouncerHasNoColumnThatWeLack(t *testing.T) {
	h := newHouse(t)
	ours, theirs := h.console("admin"), startPgBouncer(t, h.server)
	for _, name := range []string{"POOLS", "DATABASES", "CLIENTS", "SERVERS",
		"SOCKETS", "ACTIVE_SOCKETS", "STATS", "STATS_TOTALS", "STATS_AVERAGES",
		"TOTALS", "LISTS", "CONFIG", "USERS", "MEM", "VERSION", "DNS_HOSTS", "DNS_ZONES"} {
		reference, err := ask(theirs, "SHOW "+name)
		h.must(err)
		have := strings.Split(h.show(ours, "SHOW "+name).shape(), ",")
		at := 0
		for _, column := range strings.Split(reference.shape(), ",") {
			letter, old, _ := strings.Cut(column, " ")
			if now := renamed[old]; now != "" && name == "DATABASES" {
				old = now
			}
			i := slices.Index(have[at:], letter+" "+old)
			if i < 0 {
				t.Errorf("SHOW %s: column %q is not here, or in another place; here are %v", name, column, have)
				continue
			}
			at += i + 1
		}
	}
	for _, name := range []string{"LISTS", "TOTALS"} {
		reference, err := ask(theirs, "SHOW "+name)
		h.must(err)
		mine := h.show(ours, "SHOW "+name)
		for _, row := range reference.rows {
			mine.cell(t, mine.columns[1], row[0])
		}
	}
}

// TestErrorsHavePgBouncersWords: the same mistakes at both.
func TestErrorsHavePgBouncersWords(t *testing.T) {
	h := newHouse(t)
	ours, theirs := h.console("admin"), startPgBouncer(t, h.server)
	for _, command := range []string{"foo", "SELECT 1", "SHOW nonsense", "SHOW POOLS x",
		"PAUSE a b", "PAUSE nosuch", "RESUME", "RESUME orders", "RESUME nosuch",
		"DISABLE", "DISABLE nosuch", "ENABLE nosuch", "RECONNECT nosuch",
		"KILL nosuch", "WAIT_CLOSE nosuch", "PAUSE pgbouncer", "RECONNECT pgbouncer",
		"KILL pgbouncer", "SHUTDOWN foo", "SET a = 1", "BEGIN", "RELOAD now", "SUSPEND now"} {
		_, want := ask(theirs, command)
		_, got := ask(ours, command)
		theirRefusal, ok1 := errors.AsType[*pgtest.Refusal](want)
		ourRefusal, ok2 := errors.AsType[*pgtest.Refusal](got)
		if !ok1 || !ok2 {
			t.Errorf("%s: PgBouncer says %v, we %v", command, want, got)
			continue
		}
		if theirRefusal.Fields['M'] != ourRefusal.Fields['M'] {
			t.Errorf("%s: PgBouncer says %q, we %q", command, theirRefusal.Fields['M'], ourRefusal.Fields['M'])
		}
	}
}

// need finds a program that Debian has in a package.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + program); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not here: apt-get install --no-install-recommends %s", program, debian)
	return ""
}

// startPgBouncer runs the installed PgBouncer until the test ends, and returns an
// admin's connection to it.
func startPgBouncer(t *testing.T, pg *pgtest.Postgres) *pgtest.Client {
	t.Helper()
	program := need(t, "pgbouncer", "pgbouncer")
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\norders = host=127.0.0.1 port=%d dbname=orders\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
		"unix_socket_dir =\nauth_type = any\nadmin_users = admin\nstats_users = stats\n", pg.Port, port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil { // it runs as somebody else
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, config)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = nobody(t)
	}
	runUntilEnd(t, cmd)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conn := dialUntilUp(t, address)
	c := &pgtest.Client{Conn: conn}
	if err := c.Login("user", "admin", "database", "pgbouncer"); err != nil {
		t.Fatal(err)
	}
	return c
}

// nobody is an account other than root, which PgBouncer refuses to run as.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// runUntilEnd starts a process that ends with the test.
func runUntilEnd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // and was killed
		if t.Failed() {
			t.Logf("%s said: %s", cmd.Path, out.Bytes())
		}
	})
}

func dialUntilUp(t *testing.T, address string) net.Conn {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func (h *house) hostPort() (host, port string) {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	return host, port
}

// TestPgxReadsTheConsole: its default is the extended protocol with binary results.
func TestPgxReadsTheConsole(t *testing.T) {
	h := newHouse(t)
	h.query(h.client(), "SELECT 1")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	host, port := h.hostPort()
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		conn, err := pgx.Connect(ctx,
			fmt.Sprintf("host=%s port=%s user=admin dbname=pgbouncer sslmode=disable default_query_exec_mode=%s", host, port, mode))
		h.must(err)
		h.must(conn.Ping(ctx))
		for name, columns := range pgbouncerColumns {
			rows, err := conn.Query(ctx, "SHOW "+name)
			h.must(err)
			n := 0
			for ; rows.Next(); n++ {
				if values, err := rows.Values(); err != nil || len(values) != strings.Count(columns, ",")+1 {
					t.Errorf("%s: SHOW %s: %v, %v", mode, name, values, err)
				}
			}
			if err := rows.Err(); err != nil {
				t.Errorf("%s: SHOW %s: %v", mode, name, err)
			}
			if name == "POOLS" && n != 2 {
				t.Errorf("%s: SHOW POOLS has %d rows", mode, n)
			}
		}
		var name string
		var value int64
		h.must(conn.QueryRow(ctx, "SHOW TOTALS").Scan(&name, &value))
		if name != "total_server_assignment_count" || value < 1 {
			t.Errorf("%s: %s is %d", mode, name, value)
		}
		if _, err := conn.Exec(ctx, "PAUSE nosuch"); err == nil || !strings.Contains(err.Error(), "no such database: nosuch") {
			t.Errorf("%s: PAUSE nosuch: %v", mode, err)
		}
		if tag, err := conn.Exec(ctx, "RELOAD"); err != nil || tag.String() != "RELOAD" {
			t.Errorf("%s: RELOAD: %v, %v", mode, tag, err)
		}
		h.must(conn.Close(ctx))
	}
}

func TestLibPQReadsTheConsole(t *testing.T) {
	h := newHouse(t)
	host, port := h.hostPort()
	db, err := sql.Open("postgres",
		fmt.Sprintf("host=%s port=%s user=stats dbname=pgbouncer sslmode=disable extra_float_digits=2", host, port))
	h.must(err)
	defer db.Close()
	h.must(db.Ping())
	for name, columns := range pgbouncerColumns {
		rows, err := db.Query("SHOW " + name + ";")
		h.must(err)
		got, err := rows.Columns()
		h.must(err)
		if len(got) != strings.Count(columns, ",")+1 {
			t.Errorf("SHOW %s has columns %v", name, got)
		}
		for rows.Next() {
		}
		h.must(errors.Join(rows.Err(), rows.Close()))
	}
	st, err := db.Prepare("SHOW LISTS") // by name
	h.must(err)
	defer st.Close()
	for range 2 {
		var list string
		var items int
		h.must(st.QueryRow().Scan(&list, &items))
		if list != "databases" || items != 2 {
			t.Errorf("%s: %d", list, items)
		}
	}
}

func TestPsqlReadsTheConsole(t *testing.T) {
	h := newHouse(t)
	host, port := h.hostPort()
	psql := func(command string) string {
		cmd := exec.Command(need(t, "psql", "postgresql-client"), "-X", "-h", host,
			"-p", port, "-U", "admin", "-d", "armor", "-v", "ON_ERROR_STOP=1", "-c", command)
		cmd.Env = append(os.Environ(), "PGSSLMODE=disable")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		return string(out)
	}
	if got := psql("SHOW DATABASES"); !strings.Contains(got, "\n orders ") || !strings.Contains(got, "(2 rows)") {
		t.Errorf("got %s", got)
	}
	if got := psql("SHOW HELP"); !strings.Contains(got, "NOTICE:  Console usage\nDETAIL:  \n\tSHOW HELP|CONFIG") {
		t.Errorf("got %s", got)
	}
	if got := psql("PAUSE orders") + psql("RESUME orders"); got != "PAUSE\nRESUME\n" {
		t.Errorf("got %s", got)
	}
}

// TestPrometheusExporterReadsTheConsole runs Debian's exporter. It looks for columns that
// PgBouncer itself has dropped since, which is what armor.columns=legacy is for.
func TestPrometheusExporterReadsTheConsole(t *testing.T) {
	program := need(t, "prometheus-pgbouncer-exporter", "prometheus-pgbouncer-exporter")
	h := newHouse(t)
	h.query(h.client(), "SELECT 1")
	host, port := h.hostPort()
	listen := freePort(t)
	cmd := exec.Command(program, "--host", "127.0.0.1", "--port", strconv.Itoa(listen),
		"--pgbouncer-host", host, "--pgbouncer-port", port, "--pgbouncer-user", "stats")
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGOPTIONS=-c armor.columns=legacy")
	runUntilEnd(t, cmd)
	h.must(dialUntilUp(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(listen))).Close()) // it serves one at a time
	get := http.Client{Timeout: patience}
	defer get.CloseIdleConnections()
	resp, err := get.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", listen))
	h.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	h.must(err)
	for _, want := range []string{
		`pgbouncer_requests_total{database="orders"} `, `pgbouncer_received_bytes_total{database="orders"} `,
		`pgbouncer_active_clients{database="orders",user="orders_rw"} 1.0`,
		`pgbouncer_pool_size{database="orders"} 5.0`, "pgbouncer_databases 2.0", "pgbouncer_used_servers 1.0",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in what it exports (%s):\n%s", want, resp.Status, text)
		}
	}
}

func TestCheckPostgresReadsTheConsole(t *testing.T) {
	program := need(t, "check_postgres", "check-postgres")
	h := newHouse(t)
	h.query(h.client(), "SELECT 1")
	host, port := h.hostPort()
	for _, c := range []struct{ action, want string }{
		{"pgb_pool_cl_active", "POSTGRES_PGB_POOL_CL_ACTIVE OK"},
		{"pgb_pool_maxwait", "POSTGRES_PGB_POOL_MAXWAIT OK"},
		{"pgbouncer_backends", "POSTGRES_PGBOUNCER_BACKENDS OK"},
	} {
		args := []string{"--action=" + c.action, "--host=" + host, "--port=" + port,
			"--dbuser=stats", "--dbname=pgbouncer", "--warning=90", "--critical=95"}
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "PGSSLMODE=disable")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("%s: %v: %s", c.action, err, out)
		}
	}
	cmd := exec.Command(program, "--action=pgbouncer_checksum", "--host="+host, "--port="+port,
		"--dbuser=stats", "--dbname=pgbouncer", "--critical=0123456789abcdef0123456789abcdef")
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable")
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "CRITICAL") || !strings.Contains(string(out), "checksum") { // it cannot match
		t.Errorf("checksum: %s", out)
	}
}

// TestPortalsAreFetchedInParts: what JDBC does with a fetch size, message by message.
func TestPortalsAreFetchedInParts(t *testing.T) {
	h := newHouse(t)
	c := h.console("admin")
	h.must(c.Send(
		pgtest.Encode('P', "s", "SHOW LISTS", int16(0)), pgtest.Encode('D', byte('S'), "s"),
		pgtest.Encode('B', "p", "s", int16(0), int16(0), int16(0)),
		pgtest.Encode('D', byte('P'), "p"), pgtest.Encode('E', "p", 3),
		pgtest.Encode('E', "p", 0), pgtest.Encode('C', byte('P'), "p"), pgtest.Encode('S'),
		pgtest.Encode('P', "s", "SHOW POOLS", int16(0)), pgtest.Encode('B', "", "s", int16(0), int16(0), int16(0)), pgtest.Encode('S'),
		pgtest.Encode('B', "", "nosuch", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S'),
		pgtest.Encode('P', "", "PAUSE nosuch", int16(0)), pgtest.Encode('D', byte('S'), ""),
		pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S'),
	))
	types := func() (s string) {
		messages, err := c.Until('Z')
		h.must(err)
		for _, m := range messages {
			s += string(m.Type)
			if m.Type == 'E' {
				s += m.Fields()['C']
			}
		}
		return s
	}
	for i, want := range []string{"1tT2TDDDs" + strings.Repeat("D", 11) + "C3Z", "E42P05Z", "E26000Z", "1tn2E3D000Z"} {
		if got := types(); got != want {
			t.Errorf("%d: got %s, want %s", i, got, want)
		}
	}
}
