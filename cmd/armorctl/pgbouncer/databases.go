package pgbouncer

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// poolKeys are the keys of [users] that make a pool of the user's own.
var poolKeys = []string{"pool_size", "reserve_pool_size", "pool_mode", "query_timeout", "query_wait_timeout",
	"idle_transaction_timeout", "transaction_timeout", "client_idle_timeout"}

// makeDatabases makes a Database and its Pools of each line of [databases].
func (t *translation) makeDatabases() {
	t.environment()
	for i := range t.databases {
		s := &t.databases[i]
		if err := armor.CheckDatabaseName(s.key); err != nil {
			t.report.note(s.place, "databases."+s.key, "", outcome{why: "clients cannot ask for a database of this name here",
				instead: "give it a name of letters, digits, '-', '_' and '.', and have its clients ask for that"})
			continue
		}
		t.database(s)
	}
}

func (t *translation) environment() {
	if err := armor.CheckName("environment", t.Environment); err != nil {
		t.at(place{file: "--environment"}, "%s", strings.TrimPrefix(err.Error(), armor.ErrInvalid.Error()+": "))
	}
	if _, err := armor.ParseIdentity("spiffe://" + t.TrustDomain + "/x"); err != nil {
		t.at(place{file: "--trust-domain"}, "%q is no trust domain such as production.acme.internal", clip(t.TrustDomain))
	}
	if t.Processes < 1 {
		t.at(place{file: "--processes"}, "%d: there is at least one", t.Processes)
	}
}

func (t *translation) database(s *section) {
	d := armor.Database{
		Name: s.key, Environment: t.Environment, Hosts: t.hosts(s), DBName: cmp.Or(s.values["dbname"], s.key), TLSMode: t.tlsMode(),
		TargetSessionAttrs: armor.SessionAttrs(s.values["target_session_attrs"]), LoadBalanceHosts: t.hostOrder(s),
	}
	if d.TargetSessionAttrs == armor.AnyWord {
		d.TargetSessionAttrs = armor.AnySession
	}
	if armor.IsTemplate(d.Name) {
		if d.DBName = ""; s.values["dbname"] != "" {
			t.report.note(s.place, "databases.*.dbname", s.values["dbname"], outcome{why: "the template leads to the database that is asked for",
				instead: "list the names by which clients ask, each with this dbname"})
		}
	}
	t.serverTLS(&d)
	d.Query = t.query(s)
	d.Roles = t.roles(s, d)
	if d.Query == (armor.AuthQuery{}) && slices.ContainsFunc(d.Roles, func(r armor.RoleAuth) bool { return t.proves(s, r.Role) }) {
		d.Verifiers = VerifiersName
	}
	t.state.Databases = t.state.Databases.With(d)
	t.pools(s, d)
}

// hosts are host:port, or a socket's directory with its port.
func (t *translation) hosts(s *section) (hosts []string) {
	port := cmp.Or(s.values["port"], "5432")
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		t.at(s.place, "port %q of database %s is not between 1 and 65535", clip(port), s.key)
	}
	for host := range strings.SplitSeq(cmp.Or(s.values["host"], t.text("unix_socket_dir")), ",") {
		switch host = strings.TrimSpace(host); {
		case host == "":
			t.at(s.place, "database %s has an empty host", s.key)
		case host[0] == '@':
			t.report.note(s.place, "databases."+s.key+".host", host,
				outcome{why: "sockets without a file are not connected to", instead: "use a socket in a directory, or TCP"})
		case path.IsAbs(host):
			hosts = append(hosts, host+":"+port)
		default:
			hosts = append(hosts, net.JoinHostPort(strings.Trim(host, "[]"), port))
		}
	}
	return hosts
}

func (t *translation) hostOrder(s *section) armor.LoadBalance {
	written := s.values["load_balance_hosts"]
	switch {
	case written == armor.InOrderWord || !strings.Contains(s.values["host"], ","):
		return armor.InOrder
	case written == "":
		t.report.Defaulted = append(t.report.Defaulted, Defaulted{"databases." + s.key + ".load_balance_hosts",
			"round-robin, and all hosts have to be there", "random; a host that does not answer is passed over"})
	}
	return armor.RandomHost
}

