package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "one screen: leader, quorum, nodes, pools, certificates that expire",
		Example: "  armorctl status", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

// maxExpiring is how many certificates that end soon status asks for.
const maxExpiring = 100

// listedCerts is how many of them people are shown, so that the rest stays on the screen.
const listedCerts = 10

// statusView is the answer of status.
type statusView struct {
	Cluster   string       `json:"cluster"`
	ClusterID string       `json:"clusterId"`
	Era       uint32       `json:"era"`                // 1, and one more each time that a node went on alone
	EraSince  string       `json:"eraSince,omitempty"` // log time, of an era that is not the first
	Leader    armor.NodeID `json:"leader"`
	Term      uint64       `json:"term"`
	Revision  uint64       `json:"revision"`
	// Log time is what requests are judged by; it never is ahead of the clocks by much.
	LogTime string `json:"logTime"`
	// Without more than half of the voters the cluster changes nothing.
	VotersAnswering int               `json:"votersAnswering"`
	Voters          int               `json:"voters"`
	Quorum          bool              `json:"quorum"`
	LogTimeAhead    bool              `json:"logTimeAhead"` // cluster mend-time takes it back
	Nodes           []nodeView        `json:"nodes"`
	Pools           []clusterPoolView `json:"pools"`
	Expiring        []certView        `json:"expiring"` // client certificates, within 30 days: the first 100
	MoreExpiring    bool              `json:"moreExpiring,omitempty"`
	ExpiringOwn     []ownCertView     `json:"expiringOwn"` // of nodes and operators
	Joining         []armor.NodeID    `json:"joining"`     // nodes that wait for node approve
	// NotYetVoting are nodes that shall vote, once they have served for a while; until then the
	// cluster survives the loss of fewer.
	NotYetVoting []armor.NodeID `json:"notYetVoting"`
}

// clusterPoolView is a pool over all nodes that answered.
type clusterPoolView struct {
	Pool      string          `json:"pool"`
	Budget    int             `json:"budget"`
	Granted   int             `json:"granted"`
	Open      int             `json:"open"`
	Waiting   int             `json:"waiting"`
	Isolation armor.Isolation `json:"isolation"`
	Nodes     []nodePoolView  `json:"nodes"`
	Withheld  []withheldView  `json:"withheld"` // of the budget, for nodes that cannot use it
}

// withheldView is what nobody may use of a pool's budget before a node is known to have let go.
type withheldView struct {
	Node  armor.NodeID `json:"node"`
	Count int          `json:"count"`
	Why   string       `json:"why"`
	Until string       `json:"until,omitempty"`
}

type nodePoolView struct {
	Node armor.NodeID `json:"node"`
	poolView
}

func (a *app) status(ctx context.Context) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	ending := armor.CertificatePage{Limit: maxExpiring, ValidAt: a.now(), Until: a.now().Add(expirySoon)}
	state, next, err := client.Ask(ctx, armor.Question{CertificatePage: ending},
		append(certTables, armor.Members, armor.Operators, armor.Pools, armor.Shares, armor.Joins)...)
	if err != nil {
		return err
	}
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return err
	}
	v := a.viewOfStatus(state, nodeViews(nodes))
	v.VotersAnswering, v.Voters = armor.VotersAnswering(state, nodes)
	v.Quorum = v.Leader != "" && v.VotersAnswering > v.Voters/2
	v.MoreExpiring = next != ""
	if err := a.show(answer{data: v, tables: a.statusTables(v)}); err != nil || v.Quorum {
		return err
	}
	return v.withoutQuorum()
}

// withoutQuorum is the verdict on a cluster that cannot change anything.
func (v statusView) withoutQuorum() error {
	if v.VotersAnswering > v.Voters/2 {
		return fault.Hinted(&verdict{exitUnavailable, fmt.Sprintf("no leader yet, though %d of %d voters answer: nothing can be changed",
			v.VotersAnswering, v.Voters)}, "an election takes a second or two; look again")
	}
	return fault.Hinted(&verdict{exitUnavailable, fmt.Sprintf("no quorum: %d of %d voters answer; nothing can be changed",
		v.VotersAnswering, v.Voters)}, "bring back nodes that are listed as unreachable")
}

func (a *app) viewOfStatus(s *armor.State, nodes []nodeView) statusView {
	v := statusView{
		Cluster: s.Cluster.Name, ClusterID: s.Cluster.ID, Revision: s.Revision, Nodes: nodes,
		LogTime: stamp(s.Time), LogTimeAhead: s.Time.After(a.now().Add(armor.RequestWindow)),
		Pools: clusterPools(s, nodes), Expiring: expiring(s, a.now()), ExpiringOwn: endingOwn(s, a.now()), Joining: []armor.NodeID{},
		NotYetVoting: []armor.NodeID{},
	}
	v.Era, v.EraSince = max(s.Cluster.Era.Number, 1), stamp(s.Cluster.Era.Since)
	for _, n := range nodes {
		v.Revision = max(v.Revision, n.Revision)
		if n.Role == "leader" && n.Term >= v.Term {
			v.Leader, v.Term = n.Node, n.Term
		}
		if m, _ := s.Members.Get(string(n.Node)); m.Voter && n.Role == nonVoter {
			v.NotYetVoting = append(v.NotYetVoting, n.Node)
		}
	}
	for j := range s.Joins.Values() {
		if len(j.Chain) == 0 {
			v.Joining = append(v.Joining, j.Node)
		}
	}
	return v
}

