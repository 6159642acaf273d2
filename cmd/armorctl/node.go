package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "the cluster's nodes", a.nodeListCommand(), a.nodeApproveCommand(), a.nodeRenewCommand(), a.nodeDrainCommand(), a.nodeRemoveCommand(),
		a.nodeReplaceCommand())
}

// nodeView is a node's word about itself as -o json shows it. A node that did not
// answer has Unreachable and what the cluster knows of it.
type nodeView struct {
	Node          armor.NodeID `json:"node"`
	Role          string       `json:"role"` // leader, follower, candidate, non-voter, or unreachable
	Leader        armor.NodeID `json:"leader"`
	Version       string       `json:"version"`
	Term          uint64       `json:"term"`
	Revision      uint64       `json:"revision"`
	Enforced      uint64       `json:"enforced"`
	Fresh         bool         `json:"fresh"`
	FreshAgeMs    float64      `json:"freshAgeMs"`
	ClockCompared bool         `json:"clockCompared"` // with a majority of the voters'
	ClockSkewMs   float64      `json:"clockSkewMs"`   // how far its clock is ahead of their median
	Sessions      int          `json:"sessions"`
	Draining      bool         `json:"draining"`
	Address       string       `json:"address"` // of the operator API
	ClientAddress string       `json:"clientAddress"`
	OpsAddress    string       `json:"opsAddress"`
	StartedAt     string       `json:"startedAt,omitempty"`
	Unreachable   string       `json:"unreachable,omitempty"`
	Gossip        []string     `json:"gossip"`
	Pools         []poolView   `json:"pools"`

	withheld []armor.Withheld // shown with the pools
}

type poolView struct {
	Pool     string `json:"pool"`
	Limit    int    `json:"limit"`
	Open     int    `json:"open"`
	Idle     int    `json:"idle"`
	Waiting  int    `json:"waiting"`
	Pinned   int    `json:"pinned"`
	Withheld int    `json:"withheld"`
	NotReady string `json:"notReady,omitempty"`
	Paused   bool   `json:"paused"`
	Disabled bool   `json:"disabled"`
}

// unreachable stands where a silent node's role would be.
const unreachable = "unreachable"

// nonVoter is the role of a node that does not vote, or not yet.
const nonVoter = "non-voter"

func viewOfNode(n armor.NodeStatus) nodeView {
	v := nodeView{
		Node: n.Node, Role: n.Role, Leader: n.Leader, Version: n.Version, Term: n.Term, Revision: n.Revision, Enforced: n.Enforced,
		Fresh: n.FreshAge >= 0, FreshAgeMs: milliseconds(max(n.FreshAge, 0)), Sessions: n.Sessions, Draining: n.Draining,
		ClockCompared: n.ClockCompared, ClockSkewMs: milliseconds(n.ClockSkew),
		Address: n.PeerAddress, ClientAddress: n.ClientAddress, OpsAddress: n.OpsAddress, StartedAt: stamp(n.StartedAt),
		Unreachable: n.Unreachable, Gossip: []string{}, Pools: []poolView{}, withheld: n.Withheld,
	}
	if n.Unreachable != "" {
		v.Role, v.Fresh = unreachable, false
	}
	for _, g := range n.Gossip {
		v.Gossip = append(v.Gossip, string(g))
	}
	for _, p := range n.Pools {
		v.Pools = append(v.Pools, poolView(p))
	}
	return v
}

// known shows a number, unless the node has told none.
func (v nodeView) known(n any) string {
	if v.Unreachable != "" {
		return ""
	}
	return fmt.Sprint(n)
}

// freshWords tells people how old the node's proof of the trust state is.
func (v nodeView) freshWords() string {
	switch {
	case v.Unreachable != "":
		return ""
	case !v.Fresh:
		return "not fresh"
	}
	return span(time.Duration(v.FreshAgeMs * float64(time.Millisecond)))
}

// clockWords tells people how far the node's clock is ahead of the voters' median.
func (v nodeView) clockWords() string {
	skew := time.Duration(v.ClockSkewMs * float64(time.Millisecond)).Round(time.Millisecond)
	switch {
	case !v.ClockCompared:
		return v.known("not compared")
	case skew < 0:
		return "-" + span(-skew)
	case skew == 0:
		return span(0)
	}
	return "+" + span(skew)
}

// clockOff is from which difference on people are told to do something.
const clockOff = time.Second

// clockAdvice says what to do about the node's clock; nothing when it is good.
func (v nodeView) clockAdvice() string {
	if time.Duration(v.ClockSkewMs*float64(time.Millisecond)).Abs() < clockOff {
		return ""
	}
	return fmt.Sprintf("the clock of %s is %s from the voters' median: look at that machine's time service", v.Node, v.clockWords())
}

func (a *app) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the nodes and what each of them enforces", Example: "  armorctl node list -o json", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, ctx, done, err := a.reach(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			nodes, err := client.Nodes(ctx)
			if err != nil {
				return err
			}
			views := nodeViews(nodes)
			return a.show(answer{data: views, tables: []table{nodeTable(views)}})
		},
	}
}

func nodeViews(nodes []armor.NodeStatus) []nodeView {
	views := make([]nodeView, len(nodes))
	for i, n := range nodes {
		views[i] = viewOfNode(n)
	}
	slices.SortFunc(views, func(a, b nodeView) int { return cmp.Compare(a.Node, b.Node) })
	return views
}

