package core

import "testing"

func TestWordsTellWhatLeavesStateBehind(t *testing.T) {
	for text, want := range map[string]bool{
		"SET statement_timeout = 5":                            true,
		"set\n\tsearch_path to x":                              true,
		"SELECT 1; SET x.y = 1":                                true,
		"/* a /* b */ */ SET ROLE other -- c":                  true,
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": true,
		"SET LOCAL x = 1":                                      false,
		"SET TRANSACTION READ ONLY":                            false,
		"SET application_name = 'x'":                           false,
		"SET LOCAL x = 1; SET y = 2":                           true,
		"SET application_name = 'a;b'":                         false,
		"SET /* LOCAL */ x = 1":                                true,
		"SET -- local\n x = 1":                                 true,
		`SET "local".x = 1`:                                    true,
		"SET local.x = 1":                                      true,
		"SET SESSION transaction . x = 1":                      true,
		"SET LOCAL x = 1; ; SET names.x = 2":                   true,
		"LISTEN jobs":                                          true,
		"UNLISTEN jobs":                                        false,
		"PREPARE p AS SELECT 1":                                true,
		"PREPARE TRANSACTION 'x'":                              false,
		"CREATE TEMP TABLE t (n int)":                          true,
		"create local temporary table t (n int)":               true,
		"CREATE OR REPLACE TEMP VIEW v AS SELECT 1":            true,
		"CREATE TABLE pg_temp.t (n int)":                       true,
		"CREATE TABLE weather (temp int)":                      false,
		"CREATE TABLE weather (city text, temp int)":           false,
		"CREATE INDEX ON weather (temp)":                       false,
		"SELECT 1 INTO TEMP t":                                 true,
		"SELECT temp FROM weather":                             false,
		"INSERT INTO weather (temp, hold) VALUES (1, 2)":       false,
		"INSERT INTO t VALUES ('; SET x = 1')":                 false,
		`INSERT INTO t VALUES (E'\'; SET x = 1')`:              false,
		`SELECT 'a\'; SET x = 1`:                               true,
		`SELECT "; SET x = 1"`:                                 false,
		"SELECT 'it''s'; LISTEN x":                             true,
		"DO $$ BEGIN SET x = 1; END $$":                        false,
		"DO $f$ SELECT $$ $$; LISTEN x $f$; LISTEN y":          true,
		"SELECT $1; LISTEN x":                                  true,
		"SELECT a$b$c; LISTEN x":                               true,
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1":              true,
		"DECLARE c CURSOR FOR SELECT hold FROM t":              false,
		"SELECT set_config('a.b', 'c', false)":                 true,
		"SELECT pg_catalog.set_config ('a.b', 'c', false)":     true,
		"SELECT set_config FROM t":                             false,
		"SELECT pg_advisory_lock(1)":                           true,
		"SELECT pg_try_advisory_lock_shared(1)":                true,
		"SELECT pg_advisory_xact_lock(1)":                      false,
		"UPDATE t SET x = 1":                                   false,
		"-- SET x = 1":                                         false,
		"":                                                     false,
		";;":                                                   false,
		"SELECT '":                                             false,
		"SELECT $x$ SET":                                       false,
	} {
		if got := leavesBehind([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestHarmlessSetIsOneAndWhatItSays: what looks like one, and is none, would leak.
func TestHarmlessSetIsOneAndWhatItSays(t *testing.T) {
	for text, want := range map[string]bool{
		"SET LOCAL x = 1":                        true,
		" set local x = 1 ; -- SET y":            true,
		"/* SET */ SET application_name = 'a;b'": true,
		"SET TIME ZONE 'UTC'":                    true,
		"SET LOCAL x = 1; SET y = 2":             false,
		"SET /* local */ x = 1":                  false,
		"SET -- local\nx = 1":                    false,
		`SET "local".x = 1`:                      false,
		"SET local.x = 1":                        false,
		"SET application_name.x = 1":             false,
		"SELECT 1":                               false,
		"":                                       false,
	} {
		if got := isHarmlessSet([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// FuzzLeavesBehind: whatever the text, it comes to an end, and a comment ahead or behind
// changes nothing.
func FuzzLeavesBehind(f *testing.F) {
	for _, s := range []string{"SET x = 1", "/*/**/", "$a$ $a", "E'\\", "'", "\"", "--", "$", "select $1$"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := leavesBehind(text)
		if again := leavesBehind(append([]byte("/* SET */ -- x\n"), text...)); again != got {
			t.Errorf("%q: %v, behind a comment %v", text, got, again)
		}
	})
}
