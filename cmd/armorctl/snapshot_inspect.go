package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/fsm/saved"
)

// missing is what no state has, and a cluster needs.
var missing = []string{
	"the peer CA's key and the keys of the environments' CAs",
	"the nodes' keys, and the server certificates and keys that clients see",
	"the gossip key",
	"the nodes' secrets: passwords, client certificates and verifiers for PostgreSQL",
	"armord.yaml of each node",
	"operators' keys and contexts",
	"what nodes keep for themselves: live sessions, pauses of pools, refusals",
}

const peerCAUsage = "the peer CA's certificate, a PEM `FILE` (default: the context's)"

func (a *app) snapshotInspectCommand() *cobra.Command {
	peerCA := ""
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "say what a saved state holds, and what is not in it",
		Long: `Reads a saved state without asking any node: what it is of, who saved it when, its
members, environments, CAs, operators and counts. Whether its signatures hold is said when
the peer CA is known, by --peer-ca or by a context of the cluster. Exit code 3 when the file
is damaged or a signature does not hold.`,
		Example: "  armorctl snapshot inspect acme-2026-01-02.snapshot -o json", Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.snapshotInspect(args[0], peerCA) },
	}
	cmd.Flags().StringVar(&peerCA, "peer-ca", "", peerCAUsage)
	return cmd
}

func (a *app) snapshotVerifyCommand() *cobra.Command {
	peerCA := ""
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "check that a saved state is whole, and signed by a node of the cluster",
		Long: `Recomputes the state's digest from all that is in the file and holds each signature
against the peer CA and against the members and operators in the state itself; no node is
asked. Exit code 3 when something does not hold.`,
		Example: "  armorctl snapshot verify acme-2026-01-02.snapshot --peer-ca peers/ca.crt", Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.snapshotVerify(args[0], peerCA) },
	}
	cmd.Flags().StringVar(&peerCA, "peer-ca", "", peerCAUsage)
	return cmd
}

// openState opens a saved state. What is wrong with the file is a finding of the check.
func openState(path string) (*saved.File, error) {
	f, err := saved.Open(path)
	return f, finding(err)
}

// finding makes a check's finding of an error about what a file holds.
func finding(err error) error {
	for _, kind := range []error{armor.ErrInvalid, armor.ErrDenied, armor.ErrRevoked, saved.ErrNewer} {
		if errors.Is(err, kind) {
			return &verdict{exitProblems, err.Error()}
		}
	}
	return err
}

// peerCAOf is the certificate that a file's signatures are held against; nil when none is known.
func (a *app) peerCAOf(path string, m saved.Manifest) (ca *x509.Certificate, from string, err error) {
	if path != "" {
		ca, err = issue.Certificate(path)
		return ca, path, err
	}
	contexts, err := a.loadContexts()
	if err != nil {
		return nil, "", err
	}
	name := a.globals.context
	for _, c := range contexts.Contexts {
		if (name == "" || c.Name == name) && strings.EqualFold(c.Cluster, m.Cluster.Name) && (c.ClusterID == "" || c.ClusterID == m.Cluster.ID) {
			from = contexts.in(c.PeerCAFile)
			ca, err = issue.Certificate(from)
			return ca, from, err
		}
	}
	return nil, "", nil
}

func (a *app) snapshotVerify(path, peerCA string) error {
	f, err := openState(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ca, from, err := a.peerCAOf(peerCA, f.Manifest)
	if err != nil {
		return err
	}
	if ca == nil {
		return fault.Hinted(&fault.Usage{Err: fmt.Errorf("%s is of cluster %s, of which no context is known here", path, f.Manifest.Cluster.Name)},
			"--peer-ca FILE, the peer CA's certificate")
	}
	state, err := f.Verify(ca)
	if err != nil {
		return finding(fmt.Errorf("%s: %w", path, err))
	}
	v := a.viewOfState(path, f, state)
	v.Verified, v.PeerCA = true, from
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"good", path}, [2]string{"cluster", v.Cluster},
		[2]string{"revision", fmt.Sprint(v.Revision)}, [2]string{"state", v.State}, [2]string{"signed by", strings.Join(v.SignedBy, ", ")},
		[2]string{"saved", v.savedWords(a, f)}, [2]string{"peer CA", from})}})
}

