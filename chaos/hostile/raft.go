package hostile

//lint:file-ignore SA1019 the older fields that name a sender are filled in, as raft does

import (
	"bytes"
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftMouth sends Raft's messages.
type raftMouth struct {
	thief *Thief
	net   *raft.NetworkTransport
}

func newRaftMouth(t *Thief) *raftMouth {
	return &raftMouth{thief: t, net: newTransport(&outgoing{thief: t, done: make(chan struct{})})}
}

func newTransport(stream raft.StreamLayer) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: 2, Timeout: patience, Logger: hclog.NewNullLogger(), MsgpackUseNewTimeFormat: true,
	})
}

func (m *raftMouth) close() { m.net.Close() }

// name is the thief's own node mostly, and a victim otherwise.
func (m *raftMouth) name(victim string) []byte {
	if m.thief.chance(5) == 0 {
		return []byte(victim)
	}
	return []byte(m.thief.cfg.Node)
}

func headerOf(name []byte) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: name, Addr: name}
}

// messages are those of a leader, of a candidate and of nobody who exists.
func (m *raftMouth) messages(victim string) []act {
	id, at := raft.ServerID(victim), raft.ServerAddress(victim)
	return []act{
		{"raft heartbeat", func(context.Context) error { return m.append(id, at, nil) }},
		{"raft entries", func(context.Context) error { return m.append(id, at, m.entries()) }},
		{"raft snapshot", func(context.Context) error { return m.snapshot(id, at) }},
		{"raft vote", func(context.Context) error {
			name := m.name(victim)
			return m.net.RequestVote(id, at, &raft.RequestVoteRequest{
				RPCHeader: headerOf(name), Term: m.thief.aTerm(), Candidate: name, LastLogIndex: m.thief.anIndex(),
				LastLogTerm: m.thief.aTerm(), LeadershipTransfer: m.thief.chance(2) == 0,
			}, &raft.RequestVoteResponse{})
		}},
		{"raft pre-vote", func(context.Context) error {
			return m.net.RequestPreVote(id, at, &raft.RequestPreVoteRequest{
				RPCHeader: headerOf(m.name(victim)), Term: m.thief.aTerm(), LastLogIndex: m.thief.anIndex(), LastLogTerm: m.thief.aTerm(),
			}, &raft.RequestPreVoteResponse{})
		}},
		{"raft timeout now", func(context.Context) error {
			return m.net.TimeoutNow(id, at, &raft.TimeoutNowRequest{RPCHeader: headerOf(m.name(victim))}, &raft.TimeoutNowResponse{})
		}},
	}
}

func (m *raftMouth) append(id raft.ServerID, at raft.ServerAddress, entries []*raft.Log) error {
	name := m.name(string(id))
	answer := &raft.AppendEntriesResponse{}
	q := &raft.AppendEntriesRequest{RPCHeader: headerOf(name), Term: m.thief.aTerm(), Leader: name, Entries: entries}
	if entries != nil {
		q.PrevLogEntry, q.PrevLogTerm, q.LeaderCommitIndex = entries[0].Index-1, m.thief.aTerm(), entries[len(entries)-1].Index
	}
	err := m.net.AppendEntries(id, at, q, answer)
	m.thief.saw(answer.Term, answer.LastLog)
	if err == nil && !answer.Success {
		return errors.New("no")
	}
	return err
}

// entries are commands that cannot be read, barriers, a configuration of one's own and kinds
// that do not exist.
func (m *raftMouth) entries() []*raft.Log {
	self := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: raft.ServerID(m.thief.cfg.Node), Address: raft.ServerAddress(m.thief.cfg.Node)},
	}})
	index := max(m.thief.anIndex(), 1)
	var all []*raft.Log
	for i := range 1 + m.thief.chance(3) {
		all = append(all, &raft.Log{
			Index: index + uint64(i), Term: m.thief.aTerm(), AppendedAt: time.Now(),
			Type: []raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration, 77}[m.thief.chance(5)],
			Data: [][]byte{nil, self, []byte("lies"), bytes.Repeat([]byte{0xff}, 300)}[m.thief.chance(4)],
		})
	}
	return all
}

func (m *raftMouth) snapshot(id raft.ServerID, at raft.ServerAddress) error {
	name, body := m.name(string(id)), bytes.Repeat([]byte("lies"), 1+m.thief.chance(1000))
	return m.net.InstallSnapshot(id, at, &raft.InstallSnapshotRequest{
		RPCHeader: headerOf(name), SnapshotVersion: 1, Term: m.thief.aTerm(), Leader: name, LastLogIndex: m.thief.anIndex(),
		LastLogTerm: m.thief.aTerm(), ConfigurationIndex: 1, Size: int64(len(body)),
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
			{Suffrage: raft.Voter, ID: raft.ServerID(m.thief.cfg.Node), Address: raft.ServerAddress(m.thief.cfg.Node)},
		}}),
	}, &raft.InstallSnapshotResponse{}, bytes.NewReader(body))
}

// outgoing is the stream layer of who only dials.
type outgoing struct {
	thief *Thief
	done  chan struct{}
}

func (o *outgoing) Dial(at raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout) // raft's interface has no ctx; the timeout bounds it
	defer cancel()
	return o.thief.dial(ctx, string(at), alpnRaft)
}

func (o *outgoing) Accept() (net.Conn, error) {
	<-o.done
	return nil, net.ErrClosed
}

func (o *outgoing) Close() error {
	close(o.done)
	return nil
}

func (o *outgoing) Addr() net.Addr { return &net.TCPAddr{} }
