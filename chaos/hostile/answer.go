package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// answer listens where the node listened and answers all who come. stop ends it.
func (t *Thief) answer(all *sync.WaitGroup) (stop func(), err error) {
	listener, err := net.Listen("tcp", t.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen in the place of %s: %w", t.cfg.Node, err)
	}
	server := grpc.NewServer(grpc.Creds(insecure.NewCredentials())) // the handshake is done when it gets a connection
	armorpb.RegisterPeerAPIServer(server, &liar{thief: t})
	armorpb.RegisterOperatorAPIServer(server, &fence{thief: t})
	api := &single{conns: make(chan net.Conn), done: make(chan struct{})}
	all.Go(func() { server.Serve(api) })
	all.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { t.receive(raw, api) })
		}
	})
	return func() { listener.Close(); server.Stop() }, nil
}

func (t *Thief) receive(raw net.Conn, api *single) {
	conn := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{t.certificate}, NextProtos: []string{alpnRaft, alpnAPI},
		ClientAuth: tls.RequireAnyClientCert,
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == alpnRaft {
		t.hear(conn, api.done)
		return
	}
	select {
	case api.conns <- conn:
	case <-api.done:
		conn.Close()
	}
}

// hear answers Raft's messages: with a yes to all, or with a later term.
func (t *Thief) hear(conn net.Conn, over <-chan struct{}) {
	stream := &single{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	stream.conns <- conn
	transport := newTransport(stream)
	transport.SetHeartbeatHandler(t.respond)
	defer transport.Close()
	defer conn.Close()
	enough := time.NewTimer(time.Minute) // whoever has more to say comes again
	defer enough.Stop()
	for {
		select {
		case m := <-transport.Consumer():
			t.respond(m)
		case <-over:
			return
		case <-enough.C:
			return
		}
	}
}

func (t *Thief) respond(rpc raft.RPC) {
	t.count("answer raft", nil)
	header := headerOf([]byte(t.cfg.Node))
	switch m := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		t.saw(m.Term, m.LeaderCommitIndex)
		rpc.Respond(&raft.AppendEntriesResponse{
			RPCHeader: header, Term: t.termAfter(m.Term), LastLog: t.anIndex(), Success: t.chance(2) == 0, NoRetryBackoff: true,
		}, nil)
	case *raft.RequestVoteRequest:
		rpc.Respond(&raft.RequestVoteResponse{RPCHeader: header, Term: t.termAfter(m.Term), Granted: t.chance(2) == 0}, nil)
	case *raft.RequestPreVoteRequest:
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: header, Term: t.termAfter(m.Term), Granted: t.chance(2) == 0}, nil)
	default:
		rpc.Respond(nil, errors.New("no"))
	}
}

// termAfter is mostly the one of the question, so that the answer counts, else a later one.
func (t *Thief) termAfter(term uint64) uint64 {
	return []uint64{term, term, term, term, term, term + 1, term + 50, math.MaxUint64 - 1}[t.chance(8)]
}

// liar answers other nodes.
type liar struct {
	armorpb.UnimplementedPeerAPIServer
	thief *Thief
}

// Renew says that all is fresh, as the leader would.
func (l *liar) Renew(_ context.Context, q *armorpb.Renewal) (*armorpb.Freshness, error) {
	l.thief.count("answer renew", nil)
	return &armorpb.Freshness{
		Term: l.thief.known().term, Index: q.Applied, Time: wire.TimeMessage(l.now()), Bound: int64(time.Hour), Mark: q.Mark,
	}, nil
}

// Poll says that the thief's node leads, or is to.
func (l *liar) Poll(_ context.Context, q *armorpb.BallotQuestion) (*armorpb.Ballot, error) {
	l.thief.count("answer poll", nil)
	return &armorpb.Ballot{Term: q.Term, Leader: l.thief.cfg.Node, Successor: l.thief.cfg.Node, Unsaid: l.thief.chance(2) == 0}, nil
}

// Clock shows any time but the right one.
func (l *liar) Clock(context.Context, *armorpb.Empty) (*armorpb.ClockReading, error) {
	l.thief.count("answer clock", nil)
	return &armorpb.ClockReading{Time: wire.TimeMessage(l.now())}, nil
}

func (l *liar) now() time.Time {
	far := []time.Duration{0, time.Minute, -time.Minute, 24 * time.Hour, -24 * time.Hour, 8760 * time.Hour}
	return time.Now().Add(far[l.thief.chance(len(far))])
}

// Attest has a history of its own.
func (l *liar) Attest(_ context.Context, q *armorpb.AttestRequest) (*armorpb.Attestation, error) {
	l.thief.count("answer attest", nil)
	return &armorpb.Attestation{}, nil
}

// Status is a healthy node's.
func (l *liar) Status(context.Context, *armorpb.Empty) (*armorpb.NodeStatus, error) {
	k := l.thief.known()
	return &armorpb.NodeStatus{Node: l.thief.cfg.Node, Leader: l.thief.cfg.Node, Term: k.term, Revision: k.index, Enforced: k.index}, nil
}

// Propose keeps what others have signed, and says nothing of it.
func (l *liar) Propose(_ context.Context, q *armorpb.ProposeRequest) (*armorpb.Result, error) {
	l.thief.took(q.Request)
	return nil, status.Error(codes.Unavailable, "not now")
}

// Validate keeps what was asked.
func (l *liar) Validate(_ context.Context, q *armorpb.ValidateRequest) (*armorpb.Empty, error) {
	l.thief.took(q.Request)
	return nil, status.Error(codes.Unavailable, "not now")
}

// fence takes what operators send.
type fence struct {
	armorpb.UnimplementedOperatorAPIServer
	thief *Thief
}

// Submit keeps the request.
func (f *fence) Submit(_ context.Context, q *armorpb.SubmitRequest) (*armorpb.SubmitReply, error) {
	f.thief.count("answer operator", nil)
	f.thief.took(q.Request)
	return nil, status.Error(codes.Unavailable, "not now")
}

// Validate keeps the dry run.
func (f *fence) Validate(_ context.Context, q *armorpb.ValidateRequest) (*armorpb.Empty, error) {
	f.thief.count("answer operator", nil)
	f.thief.took(q.Request)
	return nil, status.Error(codes.Unavailable, "not now")
}

// single is a listener, and a stream layer, of connections that somebody else has accepted.
type single struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *single) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

func (s *single) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, errors.New("this stream only receives")
}
