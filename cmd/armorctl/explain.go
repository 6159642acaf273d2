package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// judgedTables are what armor.State.Decide looks at.
var judgedTables = []rpc.Table{
	armor.Environments, armor.Anchors, armor.Inventory, armor.Revoked,
	armor.Identities, armor.Databases, armor.Pools,
}

func (a *app) explainCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain ID | --source ADDRESS | --identity IDENTITY --database DATABASE --role ROLE",
		Short: "say why a client was refused, or what would become of one",
		Long: `With the denial id that a client was given: shows what the node that refused knew,
and how the cluster would judge the same client now. Ids are remembered by the node
that refused, the latest 4,096 of them.

With --identity: runs the judge of the edge on the cluster's present state and shows
each rule in order. Without --serial or --file it supposes a certificate: the identity's
registered one that lives longest, else one of a CA that may vouch for it. Exit code 3
when the client would be refused.

With --source alone: what every node remembers of that address, the latest first. That is
also who never got as far as a denial id, since the handshake failed: what such a
client said of itself is unproven, and shown so, with what is missing from its
certificates. A node remembers 16 of these of an address, and 512 addresses.`,
		Example: `  armorctl explain k3x9q2m7
  armorctl explain --source 10.2.0.7
  armorctl explain --identity spiffe://production.acme.internal/app/checkout --database orders --role checkout_rw --source 10.2.0.7`,
		Args: atMost("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && q.onlySource() {
				return a.explainSource(cmd.Context(), q.source)
			}
			if (len(args) == 1) == q.asked() {
				return &fault.Usage{Err: errors.New("explain what? say a denial id, --source, or --identity, --serial or --file with --database and --role")}
			}
			if len(args) == 1 {
				return a.explainDenial(cmd.Context(), args[0])
			}
			return a.explainQuestion(cmd.Context(), q)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.identity, "identity", "", "the client's identity, or the name of an Identity object")
	f.StringVar(&q.serial, "serial", "", "the registered certificate, by the first digits of its serial or fingerprint")
	f.StringVar(&q.file, "file", "", "the certificate in a PEM `FILE`, with its issuers")
	f.StringVar(&q.environment, "environment", "", "the `environment`, when several have an identity of that name")
	f.StringVar(&q.database, "database", "", "the `database` that the client asks for")
	f.StringVar(&q.role, "role", "", "the `role` that it asks for")
	f.StringVar(&q.replication, "replication", "", "the `kind` of replication connection that it asks for: physical or logical")
	f.StringVar(&q.source, "source", "", "the `address` that it comes from; alone: what was refused from there")
	return cmd
}

// denialView is a refusal as -o json shows it: every fact that decided.
type denialView struct {
	ID       string       `json:"id"`
	At       string       `json:"at"`
	Node     armor.NodeID `json:"node"`
	Reason   armor.Reason `json:"reason"`
	Message  string       `json:"message"`
	Detail   string       `json:"detail,omitempty"`
	Revision uint64       `json:"revision"` // of the state that decided
	Facts    factsView    `json:"facts"`
	// Now is how the same client would be judged by the present state; nil when the
	// refusal was not a matter of trust or grants.
	Now *judgementView `json:"now,omitempty"`
}

// factsView is what a client proved and asked for.
type factsView struct {
	Identity    string     `json:"identity"`
	Serial      string     `json:"serial"`
	Issuer      string     `json:"issuer"`
	Fingerprint string     `json:"fingerprint"`
	Key         string     `json:"key"`
	NotBefore   string     `json:"notBefore"`
	NotAfter    string     `json:"notAfter"`
	Source      string     `json:"source"`
	Database    string     `json:"database"`
	Role        string     `json:"role"`
	Chains      [][]string `json:"chains"` // fingerprints of the issuers, the anchor last
	// SecondFactor is what was proved beside the key.
	SecondFactor armor.SecondFactor `json:"secondFactor,omitempty"`
	// Replication is the kind of replication connection that was asked for.
	Replication armor.Replication `json:"replication,omitempty"`
}

