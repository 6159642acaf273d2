package pooler

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// socketColumns are those of SHOW CLIENTS and SERVERS, with debug of SOCKETS.
func socketColumns(debug bool) []column {
	cols := columns("ssssssisissiiississii", "type", "user", "database", "replication", "state", "addr", "port", "local_addr", "local_port",
		"connect_time", "request_time", "wait", "wait_us", "close_needed", "ptr", "link", "remote_pid", "tls", "application_name",
		"prepared_statements", "id")
	if debug {
		cols = append(cols, columns("iiiiiii", "recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail")...)
	}
	return cols
}

// socket is a row of these: a client, or a server connection.
type socket struct {
	kind              string // C, S
	user, database    string
	replication       armor.Replication
	state             string
	remote, local     netip.AddrPort
	connected, active time.Time
	wait              time.Duration
	closeNeeded       bool
	id, link          uint64 // link: of the other side while they are bound together
	pid               uint32
	tls               string
	application       string
	prepared          int
}

// row has the debugging columns always; what they would say is not kept.
func (s socket) row() row {
	return row{s.kind, s.user, s.database, cmp.Or(string(s.replication), "none"), s.state, hostOf(s.remote), int(s.remote.Port()), hostOf(s.local), int(s.local.Port()),
		stamp(s.connected), stamp(s.active), int(s.wait / time.Second), int(s.wait % time.Second / time.Microsecond), flag(s.closeNeeded),
		pointer(s.id), pointer(s.link), int(s.pid), s.tls, s.application, s.prepared, int(s.id), 0, 0, 0, 0, 0, 0, 0}
}

// stamp is a time as PgBouncer writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// pointer names a socket in the columns ptr and link: by its id.
func pointer(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", id)
}

func hostOf(a netip.AddrPort) string {
	if !a.IsValid() {
		return "unix"
	}
	return a.Addr().Unmap().String()
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// tlsWords are PgBouncer's for a connection's TLS; empty without.
func tlsWords(c net.Conn) string {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ""
	}
	state := t.ConnectionState()
	return strings.ReplaceAll(tls.VersionName(state.Version), " ", "v") + "/" + tls.CipherSuiteName(state.CipherSuite)
}

func (c *console) showClients() []row { return rowsOf(c.clientSockets()) }
func (c *console) showServers() []row { return rowsOf(c.serverSockets()) }

// showSockets has other words for the states.
func (c *console) showSockets() []row {
	all := c.clientSockets()
	for i := range all {
		all[i].state = "cl_" + strings.Replace(all[i].state, "idle", "active", 1)
	}
	for _, s := range c.serverSockets() {
		s.state = "sv_" + s.state
		all = append(all, s)
	}
	return rowsOf(all)
}

func rowsOf(sockets []socket) []row {
	var rows []row
	for _, s := range sockets {
		rows = append(rows, s.row())
	}
	return rows
}

func (c *console) clientSockets() []socket {
	now := time.Now()
	var all []socket
	for _, cl := range c.home.allClients() {
		if environmentOf(cl.pool.key) == c.environment {
			all = append(all, cl.socket(now))
		}
	}
	slices.SortFunc(all, func(a, b socket) int { return cmp.Compare(a.id, b.id) })
	return all
}

// socket describes a client. Which statements it has prepared only its driver knows.
func (c *client) socket(now time.Time) socket {
	s := socket{
		kind: "C", user: c.part.role, replication: c.terms.kind(), state: "idle", remote: c.guest.Peer().Source, local: addrPort(c.conn.LocalAddr()), connected: c.since, active: c.since,
		id: c.id, tls: tlsWords(c.conn), application: c.application,
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	s.database = c.part.database(c.pool.cfg)
	switch {
	case c.waiting != nil:
		s.state, s.active, s.wait = "waiting", c.waiting.since, now.Sub(c.waiting.since)
	case c.lent != nil:
		s.state, s.link = "active", c.lent.id
	case c.atConsole():
		s.state = "active"
	}
	return s
}

func (c *console) serverSockets() []socket {
	var all []socket
	for _, pl := range c.home.allPools() {
		if environmentOf(pl.key) == c.environment {
			all = append(all, pl.serverSockets()...)
		}
	}
	slices.SortFunc(all, func(a, b socket) int { return cmp.Compare(a.id, b.id) })
	return all
}

func (p *pool) serverSockets() []socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := map[*ServerConn]bool{}
	for _, sub := range p.subs {
		for _, c := range sub.idle {
			idle[c] = true
		}
	}
	var all []socket
	for c := range p.conns {
		s := socket{
			kind: "S", user: c.sub.role, replication: c.sub.terms.kind(), database: c.sub.database(p.cfg), state: "tested", remote: addrPort(c.wire.Raw().RemoteAddr()), local: addrPort(c.wire.Raw().LocalAddr()),
			connected: c.born, active: c.idleSince, closeNeeded: c.generation != p.generation, id: c.id, pid: c.wire.PID(), tls: tlsWords(c.wire.Stream()),
			prepared: c.prepared,
		}
		switch {
		case c.lentTo != nil:
			s.state, s.link, s.application = "active", c.lentTo.id, c.lentTo.application
		case idle[c]:
			s.state = "idle"
		case c.parked:
			s.state = "being_canceled"
		}
		if s.active.IsZero() {
			s.active = s.connected
		}
		all = append(all, s)
	}
	return all
}
