import java.sql.*;
import java.util.Properties;

/** Connects by the key in a file, as PKCS #8 or PKCS #12, and says who it is. */
public class Connect {
    public static void main(String[] args) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", "app");
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", "ca.crt");
        p.setProperty("sslkey", args[0]);
        if (args.length > 1) {
            p.setProperty("sslpassword", args[1]);
        } else {
            p.setProperty("sslcert", "client.crt");
        }
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        try (Connection c = DriverManager.getConnection(url, p); Statement s = c.createStatement();
             ResultSet r = s.executeQuery("select current_user")) {
            r.next();
            System.out.println(r.getString(1));
        }
    }
}
