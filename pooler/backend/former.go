package backend

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// What a former life of this node has left in PostgreSQL, as its register tells.

// StopFormer asks PostgreSQL to cancel what a backend of a former life runs: its client has
// gone with the node, and there is nobody to answer.
func (d *Dialer) StopFormer(ctx context.Context, db armor.Database, e Entry) error {
	if e.PID == 0 {
		return nil
	}
	host, _, err := splitHost(e.Host)
	if err != nil {
		return err
	}
	secured, err := d.serverTLS(db, host)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, d.cfg.EndTimeout)
	defer stop()
	c := &Conn{home: d, pid: e.PID, secret: e.Secret, to: address{e.Network, e.Address}, tls: secured}
	return c.Cancel(ctx)
}

// Gone logs in as t says, looks which of the entries PostgreSQL has no backend for any more,
// and returns once PostgreSQL has none for the look either. All entries are of one host and
// role, which t is for; they had logged in.
func (d *Dialer) Gone(ctx context.Context, t Target, all []Entry) (gone []Entry, err error) {
	t.Database.Hosts, t.Database.TargetSessionAttrs, t.Database.MaxLag = []string{all[0].Host}, armor.AnySession, 0
	c, left, err := d.Open(ctx, t)
	if err != nil {
		left.End(ctx)
		return nil, err
	}
	defer c.End(ctx)
	pids, rows, err := c.askBackends(ctx, pgwire.AppendQuery(nil, askFormer(all)), len(all), 6, d.cfg.ResetTimeout)
	if err != nil {
		return nil, err
	}
	seen := map[uint32][]string{}
	for i, pid := range pids {
		seen[pid] = rows[i]
	}
	for _, e := range all {
		if row, there := seen[e.PID]; !there || e.isNot(row, c.port(), time.Since(e.Since)) {
			gone = append(gone, e)
		}
	}
	return gone, nil
}

// askFormer asks for the backends with the pids of the entries. A role without privileges sees
// all of its own backends' rows, and of others who they are. Names are of pg_catalog only, so
// that no search_path leads elsewhere (PostgreSQL, "pg_stat_activity").
func askFormer(all []Entry) string {
	var pids []string
	for _, e := range all {
		pids = append(pids, strconv.FormatUint(uint64(e.PID), 10))
	}
	return "SELECT pid, COALESCE(usename, ''), COALESCE(backend_type, ''), COALESCE(client_port, 0), " +
		"COALESCE(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) backend_start)::int8, 0), " +
		"COALESCE(pg_catalog.inet_client_port(), 0) " +
		"FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) ANY ('{" + strings.Join(pids, ",") + "}'::int4[])"
}

// youngBy is how much younger than what is looked for a backend has to look, by the server's
// clock, to be another.
const youngBy = 2 * time.Second

// isNot reports whether the backend that has the entry's pid now is certainly another one: of
// another role, no client's (a parallel worker, an autovacuum), of another port of ours, or,
// where a port says nothing, one that has begun since, which is age ago. In doubt it is the entry's.
func (e Entry) isNot(row []string, own int, age time.Duration) bool {
	role, kind, port, seconds, mine := row[1], row[2], row[3], row[4], row[5]
	switch {
	case role != "" && role != e.Role, kind != "" && kind != "client backend":
		return true
	case kind == "":
		return false // it is not ours to see
	case own > 0 && mine == strconv.Itoa(own) && e.Port > 0:
		return port != strconv.Itoa(e.Port)
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	return err == nil && n >= 0 && time.Duration(n)*time.Second < age-youngBy
}

// port is our own port on the connection; 0 if it has none.
func (c *Conn) port() int {
	if tcp, ok := c.raw.LocalAddr().(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// IsCrowded reports whether a login has failed since PostgreSQL has as many as it takes: so it
// lives, and so may what is looked for.
func IsCrowded(err error) bool { return sqlState(err) == "53300" }
