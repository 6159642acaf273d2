package console

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
	cols := columns("ssssssisissiiississiis", "type", "user", "database", "replication", "state", "addr", "port", "local_addr", "local_port",
		"connect_time", "request_time", "wait", "wait_us", "close_needed", "ptr", "link", "remote_pid", "tls", "application_name",
		"prepared_statements", "id", "pinned")
	if debug {
		cols = append(cols, columns("iiiiiii", "recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail")...)
	}
	return cols
}

// Socket is a row of these: a client, or a server connection.
type Socket struct {
	ID, Link       uint64 // Link: of the other side while they are bound together
	User, Database string
	Replication    armor.Replication
	State          SocketState
	Remote, Local  netip.AddrPort
	Connected      time.Time
	Active         time.Time // since when it has been in its state, as far as that is known
	Wait           time.Duration
	CloseNeeded    bool
	PID            uint32
	TLS            string // TLSWords
	Application    string
	Prepared       int
	Pinned         string // for what a client keeps its server connection between transactions
}

// SocketState is PgBouncer's word for what a connection does.
type SocketState string

// The states. Clients have the first three, server connections all but Waiting.
const (
	Idle          SocketState = "idle"
	Active        SocketState = "active"
	Waiting       SocketState = "waiting"
	Tested        SocketState = "tested"
	BeingCanceled SocketState = "being_canceled"
)

// row has the debugging columns always; what they would say is not kept.
func (s Socket) row(kind, state string) row {
	return row{
		kind, s.User, s.Database, cmp.Or(string(s.Replication), "none"), state, hostOf(s.Remote), int(s.Remote.Port()), hostOf(s.Local),
		int(s.Local.Port()), stamp(s.Connected), stamp(s.Active), int(s.Wait / time.Second), int(s.Wait % time.Second / time.Microsecond),
		flag(s.CloseNeeded), pointer(s.ID), pointer(s.Link), int(s.PID), s.TLS, s.Application, s.Prepared, int(s.ID), s.Pinned, 0, 0, 0, 0, 0, 0, 0,
	}
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

// TLSWords are PgBouncer's for a connection's TLS; empty without.
func TLSWords(c net.Conn) string {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ""
	}
	state := t.ConnectionState()
	return strings.ReplaceAll(tls.VersionName(state.Version), " ", "v") + "/" + tls.CipherSuiteName(state.CipherSuite)
}

func (s *session) showClients() []row {
	return socketRows("C", s.pooler().Clients(s.Environment), func(state SocketState) string { return string(state) })
}

func (s *session) showServers() []row {
	return socketRows("S", s.pooler().Servers(s.Environment), func(state SocketState) string { return string(state) })
}

// showSockets has other words for the states: an idle client is an active one.
func (s *session) showSockets() []row {
	clients := socketRows("C", s.pooler().Clients(s.Environment), func(state SocketState) string {
		if state == Idle {
			state = Active
		}
		return "cl_" + string(state)
	})
	servers := socketRows("S", s.pooler().Servers(s.Environment), func(state SocketState) string { return "sv_" + string(state) })
	return append(clients, servers...)
}

// socketRows are in the order of their ids.
func socketRows(kind string, sockets []Socket, word func(SocketState) string) []row {
	slices.SortFunc(sockets, func(a, b Socket) int { return cmp.Compare(a.ID, b.ID) })
	var rows []row
	for _, s := range sockets {
		rows = append(rows, s.row(kind, word(s.State)))
	}
	return rows
}
