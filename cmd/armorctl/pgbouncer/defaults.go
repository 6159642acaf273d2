package pgbouncer

// differing are the keys whose absence means something else with us.
var differing = []struct{ key, pgbouncer, armor string }{
	{"auth_type", "md5", "a client certificate, and the role's password by SCRAM beside it"},
	{"client_tls_sslmode", "disable", "TLS with a client certificate, always"},
	{"server_tls_sslmode", "prefer", "require, and disable over a socket: a server without TLS is refused"},
	{"pool_mode", "session", "none: session is written out"},
	{"default_pool_size", "20 for each database, user and process", "none: what that comes to is written out as budgets"},
	{"listen_addr", "no TCP", "TCP only, :6432"},
	{"max_client_conn", "100", "10000 for each node: limits.maxClients in armord.yaml"},
	{"client_login_timeout", "60", "10 s for the startup packet, and 10 s for a password"},
	{"server_login_retry", "15", "1 s, then 2 s, up to 15 s"},
	{"max_prepared_statements", "200 for each server connection", "the same, and 8 MiB for each session"},
	{"dns_max_ttl", "15", "host names are resolved at every login"},
}

// tellDefaults reports what was left to PgBouncer's defaults and means something else
// now.
func (t *translation) tellDefaults() {
	for _, d := range differing {
		if _, written := t.settings[d.key]; !written {
			t.report.Defaulted = append(t.report.Defaulted, Defaulted{d.key, d.pgbouncer, d.armor})
		}
	}
}