func viewOfFacts(f armor.Facts) factsView {
	leaf := f.Peer.Leaf
	v := factsView{
		Identity: string(leaf.Identity), Serial: leaf.ID.Serial, Issuer: digestText(leaf.ID.Issuer),
		Fingerprint: digestText(leaf.Fingerprint), Key: digestText(leaf.Key),
		NotBefore: stamp(leaf.NotBefore), NotAfter: stamp(leaf.NotAfter),
		Database: f.Database, Role: f.Role, Chains: [][]string{}, SecondFactor: f.SecondFactor, Replication: f.Replication,
	}
	if f.Peer.Source.Addr().IsValid() {
		v.Source = f.Peer.Source.String()
		if f.Peer.Source.Port() == 0 {
			v.Source = f.Peer.Source.Addr().String()
		}
	}
	for _, chain := range f.Peer.Chains {
		var issuers []string
		for _, c := range chain {
			issuers = append(issuers, c.Fingerprint.String())
		}
		v.Chains = append(v.Chains, issuers)
	}
	return v
}

func digestText(d armor.Digest) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}

func (v factsView) pairs() [][2]string {
	pairs := [][2]string{
		{"identity", v.Identity}, {"serial", v.Serial}, {"valid", validWords(v)}, {"from", v.Source},
		{"database", v.Database}, {"role", v.Role}, {"replication", string(v.Replication)}, {"second factor proved",
			string(v.SecondFactor)}, {"fingerprint", v.Fingerprint}, {"key", v.Key}, {"issuer", v.Issuer},
	}
	for i, chain := range v.Chains {
		pairs = append(pairs, [2]string{fmt.Sprintf("chain %d ends at", i+1), chain[len(chain)-1]})
	}
	return pairs
}

func validWords(v factsView) string {
	if v.NotAfter == "" {
		return ""
	}
	return v.NotBefore + " to " + v.NotAfter
}

func (a *app) explainDenial(ctx context.Context, id string) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	record, err := client.Denial(ctx, id)
	if errors.Is(err, armor.ErrNotFound) {
		return fault.Hinted(err, "ids are forgotten when a node restarts, and after 4,096 newer ones: its log has the id too")
	}
	if err != nil {
		return err
	}
	v := denialView{
		ID: id, At: stamp(record.At), Node: record.Node, Reason: record.Denial.Reason, Message: record.Denial.Message,
		Detail: record.Denial.Detail, Revision: record.Revision, Facts: viewOfFacts(record.Facts),
	}
	tables := []table{facts("", append([][2]string{
		{"denial", id}, {"reason", string(v.Reason)}, {"told the client", v.Message}, {"at", v.At + " (" + relative(record.At, a.now()) + ")"},
		{"by node", string(v.Node)}, {"revision", fmt.Sprint(v.Revision)},
	}, v.Facts.pairs()...)...)}
	if isJudged(v.Reason) {
		state, _, err := client.Ask(ctx, armor.Question{Leaves: certificatesOf(record.Facts.Peer)}, judgedTables...)
		if err != nil {
			return err
		}
		now := judge(state, record.Facts, a.now())
		v.Now = &now
		tables = append(tables, now.table("the same client now, at revision "+fmt.Sprint(state.Revision)+": "+now.word()))
	}
	return a.show(answer{data: v, tables: tables})
}

func (a *app) explainQuestion(ctx context.Context, q question) error {
	about, err := q.about(a.now())
	if err != nil {
		return err
	}
	state, _, err := a.ask(ctx, about, judgedTables...)
	if err != nil {
		return err
	}
	f, supposed, err := q.facts(state, a.now())
	if err != nil {
		return err
	}
	a.say("%s", supposed)
	j := judge(state, f, a.now())
	j.Revision, j.Facts, j.Supposed = state.Revision, viewOfFacts(f), supposed
	tables := []table{facts("", j.Facts.pairs()...), j.table("at revision " + fmt.Sprint(state.Revision) + ": " + j.word())}
	if err := a.show(answer{data: j, tables: tables}); err != nil {
		return err
	}
	if !j.Allowed {
		return &verdict{exitProblems, "would be refused: " + j.Message}
	}
	return nil
}
