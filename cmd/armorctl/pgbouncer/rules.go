package pgbouncer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/armordb/armordb/armor"
)

// rule tells what becomes of a key; the value is as it is written.
type rule func(value string) outcome

// nothing is where keys are mapped to that ask for nothing to be done.
const nothing = "nothing to do"

func field(to string) rule { return func(string) outcome { return outcome{to: to} } }

func fieldBut(to, note string) rule {
	return func(string) outcome { return outcome{to: to, note: note} }
}

func needless(note string) rule {
	return func(string) outcome { return outcome{to: nothing, note: note} }
}

func hidden(to string) rule { return func(string) outcome { return outcome{to: to, secret: true} } }

func never(why, instead string) rule {
	return func(string) outcome { return outcome{why: why, instead: instead} }
}

// only translates the values that are listed; all others are lost.
func only(values []string, translated rule, why, instead string) rule {
	return func(value string) outcome {
		if slices.Contains(values, strings.ToLower(value)) {
			return translated(value)
		}
		return outcome{why: why, instead: instead}
	}
}

var isOff = []string{"0", "0.0", "off", "no", "false", ""}

// Notes that several keys share.
const (
	perNode     = "for each node, as it was for each process"
	aLog        = "armord logs to stderr, for the service manager to keep: log.level and log.format in armord.yaml"
	aSystemUnit = "the systemd unit says so"
	fixedTLS    = "TLS 1.2 or later with Go's choice of ciphers and curves"
	keepalives  = "connections are kept alive and given up within half a minute, always"
)

