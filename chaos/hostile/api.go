package hostile

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// apiMouth calls the API between nodes.
type apiMouth struct {
	thief *Thief
	lines map[string]*grpc.ClientConn
	epoch uint64 // the life that the thief says it is
}

func newAPIMouth(t *Thief) *apiMouth {
	m := &apiMouth{thief: t, lines: map[string]*grpc.ClientConn{}, epoch: t.cfg.Seed*1000 + 1}
	for victim := range t.cfg.Victims {
		dial := func(ctx context.Context, _ string) (net.Conn, error) { return t.dial(ctx, victim, alpnAPI) }
		line, err := grpc.NewClient("passthrough:///"+victim, grpc.WithContextDialer(dial),
			grpc.WithTransportCredentials(insecure.NewCredentials())) // dial has done the handshake
		if err == nil {
			m.lines[victim] = line
		}
	}
	return m
}

func (m *apiMouth) close() {
	for _, line := range m.lines {
		line.Close()
	}
}

func (m *apiMouth) at(victim string) armorpb.PeerAPIClient {
	return armorpb.NewPeerAPIClient(m.lines[victim])
}

func (m *apiMouth) status(ctx context.Context, victim string) (*armorpb.NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.at(victim).Status(ctx, &armorpb.Empty{})
}

// calls are all that a node may ask of another, and much that it may not.
func (m *apiMouth) calls(victim string) []act {
	api, t := m.at(victim), m.thief
	return []act{
		{"api renew", func(ctx context.Context) error {
			answer, err := api.Renew(ctx, m.report(victim))
			t.saw(answer.GetTerm(), answer.GetIndex())
			return err
		}},
		{"api propose again", func(ctx context.Context) error { return m.propose(ctx, victim, t.request()) }},
		{"api propose forged", func(ctx context.Context) error { return m.propose(ctx, victim, m.forged()) }},
		{"api operator", func(ctx context.Context) error {
			_, err := armorpb.NewOperatorAPIClient(m.lines[victim]).Submit(ctx, &armorpb.SubmitRequest{Request: m.forged(), Wait: "none"})
			return err
		}},
		{"api validate", func(ctx context.Context) error {
			_, err := api.Validate(ctx, &armorpb.ValidateRequest{Request: m.forged()})
			return err
		}},
		{"api cancel", func(ctx context.Context) error {
			_, err := api.Cancel(ctx, &armorpb.CancelRequest{Pid: uint32(t.chance(1 << 20)), Secret: uint32(t.chance(1 << 30)), Long: noise(32)})
			return err
		}},
		{"api join", func(ctx context.Context) error {
			_, err := api.FileJoin(ctx, &armorpb.JoinFiling{Secret: noise(32), Node: "n9", Csr: noise(200), PeerAddress: "127.0.0.1:1"})
			return err
		}},
		{"api await", func(ctx context.Context) error {
			_, err := api.AwaitEnforced(ctx, &armorpb.AwaitRequest{Patience: -1, Result: &armorpb.Result{Revision: t.anIndex(), Term: t.aTerm()}})
			return err
		}},
		{"api order", func(ctx context.Context) error {
			verb := []string{"pause", "kill", "disable"}[t.chance(3)]
			_, err := api.Order(ctx, &armorpb.PoolOrder{Verb: verb, Environment: "dev", Pool: "app", Warrant: m.warrant()})
			return err
		}},
		{"api drain", func(ctx context.Context) error {
			_, err := api.Drain(ctx, &armorpb.DrainRequest{Node: victim, Warrant: m.warrant()})
			return err
		}},
	}
}

