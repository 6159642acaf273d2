"""What psycopg 3 is answered."""
import logging
import os
import threading
import time

import psycopg

logging.disable()  # what psycopg ignores when a pipeline ends depends on time
host, port, database = os.environ["PGHOST"], os.environ["PGPORT"], os.environ["PGDATABASE"]


def connect(**more):
    if "PGPASSWORD" in os.environ:  # PostgreSQL itself
        return psycopg.connect(host=host, port=port, dbname=database, user="app", sslmode="disable", **more)
    # docs: psycopg
    conn = psycopg.connect(
        host=host, port=port, dbname=database, user="app",
        sslmode="verify-full", sslrootcert="ca.crt", sslcert="client.crt", sslkey="client.key",
        **more)
    # docs: end
    return conn


def attempt(what, do):
    try:
        print(what, "->", do())
    except psycopg.Error as e:
        print(what, "->", type(e).__name__, e.sqlstate, e.diag.message_primary, e.diag.message_detail)


conn = connect(autocommit=True)
conn.add_notice_handler(lambda d: print("notice", d.severity, d.sqlstate, d.message_primary, d.message_detail))
print("parameters", {n: conn.info.parameter_status(n) for n in ("TimeZone", "client_encoding", "server_version", "standard_conforming_strings")})
one = lambda sql, *args, c=conn, **kw: c.execute(sql, args or None, **kw).fetchall()
attempt("values", lambda: one("SELECT 1, NULL, 'text', true, 1.50::numeric, '\\x00ff'::bytea, ARRAY[1,2], '{\"a\": 1}'::jsonb"))
attempt("parameters", lambda: one("SELECT %s::int + 1, %s::text, %s::text[]", 41, "é", ["a", None]))
binary = conn.cursor(binary=True)
attempt("binary", lambda: binary.execute("SELECT 1, timestamptz '2001-02-03 04:05:06+00', 1.5::float8").fetchall())
attempt("division", lambda: one("SELECT 1/%s", 0))
attempt("syntax", lambda: one("SELEC 1"))
attempt("notice", lambda: conn.execute("DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail'; END $$").statusmessage)
conn.execute("CREATE TABLE drv_psycopg (id int PRIMARY KEY, v text)")
conn.cursor().executemany("INSERT INTO drv_psycopg VALUES (%s, %s)", [(i, str(i)) for i in range(5)])
attempt("duplicate", lambda: one("INSERT INTO drv_psycopg VALUES (1, 'again') RETURNING id"))
for i in range(12):  # prepared from the sixth on
    attempt("prepared", lambda: one("SELECT id FROM drv_psycopg WHERE id = %s", i % 6))


def transaction():
    with conn.transaction():
        one("INSERT INTO drv_psycopg VALUES (10, 'ten') RETURNING id")
        try:
            with conn.transaction():  # a savepoint
                one("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        one("INSERT INTO drv_psycopg VALUES (11, 'eleven') RETURNING id")
    return one("SELECT count(*) FROM drv_psycopg")


attempt("transaction", transaction)


def failed():
    with conn.transaction():
        attempt("first", lambda: one("SELECT nonsense"))
        return one("SELECT 1")


attempt("failed transaction", failed)


def pipeline():
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int", (i,)) for i in range(20)]
        return [c.fetchone()[0] for c in cursors]


attempt("pipeline", pipeline)


def broken_pipeline():
    with conn.pipeline():
        a = conn.execute("SELECT 1")
        b = conn.execute("SELECT 1/%s", (0,))
        conn.execute("SELECT 3")
        return a.fetchone(), b.fetchone()


attempt("broken pipeline", broken_pipeline)
attempt("after it", lambda: one("SELECT 4"))


def copy_in():
    with conn.cursor() as cur:
        with cur.copy("COPY drv_psycopg FROM STDIN") as copy:
            for i in range(100, 200):
                copy.write_row((i, "copied"))
        return cur.rowcount


attempt("copy in", copy_in)


def bad_copy():
    with conn.cursor() as cur, cur.copy("COPY drv_psycopg FROM STDIN") as copy:
        copy.write("nonsense\n")


attempt("bad copy", bad_copy)


def left_copy():
    with conn.cursor() as cur, cur.copy("COPY drv_psycopg FROM STDIN") as copy:
        copy.write("300\tx\n")
        raise psycopg.DataError("the client says no")


attempt("copy that is left", left_copy)


def copy_out():
    with conn.cursor() as cur, cur.copy("COPY (SELECT * FROM drv_psycopg WHERE id < 3 ORDER BY id) TO STDOUT") as copy:
        return [bytes(b) for b in copy]


attempt("copy out", copy_out)


def cursor():
    with conn.transaction(), conn.cursor(name="rows") as cur:
        cur.execute("SELECT generate_series(1, 1000)")
        return cur.fetchmany(3), cur.scroll(500), cur.fetchone()


attempt("server-side cursor", cursor)


def canceled():
    def cancel():
        with connect(autocommit=True) as other:
            while not one("SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND wait_event = 'PgSleep'", "SELECT pg_sleep(60) /* psycopg */%", c=other):
                time.sleep(0.01)
        conn.cancel()
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        one("SELECT pg_sleep(60) /* psycopg */")
    finally:
        thread.join()


attempt("cancel", canceled)
attempt("after it", lambda: one("SELECT 5"))
conn.execute("SET TimeZone = 'Asia/Tokyo'")
attempt("zone", lambda: (conn.info.timezone.key, one("SELECT timestamptz '2001-02-03 04:05:06+00'")))
# From here on, what is kept of a session.
conn.execute("SET work_mem = '7MB'")
attempt("setting", lambda: one("SHOW work_mem"))
conn.execute("CREATE TEMP TABLE drv_temp (a int)")
attempt("temporary table", lambda: one("SELECT count(*) FROM drv_temp"))
conn.execute("PREPARE plan AS SELECT 7")
attempt("PREPARE", lambda: one("EXECUTE plan"))
conn.execute("LISTEN channel")
conn.execute("NOTIFY channel, 'hello'")
heard = []
conn.add_notify_handler(lambda n: heard.append((n.channel, n.payload, n.pid == conn.info.backend_pid)))
conn.execute("NOTIFY channel, 'again'")
attempt("LISTEN", lambda: heard)
attempt("lock", lambda: (one("SELECT pg_advisory_lock(78)"), one("SELECT pg_advisory_unlock(78)")))


def held():
    with conn.cursor(name="held", withhold=True) as cur:
        cur.execute("SELECT generate_series(1, 3)")
        return cur.fetchall()


attempt("cursor WITH HOLD", held)
conn.execute("DROP TABLE drv_psycopg")
conn.close()
