package pooler_test

// stateThatIsKept is session for a pool in transaction mode that keeps it, however it was made.
func (g *generator) stateThatIsKept(tracked string) string {
	do := func(sql string) string { return "DO $x$ BEGIN " + sql + "; END $x$" }
	return pick(g, tracked, "RESET ALL", "RESET TimeZone", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP",
		"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
		"SET work_mem = '6MB'", "SHOW work_mem", "SHOW work_mem", "RESET work_mem", "SET work_mem TO DEFAULT", "SET work_mem = 'nonsense'",
		"BEGIN; SET work_mem = '8MB'; ROLLBACK", "BEGIN; SET LOCAL work_mem = '8MB'; SET work_mem = '9MB'; COMMIT",
		do("PERFORM set_config('work_mem', '7MB', false)"), "SELECT set_config('work_mem', '5MB', false)",
		"SET app.tenant = 'O''Neill é'", "SELECT set_config('app.tenant', 'b', false)", "RESET app.tenant",
		do("PERFORM set_config('app.tenant', 'c', false)"), "SELECT coalesce(current_setting('app.tenant', true), '')",
		"SELECT coalesce(current_setting('app.tenant', true), '')", "SET ROLE differ_role", "SET ROLE differ_role", "RESET ROLE",
		do("SET ROLE differ_role"), "SELECT current_user", "SELECT current_user", "SET search_path = pg_catalog, public", "SHOW search_path",
		"SET statement_timeout = '55s'", "SHOW statement_timeout", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
		"SHOW default_transaction_isolation", "SHOW transaction_isolation", "LOAD 'plpgsql'", "SET ROLE nobody",
		"PREPARE q AS SELECT 7", "EXECUTE q", "EXECUTE q", "DEALLOCATE q", do("EXECUTE 'PREPARE q AS SELECT 9'"),
		"SELECT name, statement FROM pg_prepared_statements WHERE from_sql ORDER BY name",
		"CREATE TEMP TABLE tmp (a int UNIQUE)", "CREATE TEMP TABLE tmp (a int UNIQUE) ON COMMIT DROP", "INSERT INTO tmp VALUES (1)",
		"SELECT * FROM tmp", "SELECT * FROM tmp", "DROP TABLE tmp", do("CREATE TEMP TABLE tmp (a int)"), do("DROP TABLE tmp"),
		"LISTEN own_"+g.who, "NOTIFY own_"+g.who+", 'hello'", "UNLISTEN *", do("LISTEN own_"+g.who), "SELECT pg_listening_channels()",
		"SELECT pg_advisory_lock(hashtext('own"+g.who+"'))", "SELECT pg_advisory_unlock(hashtext('own"+g.who+"'))",
		do("PERFORM pg_advisory_lock(hashtext('own"+g.who+"'))"),
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
		"DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 5)", "FETCH 2 FROM held", "CLOSE held")
}