func clusterPools(s *armor.State, nodes []nodeView) []clusterPoolView {
	pools := []clusterPoolView{}
	for key, p := range s.Pools.All() {
		v := clusterPoolView{Pool: key, Budget: p.Budget, Isolation: cmp.Or(p.Isolation, armor.IdentityWord), Nodes: []nodePoolView{},
			Withheld: withheldOf(key, nodes)}
		for _, share := range s.SharesOf(key) {
			v.Granted += share.Granted
		}
		for _, n := range nodes {
			for _, held := range n.Pools {
				if held.Pool == key {
					v.Open, v.Waiting = v.Open+held.Open, v.Waiting+held.Waiting
					v.Nodes = append(v.Nodes, nodePoolView{n.Node, held})
				}
			}
		}
		pools = append(pools, v)
	}
	return pools
}

// withheldOf is what the leader says is withheld of a pool, or any other node that answers.
func withheldOf(pool string, nodes []nodeView) []withheldView {
	var said nodeView
	for _, n := range nodes {
		if n.Unreachable == "" && (said.Node == "" || n.Role == "leader" && n.Term >= said.Term) {
			said = n
		}
	}
	all := []withheldView{}
	for _, w := range said.withheld {
		if w.Pool == pool {
			all = append(all, withheldView{w.Node, w.Count, w.Why, stampAfter(w.Until)})
		}
	}
	return all
}

// withheldTable shows what the budgets are short of; it is not shown when that is nothing.
func withheldTable(pools []clusterPoolView) table {
	t := table{columns: []string{"withheld", "of pool", "for node", "until", "why"}}
	for _, p := range pools {
		for _, w := range p.Withheld {
			t.row(fmt.Sprint(w.Count), p.Pool, string(w.Node), w.Until, w.Why)
		}
	}
	return t
}

func (a *app) statusTables(v statusView) []table {
	head := facts("",
		[2]string{"cluster", v.Cluster + " (" + v.ClusterID + ")"}, [2]string{"leader", leaderWords(v)},
		[2]string{"quorum", fmt.Sprintf("%s: %d of %d voters answer", yesNo(v.Quorum), v.VotersAnswering, v.Voters)},
		[2]string{"revision", fmt.Sprint(v.Revision)})
	if v.EraSince != "" {
		head.row("era:", fmt.Sprintf("%d, since %s: one node went on alone, and the others joined anew", v.Era, v.EraSince))
	}
	if v.LogTimeAhead {
		head.row("log time:", v.LogTime+", in the future, so that changes are refused: armorctl cluster mend-time")
	}
	for _, n := range v.Nodes {
		if advice := n.clockAdvice(); advice != "" {
			head.row("clock:", advice)
		}
	}
	for _, c := range v.ExpiringOwn {
		head.row(c.Kind+" certificate:", c.advice())
	}
	for _, n := range v.NotYetVoting {
		head.row("does not vote yet:", string(n)+", until it has served for a few seconds: the cluster survives the loss of fewer nodes until then")
	}
	for _, n := range v.Joining {
		head.row("waits to join:", fmt.Sprintf("%s (armorctl node approve %s --peer-ca DIR)", n, n))
	}
	certs := table{columns: []string{"expiring certificate", "environment", "owner", "serial", "expires"}}
	for i, c := range v.Expiring {
		if i == listedCerts {
			a.say("%s certificates expire within 30 days: armorctl cert list --expiring 30d", v.moreThan(i))
			break
		}
		certs.row(c.Identity, c.Environment, c.Owner, shortSerial(c.Serial), c.NotAfter)
	}
	return []table{head, nodeTable(v.Nodes), poolTable(v.Pools), withheldTable(v.Pools), certs}
}

// moreThan words how many certificates expire soon beside those that are listed.
func (v statusView) moreThan(listed int) string {
	if v.MoreExpiring {
		return fmt.Sprintf("more than %d more", len(v.Expiring)-listed)
	}
	return fmt.Sprintf("%d more", len(v.Expiring)-listed)
}

func leaderWords(v statusView) string {
	if v.Leader == "" {
		return "none"
	}
	return fmt.Sprintf("%s, term %d", v.Leader, v.Term)
}

func readyWord(notReady string) string {
	if notReady == "" {
		return "ready"
	}
	return "not ready: " + notReady
}
