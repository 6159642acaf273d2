#!/bin/sh
# What psql, and with it libpq, is answered.
set -u
if [ -n "${PGPASSWORD:-}" ]; then # PostgreSQL itself
	connection="sslmode=disable"
else
	# docs: psql
	connection="host=$PGHOST port=$PGPORT dbname=$PGDATABASE user=app
	    sslmode=verify-full sslrootcert=ca.crt sslcert=client.crt sslkey=client.key"
	# docs: end
fi
psql -X -a "$connection" <<'SQL' | sed 's/PID [0-9]*/PID …/'
SELECT 1 AS one, NULL AS nothing, 'text' AS words, true AS yes, 1.50::numeric, '\x00ff'::bytea, ARRAY[1,2] AS list, '{"a": 1}'::jsonb;
SELECT 1/0;
\errverbose
SELEC 1;
DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail', HINT = 'do nothing'; END $$;
CREATE TABLE drv_psql (id int PRIMARY KEY, v text);
INSERT INTO drv_psql VALUES (1, 'one'), (2, 'two');
INSERT INTO drv_psql VALUES (1, 'again');
BEGIN;
SAVEPOINT a;
INSERT INTO drv_psql VALUES (1, 'again');
SELECT 1;
ROLLBACK TO a;
UPDATE drv_psql SET v = 'changed' WHERE id = 1;
COMMIT;
\copy drv_psql FROM STDIN
3	three
4	four
\.
\copy drv_psql FROM STDIN
5	five
4	again
\.
\copy (SELECT * FROM drv_psql ORDER BY id) TO STDOUT
SELECT 1 \; SELECT 2 \; SELECT 1/0 \; SELECT 3;
SELECT id, v FROM drv_psql ORDER BY id \gdesc
\set FETCH_COUNT 3
SELECT generate_series(1, 8);
\unset FETCH_COUNT
SET statement_timeout = '100ms' \; SELECT pg_sleep(60);
BEGIN;
SET LOCAL work_mem = '7MB';
SHOW work_mem;
COMMIT;
SET TimeZone = 'Asia/Tokyo';
SELECT timestamptz '2001-02-03 04:05:06+00';
-- from here on, what is kept of a session
SET work_mem = '7MB';
SHOW work_mem;
CREATE TEMP TABLE drv_temp (a int);
SELECT * FROM drv_temp;
PREPARE plan AS SELECT 7 AS seven;
EXECUTE plan;
LISTEN channel;
NOTIFY channel, 'hello';
SELECT 1;
SELECT pg_advisory_lock(77);
SELECT pg_advisory_unlock(77);
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 3);
COMMIT;
FETCH ALL FROM held;
DISCARD ALL;
SHOW TimeZone;
DROP TABLE drv_psql;
SQL
