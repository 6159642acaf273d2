// What node-postgres is answered.
const fs = require('fs')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')

const { PGHOST: host, PGPORT: port, PGDATABASE: database } = process.env

function config() {
  if (process.env.PGPASSWORD) { // PostgreSQL itself
    return { host, port, database, user: 'app', password: process.env.PGPASSWORD }
  }
  // docs: node-postgres
  const config = {
    host, port, database, user: 'app',
    ssl: {
      ca: fs.readFileSync('ca.crt'),
      cert: fs.readFileSync('client.crt'),
      key: fs.readFileSync('client.key'),
    },
  }
  // docs: end
  return config
}

async function attempt(what, work) {
  try {
    console.log(what, '->', JSON.stringify(await work()))
  } catch (e) {
    console.log(what, '->', e.severity, e.code, e.message, e.detail)
  }
}

async function main() {
  const c = new Client(config())
  c.on('notice', (m) => console.log('notice', m.severity, m.code, m.message, m.detail))
  await c.connect()
  const rows = async (q, values) => (await c.query(q, values)).rows
  await attempt('values', () => rows("SELECT 1 AS a, NULL AS b, 'text' AS c, true AS d, 1.50::numeric AS e, '\\x00ff'::bytea AS f, ARRAY[1,2] AS g, timestamptz '2001-02-03 04:05:06+00' AS h"))
  await attempt('types', async () => (await c.query('SELECT 1 AS a, now() AS b')).fields.map((f) => [f.name, f.dataTypeID]))
  await attempt('parameters', () => rows('SELECT $1::int + 1 AS a, $2::text AS b', [41, 'é']))
  await attempt('division', () => rows('SELECT 1/$1::int', [0]))
  await attempt('syntax', () => rows('SELEC 1'))
  await attempt('several', async () => (await c.query('SELECT 1; SELECT 2')).map((r) => r.rows))
  await attempt('notice', () => rows("DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail'; END $$"))
  await attempt('table', () => rows('CREATE TABLE drv_node (id int PRIMARY KEY, v text)'))
  await Promise.all([...Array(10).keys()].map((i) => c.query('INSERT INTO drv_node VALUES ($1, $2)', [i, 'v' + i])))
  await attempt('duplicate', () => rows('INSERT INTO drv_node VALUES (1, $1)', ['again']))
  for (let i = 0; i < 10; i++) {
    await attempt('prepared', () => rows({ name: 'by_id', text: 'SELECT * FROM drv_node WHERE id = $1', values: [i] }))
  }
  await attempt('prepared, failing', () => rows({ name: 'by_id', text: 'SELECT * FROM drv_node WHERE id = $1', values: ['nonsense'] }))
  await attempt('prepared, after it', () => rows({ name: 'by_id', text: 'SELECT * FROM drv_node WHERE id = $1', values: [3] }))
  await attempt('transaction', async () => {
    await c.query('BEGIN')
    await c.query("INSERT INTO drv_node VALUES (50, 'fifty')")
    await c.query('SAVEPOINT a')
    await attempt('in it', () => rows('SELECT 1/0'))
    await attempt('failed', () => rows('SELECT 1'))
    await c.query('ROLLBACK TO a')
    await c.query('COMMIT')
    return rows('SELECT count(*) FROM drv_node')
  })
  await attempt('cursor', async () => {
    await c.query('BEGIN')
    const cursor = c.query(new Cursor('SELECT generate_series(1, $1) AS n', [20]))
    const first = await cursor.read(3)
    const then = await cursor.read(4)
    await cursor.close()
    await c.query('COMMIT')
    return [first, then]
  })
  await attempt('cancel', async () => {
    const text = 'SELECT pg_sleep(60) /* node-postgres */'
    const other = new Client(config())
    await other.connect()
    const sleeping = c.query(text)
    const outcome = sleeping.catch((e) => e)
    while ((await other.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query = $1", [text])).rows.length === 0);
    await other.end()
    new Client(config()).cancel(c, c.activeQuery)
    throw await outcome
  })
  await attempt('after it', () => rows('SELECT 5 AS five'))
  await attempt('pool', async () => {
    const pool = new Pool({ ...config(), max: 3 })
    const all = await Promise.all([...Array(12).keys()].map((i) => pool.query({ name: 'twice', text: 'SELECT 2 * $1::int AS n', values: [i] })))
    await pool.end()
    return all.map((r) => r.rows[0].n)
  })
  await attempt('zone', () => rows("SET TimeZone = 'Asia/Tokyo'"))
  await attempt('zone', () => rows("SELECT (timestamptz '2001-02-03 04:05:06+00')::text AS at"))
  // From here on, what is kept of a session.
  await attempt('setting', () => rows("SET work_mem = '7MB'"))
  await attempt('setting', () => rows('SHOW work_mem'))
  await attempt('temporary table', () => rows('CREATE TEMP TABLE drv_temp (a int)'))
  await attempt('temporary table', () => rows('SELECT count(*) FROM drv_temp'))
  await attempt('PREPARE', () => rows('PREPARE plan AS SELECT 7 AS seven'))
  await attempt('PREPARE', () => rows('EXECUTE plan'))
  const heard = []
  c.on('notification', (m) => heard.push([m.channel, m.payload, m.processId === c.processID]))
  await attempt('LISTEN', () => rows('LISTEN channel'))
  await attempt('NOTIFY', () => rows("NOTIFY channel, 'hello'"))
  await attempt('LISTEN', async () => { await rows('SELECT 1'); return heard })
  await attempt('lock', () => rows('SELECT pg_advisory_lock(81)'))
  await attempt('lock', () => rows('SELECT pg_advisory_unlock(81)'))
  await attempt('drop', () => rows('DROP TABLE drv_node'))
  await c.end()
}

main()