func (t *translation) tlsMode() armor.TLSMode {
	switch mode := armor.TLSMode(t.text("server_tls_sslmode")); mode {
	case armor.TLSDisable, armor.TLSRequire, armor.TLSVerifyCA, armor.TLSVerifyFull:
		return mode
	case "", "allow", "prefer":
	default:
		t.at(t.settings["server_tls_sslmode"].place, "server_tls_sslmode %q is none of PgBouncer's", clip(string(mode)))
	}
	return armor.TLSRequire
}

// serverTLS fills in what goes with the mode: PostgreSQL speaks no TLS over a socket.
func (t *translation) serverTLS(d *armor.Database) {
	sockets := 0
	for _, h := range d.Hosts {
		if path.IsAbs(h) {
			sockets++
		}
	}
	if sockets > 0 && sockets == len(d.Hosts) {
		d.TLSMode = armor.TLSDisable
	}
	if d.TLSMode != armor.TLSVerifyCA && d.TLSMode != armor.TLSVerifyFull {
		return
	}
	d.CA = ServerCAName
	if t.text("server_tls_ca_file") == "" {
		t.at(t.settings["server_tls_sslmode"].place, "server_tls_sslmode needs a server_tls_ca_file")
	}
}

// pools makes the pool that a database's roles share, and those of users with settings
// of their own.
func (t *translation) pools(s *section, d armor.Database) {
	shared := 0
	for _, r := range d.Roles {
		if u := t.ownSettings(r.Role); u != nil && r.Role != d.Query.Role {
			t.pool(where{t, u, s}, d, 1)
			continue
		}
		shared++
	}
	if shared > 0 || len(d.Roles) == 0 {
		t.pool(where{t, nil, s}, d, max(shared, 1))
	}
	t.checkTogether(s, d)
}

// checkTogether reports a bound that holds for several pools together: budgets hold for
// one each.
func (t *translation) checkTogether(s *section, d armor.Database) {
	value, p, _ := where{t, nil, s}.find("max_db_connections", "max_db_connections")
	most, sum := where{t, nil, s}.count("max_db_connections", "max_db_connections"), 0
	for pool := range t.state.Pools.Values() {
		if pool.Database == d.Name {
			sum += pool.Budget
		}
	}
	if most > 0 && sum > most*t.Processes {
		t.report.note(p, "max_db_connections", value, outcome{
			why:     fmt.Sprintf("the budgets of database %s's pools are %d together, and one pool knows nothing of another's", d.Name, sum),
			instead: "lower the budgets by hand, or give the roles one pool",
		})
	}
}

// ownSettings is a user of [users] whose settings make pools of its own.
func (t *translation) ownSettings(role string) *section {
	i := slices.IndexFunc(t.users, func(s section) bool { return s.key == role })
	if i < 0 || !slices.ContainsFunc(poolKeys, func(key string) bool { return t.users[i].values[key] != "" }) {
		return nil
	}
	return &t.users[i]
}

// poolName is the name of the pool through which a role reaches a database.
func (t *translation) poolName(d armor.Database, role string) string {
	stem := d.Name
	if armor.IsTemplate(stem) {
		stem = "others"
	}
	if t.ownSettings(role) != nil {
		return t.name("pool", stem+"."+role)
	}
	return t.name("pool", stem)
}

