"""What asyncpg is answered."""
import asyncio
import os
import ssl

import asyncpg

host, port, database = os.environ["PGHOST"], int(os.environ["PGPORT"]), os.environ["PGDATABASE"]


async def connect(**more):
    if "PGPASSWORD" in os.environ:  # PostgreSQL itself
        return await asyncpg.connect(host=host, port=port, database=database, user="app", ssl=False, **more)
    # docs: asyncpg
    tls = ssl.create_default_context(cafile="ca.crt")
    tls.load_cert_chain("client.crt", "client.key")
    conn = await asyncpg.connect(host=host, port=port, database=database, user="app", ssl=tls, **more)
    # docs: end
    return conn


async def attempt(what, do):
    try:
        print(what, "->", await do)
    except asyncpg.PostgresError as e:
        print(what, "->", type(e).__name__, e.sqlstate, e.args[0], e.detail)
    except (asyncpg.InterfaceError, asyncio.TimeoutError) as e:
        print(what, "->", type(e).__name__)


async def main():
    conn = await connect()
    conn.add_log_listener(lambda _, m: print("notice", m.severity, m.sqlstate, m.message, m.detail))
    print("settings", conn.get_settings().TimeZone, conn.get_settings().client_encoding, conn.get_server_version()[:2])
    await attempt("values", conn.fetch("SELECT 1, NULL, 'text', true, 1.50::numeric, '\\x00ff'::bytea, ARRAY[1,2], '{\"a\": 1}'::jsonb"))
    for i in range(12):  # prepared at the first, cached by the driver
        await attempt("prepared", conn.fetchval("SELECT $1::int + 1", i))
    await attempt("division", conn.fetch("SELECT 1/$1::int", 0))
    await attempt("syntax", conn.fetch("SELEC 1"))
    await attempt("notice", conn.execute("DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail'; END $$"))
    await attempt("script", conn.execute("CREATE TABLE drv_asyncpg (id int PRIMARY KEY, v text); INSERT INTO drv_asyncpg VALUES (1, 'one')"))
    await attempt("duplicate", conn.execute("INSERT INTO drv_asyncpg VALUES ($1, $2)", 1, "again"))
    await attempt("executemany", conn.executemany("INSERT INTO drv_asyncpg VALUES ($1, $2)", [(i, str(i)) for i in range(10, 30)]))
    await attempt("executemany that fails", conn.executemany("INSERT INTO drv_asyncpg VALUES ($1, $2)", [(40, "a"), (10, "b"), (41, "c")]))
    await attempt("rows", conn.fetchval("SELECT count(*) FROM drv_asyncpg"))

    async def transaction():
        async with conn.transaction():
            await conn.execute("INSERT INTO drv_asyncpg VALUES (50, 'fifty')")
            try:
                async with conn.transaction():  # a savepoint
                    await conn.fetch("SELECT 1/0")
            except asyncpg.DivisionByZeroError:
                pass
            return await conn.fetchval("SELECT count(*) FROM drv_asyncpg")
    await attempt("transaction", transaction())

    async def failed():
        async with conn.transaction():
            await attempt("first", conn.fetch("SELECT nonsense"))
            await conn.fetch("SELECT 1")
    await attempt("failed transaction", failed())
    statement = await conn.prepare("SELECT id, v FROM drv_asyncpg WHERE id < $1 ORDER BY id")
    await attempt("types", asyncio.sleep(0, [(a.name, a.type.name) for a in statement.get_attributes()]))
    for i in range(3):
        await attempt("prepared by hand", statement.fetch(10 + i))
    await attempt("copy in", conn.copy_records_to_table("drv_asyncpg", records=[(i, "copied") for i in range(100, 150)]))
    await attempt("copy that fails", conn.copy_records_to_table("drv_asyncpg", records=[(200, "x"), (100, "y")]))
    lines = []

    async def line(data):
        lines.append(data)
    await attempt("copy out", conn.copy_from_query("SELECT * FROM drv_asyncpg WHERE id < 13 ORDER BY id", output=line))
    print(b"".join(lines))

    async def cursor():
        async with conn.transaction():
            return [r[0] async for r in conn.cursor("SELECT generate_series(1, 200)", prefetch=30)][::50]
    await attempt("server-side cursor", cursor())
    await attempt("canceled by a time-out", conn.execute("SELECT pg_sleep(60)", timeout=0.3))
    await attempt("after it", conn.fetchval("SELECT 5"))
    await attempt("zone", conn.execute("SET TimeZone = 'Asia/Tokyo'"))
    await attempt("zone", conn.fetchval("SELECT (timestamptz '2001-02-03 04:05:06+00')::text"))
    await conn.execute("ALTER TABLE drv_asyncpg ADD COLUMN more int")
    await attempt("a statement whose result has changed", statement.fetch(11))
    await attempt("reset", conn.reset())
    # From here on, what is kept of a session.
    await attempt("setting", conn.execute("SET work_mem = '7MB'"))
    await attempt("setting", conn.fetchval("SHOW work_mem"))
    await conn.execute("CREATE TEMP TABLE drv_temp (a int)")
    await attempt("temporary table", conn.fetchval("SELECT count(*) FROM drv_temp"))
    heard = []
    await attempt("LISTEN", conn.add_listener("channel", lambda c, pid, channel, payload: heard.append((channel, payload, pid == conn.get_server_pid()))))
    await conn.execute("NOTIFY channel, 'hello'")
    print(heard)
    await attempt("lock", conn.fetchval("SELECT pg_advisory_lock(79)"))
    await attempt("lock", conn.fetchval("SELECT pg_advisory_unlock(79)"))
    await conn.execute("DROP TABLE drv_asyncpg")
    await conn.close()



asyncio.run(main())
