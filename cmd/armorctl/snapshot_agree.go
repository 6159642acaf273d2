package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

const (
	// attestPatience is how long a node may take to come to a revision that another has.
	attestPatience = 10 * time.Second
	attestPoll     = 100 * time.Millisecond
)

// attested is a state whose place in the cluster's history is asked about.
type attested struct {
	state  *armor.State
	mark   armor.Mark
	places []string // where nodes are beside the state's members: a state may name too few
}

// attestingView is what one node says of a revision.
type attestingView struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Agrees  bool   `json:"agrees"`
	Differs bool   `json:"differs"`
	Problem string `json:"problem,omitempty"`
}

func (v attestingView) words() string {
	if v.Agrees {
		return "the same"
	}
	return v.Problem
}

// agreedBy asks every voter of the state, and whoever else is known to be a node, for its
// mark at the state's revision. Each answers for itself, by its own certificate: the node
// that sent the state is believed about no other.
func (a *app) agreedBy(ctx context.Context, client *rpc.Client, s attested, v *savedView) error {
	v.Nodes = s.askedOf()
	var asking sync.WaitGroup
	for i := range v.Nodes {
		asking.Go(func() { s.ask(ctx, client, &v.Nodes[i]) })
	}
	asking.Wait()
	var differ []string
	for _, n := range v.Nodes {
		if n.Differs {
			differ = append(differ, fmt.Sprintf("node %s (%s): %s", n.Node, n.Address, n.Problem))
		}
		if n.Voter {
			v.Voters++
		}
		if n.Voter && n.Agrees {
			v.Agree++
		}
	}
	switch {
	case len(differ) > 0:
		return &verdict{exitProblems, fmt.Sprintf(
			"node %s sent revision %d with history %s and state %s, and others have another: %s; nothing was saved",
			v.SavedBy, v.Revision, v.History, v.State, strings.Join(differ, "; "))}
	case 2*v.Agree <= v.Voters:
		return fmt.Errorf("%w: %d of %d voters say that they have the same state at revision %d%s; nothing was saved",
			armor.ErrNoQuorum, v.Agree, v.Voters, v.Revision, silences(v.Nodes))
	}
	return nil
}

func silences(nodes []attestingView) string {
	text := ""
	for _, n := range nodes {
		if n.Voter && !n.Agrees {
			text += fmt.Sprintf("; node %s: %s", n.Node, n.Problem)
		}
	}
	return text
}

// askedOf are the nodes to ask, by their addresses.
func (s attested) askedOf() []attestingView {
	nodes := []attestingView{}
	for m := range s.state.Members.Values() {
		nodes = append(nodes, attestingView{Node: string(m.ID), Address: m.PeerAddress, Voter: m.Voter})
	}
	for _, address := range s.places {
		if !slices.ContainsFunc(nodes, func(n attestingView) bool { return n.Address == address }) {
			nodes = append(nodes, attestingView{Address: address})
		}
	}
	return nodes
}

// ask has one node say where it stood. A place that is only known by its address may be
// another name of a member, or nobody's.
func (s attested) ask(ctx context.Context, client *rpc.Client, v *attestingView) {
	ctx, cancel := context.WithTimeout(ctx, attestPatience)
	defer cancel()
	for {
		node, a, err := client.Attest(ctx, v.Address, s.mark.Revision)
		v.Problem = s.judge(v, node, a, err)
		if err != nil || !a.Mark.IsZero() || v.Problem == "" {
			return
		}
		if !pauseFor(ctx, attestPoll) { // it may be a little behind
			return
		}
	}
}

func (s attested) judge(v *attestingView, node armor.NodeID, a armor.Attestation, err error) string {
	expected := v.Node
	v.Node = cmp.Or(v.Node, string(node))
	switch {
	case err != nil:
		return "not asked: " + oneLine(err.Error())
	case expected != "" && string(node) != expected:
		return fmt.Sprintf("node %s is there instead", node)
	case a.Mark.IsZero():
		return "it has not come to this revision, or has forgotten it"
	case a.Mark != s.mark:
		v.Differs = true
		return fmt.Sprintf("it has history %s, state %s", a.Mark.Chain, a.Mark.State)
	}
	v.Agrees = true
	return ""
}