// report is a renewal with one lie or more, in the thief's own name mostly.
func (m *apiMouth) report(victim string) *armorpb.Renewal {
	t := m.thief
	now := t.known().index
	q := &armorpb.Renewal{
		Node: t.cfg.Node, Epoch: m.epoch + uint64(t.chance(3)), Applied: now, Enforced: now, Level: uint32(6 + t.chance(3)),
		Leased: t.chance(2) == 0, Succeeds: []uint64{0, m.epoch}[t.chance(2)], Closed: int64(t.chance(100)), HeldAt: now,
	}
	switch t.chance(8) {
	case 0:
		q.Applied, q.Enforced = t.anIndex(), t.anIndex()
	case 1:
		q.Enforced = 1 << 60
	case 2:
		q.Node = victim
	case 3:
		q.Mark = &armorpb.Mark{Revision: now, Chain: noise(32), State: noise(32)}
	case 4:
		q.Ended, q.Draining = true, true
	case 5:
		q.Held = map[string]int64{"dev/app": int64(t.chance(1 << 20)), "dev/none": -5}
	case 6:
		q.PeerAddress, q.ClientAddress = "127.0.0.1:1", "127.0.0.1:1"
	}
	return q
}

func (m *apiMouth) propose(ctx context.Context, victim string, r *armorpb.Request) error {
	if r == nil {
		return fmt.Errorf("there is nothing to send again")
	}
	_, err := m.at(victim).Propose(ctx, &armorpb.ProposeRequest{Request: r, BeginOnly: true})
	return err
}

// forged is a change in the name of an operator or of a node, which nobody has signed.
func (m *apiMouth) forged() *armorpb.Request {
	t := m.thief
	r := &armorpb.Request{
		Id: fmt.Sprintf("%x", noise(16)), Principal: []string{"node/" + t.cfg.Node, "admin", "root", "node/n1"}[t.chance(4)],
		Expires: wire.TimeMessage(time.Now().Add(time.Hour)), Signature: noise(70),
	}
	if old := t.request(); old != nil && t.chance(2) == 0 {
		r.Command, r.Principal = old.Command, old.Principal
		return r
	}
	r.Command = m.wish()
	if strings.HasPrefix(r.Principal, "node/") {
		r.Signature = nil // the cluster's own commands have none
	}
	return r
}

// wish is a change that would give the thief more than one node.
func (m *apiMouth) wish() *wire.Command {
	node := m.thief.cfg.Node
	var victim string
	for victim = range m.thief.cfg.Victims {
		break
	}
	switch m.thief.chance(5) {
	case 0:
		return &wire.Command{Kind: &wire.Command_PutOperator{PutOperator: &wire.PutOperator{
			Operator: &wire.Operator{Name: "thief", PublicKey: noise(65), Roles: []string{"node-admin", "policy-admin", "ca-admin"}},
		}}}
	case 1:
		return &wire.Command{Kind: &wire.Command_RemoveMember{RemoveMember: &wire.RemoveMember{Node: victim}}}
	case 2:
		return &wire.Command{Kind: &wire.Command_SetMemberAddresses{SetMemberAddresses: &wire.SetMemberAddresses{
			Node: victim, PeerAddress: m.thief.cfg.Listen, ClientAddress: m.thief.cfg.Listen,
		}}}
	case 3:
		return &wire.Command{Kind: &wire.Command_MendTime{MendTime: &wire.MendTime{From: wire.TimeMessage(time.Now().Add(1000 * time.Hour))}}}
	}
	return &wire.Command{Kind: &wire.Command_SetShares{SetShares: &wire.SetShares{
		Pool: "dev/app", Shares: []*wire.Share{{Node: node, Target: 100}},
	}}}
}

// warrant is in the name of an operator, who has not signed it; or there is none.
func (m *apiMouth) warrant() *armorpb.Warrant {
	if m.thief.chance(3) == 0 {
		return nil
	}
	name := "admin"
	if old := m.thief.request(); old != nil {
		name = old.Principal
	}
	return &armorpb.Warrant{
		Id: fmt.Sprintf("%x", noise(16)), Principal: name, Expires: wire.TimeMessage(time.Now().Add(time.Minute)), Signature: noise(70),
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