// mainRules are the keys of [pgbouncer] in PgBouncer 1.25.
var mainRules = map[string]rule{
	"pool_mode":                   field("Pool spec.mode"),
	"default_pool_size":           fieldBut("Pool spec.budget", "the budget is for the whole cluster: see the report's budgets"),
	"min_pool_size":               fieldBut("Pool spec.minSize", perNode),
	"reserve_pool_size":           fieldBut("Pool spec.reserve", "inside of the budget, which is larger by it"),
	"reserve_pool_timeout":        field("Pool spec.reserveAfter"),
	"max_db_connections":          fieldBut("Pool spec.budget", "bounds it"),
	"max_db_client_connections":   fieldBut("Pool spec.maxClients", perNode),
	"max_user_client_connections": fieldBut("Identity spec.maxConnections", perNode),
	"max_user_connections": only(isOff, needless("off"), "no bound on the server connections of one role over several databases",
		"set it in PostgreSQL: ALTER ROLE … CONNECTION LIMIT …"),
	"max_client_conn":          fieldBut("armord.yaml limits.maxClients", perNode),
	"query_wait_timeout":       field("Pool spec.queryWait"),
	"query_wait_notify":        field("Pool spec.queryWaitNotify"),
	"server_idle_timeout":      field("Pool spec.serverIdle"),
	"server_lifetime":          serverLifetime,
	"client_idle_timeout":      field("Pool spec.clientIdle"),
	"idle_transaction_timeout": field("Pool spec.idleInTransaction"),
	"query_timeout":            field("Pool spec.queryTimeout"),
	"transaction_timeout":      field("Pool spec.transactionTimeout"),
	"unix_socket_dir":          fieldBut("Database spec.hosts", "of databases without a host; clients come over TCP only"),

	"auth_type":       authType,
	"auth_file":       fieldBut("files for the nodes' secrets, and Identities", "read with --userlist"),
	"auth_hba_file":   fieldBut("Identity spec.grants", "read with --hba"),
	"auth_ident_file": never("no maps from certificate names to users", "an Identity's grants say which roles it may have: edit them"),
	"auth_user":       authUser, "auth_query": authQuery, "auth_dbname": authDBName,
	"auth_ldap_options": never("no passwords by LDAP",
		"the certificate says who it is; ask for the role's password beside it with secondFactor: scram"),
	"admin_users":      fieldBut("Identity spec.grants of database pgbouncer", "clients give the user admin"),
	"stats_users":      fieldBut("Identity spec.grants of database pgbouncer", "clients give the user stats"),
	"scram_iterations": needless("verifiers that are made from passwords have 4096 iterations, PgBouncer's default"),

	"listen_addr": fieldBut("armord.yaml client.listen", "one address, or none for all"), "listen_port": field("armord.yaml client.listen"),
	"client_tls_sslmode":   fieldBut(nothing, "every client has TLS and a certificate that is verified"),
	"client_tls_key_file":  field("armord.yaml client.keyFile"),
	"client_tls_cert_file": field("armord.yaml client.certFile"),
	"client_tls_ca_file": never("the cluster trusts a CA for an environment and a prefix of identities, not for everything",
		"armorctl ca init, or a CA of your own with armorctl ca; then issue certificates with a SPIFFE id"),
	"client_tls_protocols": needless(fixedTLS), "client_tls_ciphers": needless(fixedTLS), "client_tls13_ciphers": needless(fixedTLS),
	"client_tls_ecdhcurve": needless(fixedTLS), "client_tls_dheparams": needless(fixedTLS),
	"server_tls_sslmode": serverTLS, "server_tls_ca_file": field("Database spec.tls.ca, and a file for the nodes' secrets"),
	"server_tls_key_file": serverCertificate, "server_tls_cert_file": serverCertificate,
	"server_tls_protocols": needless(fixedTLS), "server_tls_ciphers": needless(fixedTLS), "server_tls13_ciphers": needless(fixedTLS),

	"server_reset_query": only([]string{"discard all", "discard all;"},
		needless("always so, and in transaction mode too where a client may have left something behind"),
		"the reset between two clients is DISCARD ALL and cannot be replaced",
		"leave it out: what one client leaves behind is never seen by another"),
	"server_reset_query_always": resetAlways,
	"server_check_delay":        needless("idle server connections are watched for their end, without a query"),
	"server_check_query":        needless("idle server connections are watched for their end, without a query"),
	"server_fast_close": only(isOff, needless("off"), "sessions are not ended when a pool is reconnected",
		"armorctl pool kill ends them; in transaction mode there is no difference"),
	"server_round_robin": only(isOff, needless("off"), "the connection that was used last is lent first",
		"leave it out: few connections with most of the load are what PostgreSQL does best with"),
	"autodb_idle_timeout":    autoDBIdle,
	"pool_idle_timeout":      needless("a role costs nothing while it is unused"),
	"server_login_retry":     needless("after a failed login the next is tried after 1 s, then 2 s, up to 15 s"),
	"client_login_timeout":   needless("a client has 10 s for its startup packet and 10 s for its password"),
	"server_connect_timeout": needless("a login to PostgreSQL has 15 s"),
	"cancel_wait_timeout":    needless("cancel requests do not wait for a place in a pool"),
	"dns_max_ttl":            needless("host names are resolved at every login"),
	"dns_nxdomain_ttl":       needless("host names are resolved at every login"),
	"dns_zone_check_period":  needless("host names are resolved at every login; armorctl pool reconnect moves what is open"),
	"resolv_conf": only(isOff, needless("the system's"), "host names are resolved as the system does",
		"configure the machine's resolver"),

	"track_extra_parameters": needless("every setting of the startup packet is followed, in every mode"),
	"ignore_startup_parameters": fieldBut(nothing,
		"startup parameters are applied, not ignored; docs/pooling.md lists the few that are refused"),
	"max_prepared_statements": preparedStatements,
	"disable_pqexec": only(isOff, needless("off"), "the simple query protocol cannot be refused",
		"give the role the least privileges there are"),
	"application_name_add_host": only(isOff, needless("off"), "the application name is the client's own",
		"armorctl session list, and each node's log, have a session's address"),
	"login_notify_message": loginNotice,
	"max_packet_size": only([]string{"2147483647"}, needless("PostgreSQL's own limit"),
		"messages are bounded as by PostgreSQL, and pass without being kept", "leave it out"),
	"stats_period": only([]string{"60"}, needless("a minute, always"), "averages are of the last whole minute",
		"leave it out: /metrics has the counters"),

	"peer_id":      needless("cancel requests work through every node"),
	"so_reuseport": needless("one process uses all processors: limits.loops in armord.yaml"),
	"logfile":      needless(aLog), "syslog": needless(aLog), "syslog_ident": needless(aLog), "syslog_facility": needless(aLog),
	"verbose":            needless(aLog),
	"log_connections":    needless("each session is one line in the log, when it ends"),
	"log_disconnections": needless("each session is one line in the log, when it ends"),
	"log_pooler_errors":  needless("refusals are in the log, with the id that the client reads"), "log_stats": needless("/metrics has them"),
	"pidfile": needless(aSystemUnit), "user": needless(aSystemUnit), "conffile": needless(aSystemUnit), "service_name": needless(aSystemUnit),
	"job_name":         needless(aSystemUnit),
	"unix_socket_mode": needless("clients come over TCP only"), "unix_socket_group": needless("clients come over TCP only"),
	"pkt_buf": needless("buffers need no tuning"), "sbuf_loopcnt": needless("buffers need no tuning"),
	"tcp_socket_buffer": needless("buffers need no tuning"),
	"listen_backlog":    needless("the system's: net.core.somaxconn"), "tcp_defer_accept": needless("a handshake has 10 s"),
	"tcp_keepalive": needless(keepalives), "tcp_keepcnt": needless(keepalives), "tcp_keepidle": needless(keepalives),
	"tcp_keepintvl": needless(keepalives), "tcp_user_timeout": needless(keepalives),
}