func (a *app) snapshotInspect(path, peerCA string) error {
	f, err := openState(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ca, from, err := a.peerCAOf(peerCA, f.Manifest)
	if err != nil {
		return err
	}
	state, wrong := f.Read()
	if wrong == nil && ca != nil {
		wrong = f.VerifySigned(ca, state)
	}
	v := a.viewOfState(path, f, state)
	if v.PeerCA, v.Verified = from, wrong == nil && ca != nil; wrong != nil {
		v.Problem = wrong.Error()
	}
	if err := a.show(answer{data: v, tables: v.tables(a, f)}); err != nil {
		return err
	}
	if wrong != nil {
		return finding(fmt.Errorf("%s: %w", path, wrong))
	}
	return nil
}

// stateView is a saved state as -o json shows it.
type stateView struct {
	File         string            `json:"file"`
	Cluster      string            `json:"cluster"`
	ClusterID    string            `json:"clusterId"`
	Revision     uint64            `json:"revision"`
	Term         uint64            `json:"term"`
	LogTime      string            `json:"logTime"` // about when the newest change was made
	History      string            `json:"history"`
	State        string            `json:"state"`
	Level        uint32            `json:"level"`
	SavedAt      string            `json:"savedAt"`
	SavedBy      armor.NodeID      `json:"savedBy"`
	Build        string            `json:"build"`
	AskedBy      string            `json:"askedBy,omitempty"` // absent: the node's own schedule
	SignedBy     []string          `json:"signedBy"`
	Verified     bool              `json:"verified"` // the signatures were held against a peer CA, and hold
	PeerCA       string            `json:"peerCa,omitempty"`
	Problem      string            `json:"problem,omitempty"`
	Rows         map[string]uint64 `json:"rows"`
	Members      []savedMember     `json:"members"`
	Environments []string          `json:"environments"`
	Anchors      []savedAnchor     `json:"anchors"`
	Operators    []savedOperator   `json:"operators"`
	NotInIt      []string          `json:"notInIt"`
}

type savedMember struct {
	Node        armor.NodeID `json:"node"`
	Voter       bool         `json:"voter"`
	PeerAddress string       `json:"peerAddress"`
	Ends        string       `json:"certificateEnds"`
}

type savedAnchor struct {
	Name        string `json:"name"`
	Environment string `json:"environment"`
	Ends        string `json:"ends"`
}

type savedOperator struct {
	Name  string               `json:"name"`
	Roles []armor.OperatorRole `json:"roles"`
	Ends  string               `json:"certificateEnds"`
}

// viewOfState shows a file; of one that cannot be read, state is nil, what its manifest says.
func (a *app) viewOfState(path string, f *saved.File, state *armor.State) stateView {
	m := f.Manifest
	v := stateView{
		File: path, Cluster: m.Cluster.Name, ClusterID: m.Cluster.ID, Revision: m.Revision, Term: m.Term, LogTime: stamp(m.Time),
		History: m.Chain.String(), State: m.State.String(), Level: m.Level, SavedAt: stamp(m.At), SavedBy: m.Node, Build: m.Build, AskedBy: m.By,
		SignedBy: []string{}, Rows: map[string]uint64{}, Members: []savedMember{}, Environments: []string{}, Anchors: []savedAnchor{},
		Operators: []savedOperator{}, NotInIt: missing,
	}
	for _, s := range f.Signatures() {
		v.SignedBy = append(v.SignedBy, s.Kind+" "+s.Name)
	}
	for _, c := range m.Rows {
		v.Rows[c.Table] = c.Rows
	}
	if state == nil {
		return v
	}
	for m := range state.Members.Values() {
		v.Members = append(v.Members, savedMember{m.ID, m.Voter, m.PeerAddress, stamp(m.Certificate.NotAfter)})
	}
	for e := range state.Environments.Values() {
		v.Environments = append(v.Environments, e.Name)
	}
	for t := range state.Anchors.Values() {
		v.Anchors = append(v.Anchors, savedAnchor{t.Name, t.Environment, stamp(t.Certificate.NotAfter)})
	}
	for o := range state.Operators.Values() {
		v.Operators = append(v.Operators, savedOperator{o.Name, o.Roles, stamp(o.Certificate.NotAfter)})
	}
	return v
}

func (v stateView) savedWords(a *app, f *saved.File) string {
	by := "by its own schedule"
	if v.AskedBy != "" {
		by = "for operator " + v.AskedBy
	}
	return fmt.Sprintf("%s (%s) by node %s, %s", v.SavedAt, relative(f.Manifest.At, a.now()), v.SavedBy, by)
}

func (v stateView) tables(a *app, f *saved.File) []table {
	signatures := strings.Join(v.SignedBy, ", ")
	switch {
	case v.Problem != "":
		signatures += ": NOT GOOD"
	case v.Verified:
		signatures += ": verified with " + v.PeerCA
	default:
		signatures += ": not verified, since no peer CA is known here (--peer-ca)"
	}
	head := facts("", [2]string{"cluster", v.Cluster + " (" + v.ClusterID + ")"}, [2]string{"revision", fmt.Sprint(v.Revision)},
		[2]string{"newest change", fmt.Sprintf("%s (%s)", v.LogTime, relative(f.Manifest.Time, a.now()))},
		[2]string{"saved", v.savedWords(a, f)}, [2]string{"signed by", signatures}, [2]string{"problem", v.Problem},
		[2]string{"history", v.History}, [2]string{"state", v.State}, [2]string{"environments", strings.Join(v.Environments, ", ")})
	rows := table{columns: []string{"table", "rows"}}
	for _, name := range slices.Sorted(maps.Keys(v.Rows)) {
		rows.row(name, fmt.Sprint(v.Rows[name]))
	}
	members := table{columns: []string{"node", "votes", "address", "certificate ends"}}
	for _, m := range v.Members {
		votes := "no"
		if m.Voter {
			votes = "yes"
		}
		members.row(string(m.Node), votes, m.PeerAddress, m.Ends)
	}
	anchors := table{columns: []string{"CA", "environment", "ends"}}
	for _, t := range v.Anchors {
		anchors.row(t.Name, t.Environment, t.Ends)
	}
	operators := table{columns: []string{pki.Operator, "roles", "certificate ends"}}
	for _, o := range v.Operators {
		var roles []string
		for _, r := range o.Roles {
			roles = append(roles, string(r))
		}
		operators.row(o.Name, strings.Join(roles, ","), o.Ends)
	}
	not := table{title: "NOT IN IT"}
	for _, text := range v.NotInIt {
		not.row("  " + text)
	}
	return []table{head, rows, members, anchors, operators, not}
}