// pool makes one; roles is how many of PgBouncer's pools become it.
func (t *translation) pool(w where, d armor.Database, roles int) {
	role := ""
	if w.user != nil {
		role = w.user.key
	}
	p := armor.Pool{
		Name: t.poolName(d, role), Environment: t.Environment, Database: d.Name, Mode: t.mode(w),
		QueryWait: w.duration("query_wait_timeout", "query_wait_timeout"), QueryWaitNotify: w.duration("query_wait_notify", "query_wait_notify"),
		ServerLifetime: w.duration("server_lifetime", "server_lifetime"), ServerIdle: w.duration("server_idle_timeout", "server_idle_timeout"),
		ClientIdle: w.duration("client_idle_timeout", "client_idle_timeout"), IdleInTransaction: w.duration("idle_transaction_timeout",
			"idle_transaction_timeout"),
		QueryTimeout: w.duration("query_timeout", "query_timeout"), TransactionTimeout: w.duration("transaction_timeout", "transaction_timeout"),
		MaxClients: w.count("max_db_client_connections", "max_db_client_connections"), MinSize: w.count("min_pool_size", "min_pool_size"),
		MaxPreparedStatements: min(w.count("max_prepared_statements", "max_prepared_statements"), armor.MaxPreparedStatements),
		PoolIdle:              t.poolIdle(w, d), LoginNotifyMessage: t.loginNotice(),
		ConnectQuery: w.database.values["connect_query"],
	}
	if p.QueryWait == 0 || p.QueryWait > armor.LongestQueryWait {
		p.QueryWait = armor.LongestQueryWait // PgBouncer's 0 is for ever
	}
	if p.ServerLifetime == 0 {
		p.ServerLifetime = armor.DefaultServerLifetime
	}
	if p.Mode != armor.SessionMode {
		p.OnState = armor.KeepState
	}
	if always, _, _ := w.find("server_reset_query_always", "server_reset_query_always"); !slices.Contains(isOff, strings.ToLower(always)) {
		p.Isolation = armor.IsolatedClients
	}
	t.budget(w, &p, roles)
	p.MinSize = min(p.MinSize, p.Budget-p.Reserve)
	// PgBouncer keeps the minimum without a client where the user is fixed.
	p.WarmUp = p.MinSize > 0 && w.database.values["user"] != "" && !armor.IsTemplate(d.Name)
	t.state.Pools = t.state.Pools.With(p)
}

// poolIdle is for ever with PgBouncer where it is 0.
func (t *translation) poolIdle(w where, d armor.Database) time.Duration {
	value, _, written := w.find("autodb_idle_timeout", "autodb_idle_timeout")
	if !written || !armor.IsTemplate(d.Name) {
		return 0
	}
	if isLongerThanAYear(value) {
		return armor.LongestTimeOut
	}
	return cmp.Or(w.duration("autodb_idle_timeout", "autodb_idle_timeout"), armor.LongestTimeOut)
}

func (t *translation) loginNotice() string {
	text := t.text("login_notify_message")
	if len(text) > armor.MaxPoolText {
		return ""
	}
	return text
}

func (t *translation) mode(w where) armor.PoolMode {
	value, p, _ := w.find("pool_mode", "pool_mode")
	mode := armor.PoolMode(value)
	if !slices.Contains([]armor.PoolMode{armor.SessionMode, armor.TransactionMode, armor.StatementMode}, mode) {
		t.at(p, "pool_mode %q is not session, transaction or statement", clip(value))
	}
	return mode
}

// budget is what all processes could open together, so that PostgreSQL sees no more
// connections than before.
func (t *translation) budget(w where, p *armor.Pool, roles int) {
	size, reserve := w.count("pool_size", "default_pool_size"), w.count("reserve_pool_size", "reserve_pool_size")
	if p.ReserveAfter = w.duration("reserve_pool_timeout", "reserve_pool_timeout"); p.ReserveAfter == 0 {
		reserve = 0 // PgBouncer never opens it then
	}
	normal, all := roles*size, roles*(size+reserve)
	how := fmt.Sprintf("processes %d × roles %d × (pool size %d + reserve %d)", t.Processes, roles, size, reserve)
	if most := w.count("max_db_connections", "max_db_connections"); most > 0 && most < all {
		normal, all = min(normal, most), most
		how = fmt.Sprintf("processes %d × max_db_connections %d", t.Processes, most)
	}
	p.Budget, p.Reserve = t.Processes*all, t.Processes*(all-normal)
	if p.Reserve == 0 {
		p.ReserveAfter = 0
	}
	if p.Budget < 1 || p.Budget > armor.MaxBudget {
		t.at(w.database.place, "pool %s would have a budget of %d = %s: it is between 1 and %d", p.Name, p.Budget, how, armor.MaxBudget)
		return
	}
	if armor.IsTemplate(p.Database) {
		how += "; PgBouncer has that for each database, here it is for all that are not listed together"
	}
	t.report.Budgets = append(t.report.Budgets, Budget{Pool: p.Name, Budget: p.Budget, How: how})
}