// databaseRules are the keys of a connection string in [databases].
var databaseRules = map[string]rule{
	"dbname": field("Database spec.dbname"), "host": field("Database spec.hosts"), "port": field("Database spec.hosts"),
	"user": never("a client's startup user is its role: it is not replaced",
		"have the database's clients connect as this user, which their Identities are granted; "+
			"no password of theirs is asked for, only the certificate"),
	"password":  hidden("a file for the nodes' secrets"),
	"auth_user": authUser, "auth_query": authQuery, "auth_dbname": authDBName,
	"pool_size":     fieldBut("Pool spec.budget", "the budget is for the whole cluster: see the report's budgets"),
	"min_pool_size": fieldBut("Pool spec.minSize", perNode), "reserve_pool_size": mainRules["reserve_pool_size"],
	"reserve_pool": mainRules["reserve_pool_size"],
	"pool_mode":    field("Pool spec.mode"), "query_wait_timeout": field("Pool spec.queryWait"), "server_lifetime": serverLifetime,
	"max_db_connections": mainRules["max_db_connections"], "max_db_client_connections": mainRules["max_db_client_connections"],
	"load_balance_hosts": field("Database spec.loadBalanceHosts"), "target_session_attrs": field("Database spec.targetSessionAttrs"),
	"connect_query":   field("Pool spec.connectQuery"),
	"client_encoding": databaseSetting, "datestyle": databaseSetting, "timezone": databaseSetting,
}

// userRules are the keys of [users].
var userRules = map[string]rule{
	"pool_size":         field("Pool spec.budget, of a pool of the user's own"),
	"reserve_pool_size": field("Pool spec.reserve, of a pool of the user's own"),
	"pool_mode":         field("Pool spec.mode, of a pool of the user's own"), "max_user_connections": mainRules["max_user_connections"],
	"query_timeout":               field("Pool spec.queryTimeout, of a pool of the user's own"),
	"query_wait_timeout":          field("Pool spec.queryWait, of a pool of the user's own"),
	"idle_transaction_timeout":    field("Pool spec.idleInTransaction, of a pool of the user's own"),
	"transaction_timeout":         field("Pool spec.transactionTimeout, of a pool of the user's own"),
	"client_idle_timeout":         field("Pool spec.clientIdle, of a pool of the user's own"),
	"max_user_client_connections": mainRules["max_user_client_connections"],
}

