import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/** What JDBC is answered. */
public class Try {
    static final String host = System.getenv("PGHOST"), port = System.getenv("PGPORT"), database = System.getenv("PGDATABASE");

    static Connection connect(String... more) throws SQLException {
        if (System.getenv("PGPASSWORD") != null) { // PostgreSQL itself
            return DriverManager.getConnection("jdbc:postgresql://" + host + ":" + port + "/" + database + "?user=app&password=" + System.getenv("PGPASSWORD"));
        }
        // docs: JDBC
        Properties p = new Properties();
        p.setProperty("user", "app");
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", "ca.crt");
        p.setProperty("sslcert", "client.crt");
        p.setProperty("sslkey", "client.pk8");
        Connection conn = DriverManager.getConnection("jdbc:postgresql://" + host + ":" + port + "/" + database, p);
        // docs: end
        return conn;
    }

    interface Work {
        Object run() throws Exception;
    }

    static void attempt(String what, Work work) {
        try {
            System.out.println(what + " -> " + work.run());
        } catch (SQLException e) {
            System.out.println(what + " -> " + e.getClass().getSimpleName() + " " + e.getSQLState() + " " + e.getMessage().replace("\n", " | "));
        } catch (Exception e) {
            System.out.println(what + " -> " + e);
        }
    }

    static List<Object> rows(ResultSet r) throws SQLException {
        List<Object> all = new ArrayList<>();
        while (r.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) {
                Object v = r.getObject(i);
                row.add(v instanceof byte[] b ? Arrays.toString(b) : v);
            }
            all.add(row);
        }
        return all;
    }

    static List<Object> query(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            return rows(s.executeQuery(sql));
        }
    }

    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
            for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) {
                System.out.println("warning " + w.getSQLState() + " " + w.getMessage());
            }
        }
    }

    public static void main(String[] args) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC")); // JDBC asks for its own in the startup packet
        Connection c = connect();
        attempt("product", () -> c.getMetaData().getDatabaseProductName() + " " + c.getMetaData().getDatabaseProductVersion());
        attempt("values", () -> query(c, "SELECT 1, NULL, 'text', true, 1.50::numeric, '\\x00ff'::bytea, ARRAY[1,2], timestamptz '2001-02-03 04:05:06+00'"));
        attempt("division", () -> query(c, "SELECT 1/0"));
        attempt("syntax", () -> query(c, "SELEC 1"));
        attempt("notice", () -> {
            run(c, "DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail'; END $$");
            return "done";
        });
        run(c, "CREATE TABLE drv_jdbc (id int PRIMARY KEY, v text)");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO drv_jdbc VALUES (?, ?)")) {
            for (int i = 0; i < 12; i++) { // under a name of the server's from the fifth on
                p.setInt(1, i);
                p.setString(2, "é" + i);
                p.executeUpdate();
            }
            attempt("duplicate", p::executeUpdate);
            for (int i = 20; i < 25; i++) {
                p.setInt(1, i);
                p.setString(2, null);
                p.addBatch();
            }
            attempt("batch", () -> Arrays.toString(p.executeBatch()));
            p.setInt(1, 30);
            p.addBatch();
            p.setInt(1, 20);
            p.addBatch();
            attempt("batch that fails", () -> Arrays.toString(p.executeBatch()));
        }
        try (PreparedStatement p = c.prepareStatement("SELECT id, v FROM drv_jdbc WHERE id = ?")) {
            for (int i = 0; i < 12; i++) {
                p.setInt(1, i);
                attempt("prepared", () -> rows(p.executeQuery()));
            }
            run(c, "ALTER TABLE drv_jdbc ALTER v TYPE varchar(20)");
            attempt("a statement whose result has changed", () -> rows(p.executeQuery()));
            attempt("once more", () -> rows(p.executeQuery()));
        }
        c.setAutoCommit(false);
        attempt("transaction", () -> {
            run(c, "INSERT INTO drv_jdbc VALUES (50, 'fifty')");
            Savepoint a = c.setSavepoint();
            attempt("in it", () -> query(c, "SELECT 1/0"));
            attempt("failed", () -> query(c, "SELECT 1"));
            c.rollback(a);
            c.commit();
            return query(c, "SELECT count(*) FROM drv_jdbc");
        });
        try (Statement s = c.createStatement()) { // a portal that is read in parts
            s.setFetchSize(7);
            attempt("fetch size", () -> rows(s.executeQuery("SELECT generate_series(1, 20)")));
        }
        c.commit();
        c.setAutoCommit(true);
        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
        attempt("copy in", () -> copy.copyIn("COPY drv_jdbc FROM STDIN", new StringReader("100\ta\n101\tb\n")));
        attempt("bad copy", () -> copy.copyIn("COPY drv_jdbc FROM STDIN", new StringReader("nonsense\n")));
        attempt("copy out", () -> {
            StringWriter w = new StringWriter();
            long n = copy.copyOut("COPY (SELECT * FROM drv_jdbc WHERE id < 3 ORDER BY id) TO STDOUT", w);
            return n + " " + w.toString().replace("\n", " | ");
        });
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1); // it is canceled then
            attempt("time-out", () -> rows(s.executeQuery("SELECT pg_sleep(60)")));
        }
        attempt("after it", () -> query(c, "SELECT 5"));
        attempt("read only", () -> {
            c.setReadOnly(true);
            try {
                c.setAutoCommit(false);
                attempt("insert", () -> query(c, "INSERT INTO drv_jdbc VALUES (60, 'x') RETURNING id"));
                c.rollback();
                return c.isReadOnly();
            } finally {
                c.setAutoCommit(true);
                c.setReadOnly(false);
            }
        });
        run(c, "SET TimeZone = 'Asia/Tokyo'");
        attempt("zone", () -> query(c, "SELECT (timestamptz '2001-02-03 04:05:06+00')::text"));
        // From here on, what is kept of a session.
        run(c, "SET work_mem = '7MB'");
        attempt("setting", () -> query(c, "SHOW work_mem"));
        run(c, "CREATE TEMP TABLE drv_temp (a int)");
        attempt("temporary table", () -> query(c, "SELECT count(*) FROM drv_temp"));
        run(c, "PREPARE plan AS SELECT 7");
        attempt("PREPARE", () -> query(c, "EXECUTE plan"));
        run(c, "LISTEN channel");
        run(c, "NOTIFY channel, 'hello'");
        attempt("LISTEN", () -> {
            List<String> heard = new ArrayList<>();
            var all = c.unwrap(PGConnection.class).getNotifications();
            for (var n : all == null ? new org.postgresql.PGNotification[0] : all) {
                heard.add(n.getName() + " " + n.getParameter() + " " + (n.getPID() == c.unwrap(PGConnection.class).getBackendPID()));
            }
            return heard;
        });
        attempt("lock", () -> query(c, "SELECT pg_advisory_lock(80)::text"));
        attempt("lock", () -> query(c, "SELECT pg_advisory_unlock(80)"));
        try (Statement s = c.createStatement(ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
            attempt("held", () -> rows(s.executeQuery("SELECT generate_series(1, 3)")));
        }
        run(c, "DROP TABLE drv_jdbc");
        c.close();
    }
}