func nodeTable(views []nodeView) table {
	t := table{
		columns: []string{"node", "role", "revision", "enforced", "fresh", "clock", "sessions", "clients at"},
		wide:    []string{"address", "version", "term", "started", "gossip sees", "unreachable"},
	}
	for _, v := range views {
		role := v.Role
		if v.Draining {
			role += ", draining"
		}
		t.row(string(v.Node), role, v.known(v.Revision), v.known(v.Enforced), v.freshWords(), v.clockWords(), v.known(v.Sessions),
			v.ClientAddress, v.Address, v.Version, v.known(v.Term), v.StartedAt, strings.Join(v.Gossip, ","), v.Unreachable)
	}
	return t
}

func (a *app) nodeApproveCommand() *cobra.Command {
	var o signing
	cmd := &cobra.Command{
		Use: "approve NODE --peer-ca DIR", Short: "admit a node that has asked to join, by signing its certificate",
		Example: "  armorctl node approve n2 --peer-ca ./peer-ca", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := armor.ParseNodeID(args[0])
			if err != nil {
				return err
			}
			ca, lifetime, err := a.signer(cmd.Context(), "node approve", o)
			if err != nil {
				return err
			}
			return a.approve(cmd.Context(), node, ca, lifetime)
		},
	}
	signingFlags(cmd, &o)
	return cmd
}

// approvePatience covers the wait for the end of a former node of that name.
const approvePatience = time.Minute

// approvedView is the answer of node approve.
type approvedView struct {
	Node        armor.NodeID    `json:"node"`
	Address     string          `json:"address"`
	Voter       bool            `json:"voter"`
	Fingerprint string          `json:"fingerprint"`
	NotAfter    string          `json:"notAfter"`
	Revision    uint64          `json:"revision"`
	RequestID   armor.RequestID `json:"requestId"`
}

func (a *app) approve(ctx context.Context, node armor.NodeID, ca issue.CA, lifetime time.Duration) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := a.within(ctx, approvePatience)
	defer cancel()
	request, cluster, err := a.awaitRequest(ctx, client, node)
	if err != nil {
		return err
	}
	if err := a.awaitFormer(ctx, client, node); err != nil {
		return err
	}
	cert, err := ca.Node(cluster, node, request.CSR, lifetime)
	if err != nil {
		return err
	}
	leaf := pki.Facts(cert, pki.SPKI(ca.Cert))
	a.say("node %s at %s asked %s; its key is %s", node, request.PeerAddress, relative(request.At, a.now()), leaf.Key.Short())
	outcome, err := a.submit(ctx, client, armor.ApproveJoin{Node: node, Certificate: leaf, Chain: [][]byte{cert.Raw, ca.Cert.Raw}},
		rpc.SubmitOptions{})
	if err != nil {
		return madeAnew(err)
	}
	v := approvedView{node, request.PeerAddress, request.Voter, leaf.Fingerprint.String(), stamp(leaf.NotAfter), outcome.Result.Revision,
		outcome.RequestID}
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"admitted", string(node)}, [2]string{"address", v.Address},
		[2]string{"votes", yesNo(v.Voter)}, [2]string{"certificate expires", v.NotAfter}, [2]string{"revision", fmt.Sprint(v.Revision)})}})
}

const (
	// askPatience is for how long a node that was only just started may not have asked yet.
	askPatience = 10 * time.Second
	askPause    = 200 * time.Millisecond
	// formerPause is between two looks whether a removed node is over.
	formerPause = time.Second
)

// awaitRequest returns what the node has asked for, and the name of the cluster.
func (a *app) awaitRequest(ctx context.Context, client *rpc.Client, node armor.NodeID) (armor.JoinRequest, string, error) {
	limit, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	for said := false; ; said = true {
		state, err := client.State(ctx, armor.Joins)
		if err != nil {
			return armor.JoinRequest{}, "", err
		}
		request, err := pendingJoin(state, node)
		if !errors.Is(err, armor.ErrNotFound) {
			return request, state.Cluster.Name, err
		}
		if !said {
			a.say("waiting for node %s to ask", node)
		}
		if !pauseFor(limit, askPause) {
			return request, "", err
		}
	}
}

// awaitFormer waits until nothing is left of a former node of that name: its lease and its
// server connections.
func (a *app) awaitFormer(ctx context.Context, client *rpc.Client, node armor.NodeID) error {
	for said := false; ; said = true {
		state, err := client.State(ctx, armor.Tombstones, armor.Shares)
		if err != nil || !state.Tombstones.Has(string(node)) {
			return err
		}
		if !said {
			a.say("waiting until nothing is left of the former node %s: %s", node, cmp.Or(withheldFor(state, node), "its lease"))
		}
		if !pauseFor(ctx, formerPause) {
			return fault.Hinted(fmt.Errorf("%w: the former node %s is not over yet: %s", armor.ErrConflict, node,
				cmp.Or(withheldFor(state, node), "its lease")), "armorctl status says why; then armorctl node approve %s again", node)
		}
	}
}

// withheldFor words what is withheld for a node.
func withheldFor(s *armor.State, node armor.NodeID) string {
	var words []string
	for _, w := range s.Withheld() {
		if w.Node == node {
			words = append(words, fmt.Sprintf("%d server connections of pool %s", w.Count, w.Pool))
		}
	}
	return strings.Join(words, ", ")
}

func pendingJoin(s *armor.State, node armor.NodeID) (armor.JoinRequest, error) {
	request, found := s.Joins.Get(string(node))
	switch {
	case !found:
		return request, fault.Hinted(fmt.Errorf("%w: node %q has not asked to join", armor.ErrNotFound, node),
			"start it with the token of armorctl join-token create %s", node)
	case len(request.Chain) > 0:
		return request, fmt.Errorf("%w: node %s was admitted already", armor.ErrConflict, node)
	}
	return request, nil
}