var (
	authUser = fieldBut("Database spec.auth.query", "passwords are looked up, users are not: each is named by --userlist or in [users], "+
		"and nodes log in by secrets of their own")
	authQuery         = fieldBut("Database spec.auth.query", "where there is an auth_user")
	authDBName        = needless("the query is run in the database that the client asks for")
	databaseSetting   = never("a database has no settings of its own", "ALTER DATABASE … SET …, in PostgreSQL; or let the client ask for it")
	serverCertificate = never("each role names the certificate that it logs in with",
		"write certificate: {secret: NAME} at the roles of the Database's auth, and put NAME.crt and NAME.key among the nodes' secrets")
)

func serverLifetime(value string) outcome {
	if slices.Contains(isOff, value) {
		return outcome{why: "no server connection is used for one client only",
			instead: "the default, 1h, holds; serverLifetime can be as short as 100ms"}
	}
	return outcome{to: "Pool spec.serverLifetime"}
}

// preparedStatements: what is off in PgBouncer is always on here.
func preparedStatements(value string) outcome {
	switch n, err := strconv.Atoi(value); {
	case err == nil && n == 0:
		return outcome{to: nothing, note: fmt.Sprintf("prepared statements are followed in every mode: the default, %d, holds",
			armor.DefaultPreparedStatements)}
	case err == nil && n > armor.MaxPreparedStatements:
		return outcome{why: fmt.Sprintf("a server connection keeps at most %d statements prepared", armor.MaxPreparedStatements),
			instead: "that is written: more cost PostgreSQL more memory than they save"}
	}
	return outcome{to: "Pool spec.maxPreparedStatements", note: "within 8 MiB for each session"}
}

func autoDBIdle(value string) outcome {
	const to, longest = "Pool spec.poolIdle", "the longest is a year"
	switch seconds, err := strconv.ParseFloat(value, 64); {
	case err == nil && seconds == 0:
		return outcome{to: to, note: "of the template's pools; 0 is for ever, " + longest}
	case isLongerThanAYear(value):
		return outcome{why: longest, instead: "that is written"}
	}
	return outcome{to: to, note: "of the template's pools"}
}

func isLongerThanAYear(seconds string) bool {
	n, err := strconv.ParseFloat(seconds, 64)
	return err == nil && n > maxSeconds
}

func loginNotice(value string) outcome {
	switch {
	case value == "":
		return outcome{to: nothing, note: "none"}
	case len(value) > armor.MaxPoolText:
		return outcome{why: fmt.Sprintf("a notice has at most %d bytes", armor.MaxPoolText), instead: "make it shorter: none is written"}
	}
	return outcome{to: "Pool spec.loginNotifyMessage"}
}

// resetAlways: what is off in PgBouncer is no less than by identity here.
func resetAlways(value string) outcome {
	if slices.Contains(isOff, strings.ToLower(value)) {
		return outcome{to: nothing, note: "a server connection is reset when it goes from one identity to another, and where a text shows that something was left"}
	}
	return outcome{to: "Pool spec.isolation"}
}

// authType: whatever it was, the certificate says who a client is.
func authType(value string) outcome {
	switch value {
	case "cert", "trust":
		return outcome{to: nothing, note: "the certificate says who a client is"}
	case "md5", "scram-sha-256", "plain":
		return outcome{to: "Identity spec.grants secondFactor: scram", note: "beside the certificate, and by SCRAM only"}
	case "hba":
		return outcome{to: "Identity spec.grants", note: "read with --hba"}
	}
	return outcome{
		why:     "clients are known by certificates, and by SCRAM beside them: there is no " + clip(value),
		instead: "grant each identity what it may reach; ask for the role's password with secondFactor: scram",
	}
}

func serverTLS(value string) outcome {
	switch value {
	case "disable", "require", "verify-ca", "verify-full":
		return outcome{to: "Database spec.tls.mode"}
	}
	return outcome{
		why:     clip(value) + " lets whoever is in between turn TLS off",
		instead: "require is written: servers must speak TLS. Where one does not, say server_tls_sslmode = disable",
	}
}
