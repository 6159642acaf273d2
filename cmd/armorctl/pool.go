package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) poolCommand() *cobra.Command {
	cmd := group("pool", "the pools, and what operators switch at them",
		a.poolListCommand(), a.poolShowCommand(),
		a.poolOrderCommand(armor.PausePool, "let running transactions end, and have new ones wait"),
		a.poolOrderCommand(armor.ResumePool, "undo pause and kill"),
		a.poolOrderCommand(armor.ReconnectPool, "replace each server connection once it is not in use"),
		a.poolOrderCommand(armor.KillPool, "end all sessions of a pool now, and pause it"),
		a.poolOrderCommand(armor.DisablePool, "refuse new clients; those that are there stay"),
		a.poolOrderCommand(armor.EnablePool, "undo disable"),
	)
	cmd.Long = `Acts on a pool at every node that answers. What is switched is no part of the cluster's
configuration: a node forgets it when it restarts, and a node that does not answer, or that
joins later, does not have it. Needs the role node-admin.`
	return cmd
}

func (a *app) poolListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the pools and what each node has of them", Example: "  armorctl pool list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pools, err := a.fetchPools(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(answer{data: pools, tables: []table{poolTable(pools), withheldTable(pools)}})
		},
	}
}

func (a *app) poolShowCommand() *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: "show NAME", Short: "show one pool", Example: "  armorctl pool show orders --environment production", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			pools, err := a.fetchPools(cmd.Context())
			if err != nil {
				return err
			}
			pool, err := poolNamed(pools, args[0], environment)
			if err != nil {
				return err
			}
			return a.show(answer{data: pool, tables: []table{poolTable([]clusterPoolView{pool}), withheldTable([]clusterPoolView{pool})}})
		},
	}
	environmentFlag(cmd, &environment)
	return cmd
}

func environmentFlag(cmd *cobra.Command, environment *string) {
	cmd.Flags().StringVar(environment, "environment", "", "the pool's `environment`, where several have one of that name")
}

// fetchPools asks the cluster for all pools, and every node for what it has of them.
func (a *app) fetchPools(ctx context.Context) ([]clusterPoolView, error) {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return poolsOf(ctx, client)
}

func poolsOf(ctx context.Context, client *rpc.Client) ([]clusterPoolView, error) {
	state, err := client.State(ctx, armor.Pools, armor.Shares)
	if err != nil {
		return nil, err
	}
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return clusterPools(state, nodeViews(nodes)), nil
}

// poolNamed finds a pool by its name, or as lists show it: environment/name. The environment
// may be left out when it is the only one.
func poolNamed(pools []clusterPoolView, name, environment string) (clusterPoolView, error) {
	var found []clusterPoolView
	if i := slices.IndexFunc(pools, func(p clusterPoolView) bool { return p.Pool == name }); i >= 0 {
		if of, _, _ := strings.Cut(name, "/"); environment == "" || environment == of {
			return pools[i], nil
		}
	}
	for _, p := range pools {
		if env, pool, _ := strings.Cut(p.Pool, "/"); pool == name && (environment == "" || env == environment) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return clusterPoolView{}, fault.Hinted(fmt.Errorf("%w: there is no pool %q", armor.ErrNotFound, name), "armorctl pool list")
	}
	return clusterPoolView{}, &fault.Usage{Err: fmt.Errorf("%d environments have a pool %q: say --environment", len(found), name)}
}

// poolTable shows pools, each with the nodes that answered.
func poolTable(pools []clusterPoolView) table {
	t := table{columns: []string{"pool", "node", "share", "open", "idle", "waiting", "state"}, empty: "no pools"}
	for _, p := range pools {
		t.row(p.Pool, "all", fmt.Sprintf("%d of %d", p.Granted, p.Budget), fmt.Sprint(p.Open), "", fmt.Sprint(p.Waiting), p.sharing())
		for _, n := range p.Nodes {
			t.row("", string(n.Node), fmt.Sprint(n.Limit), fmt.Sprint(n.Open), fmt.Sprint(n.Idle), fmt.Sprint(n.Waiting), n.stateWords())
		}
	}
	return t
}

// sharing says that sessions of the pool's clients are not kept apart.
func (v clusterPoolView) sharing() string {
	if v.Isolation == armor.NoIsolation {
		return "isolation: none"
	}
	return ""
}

// stateWords tells people what a pool does on one node.
func (v poolView) stateWords() string {
	words := readyWord(v.NotReady)
	if v.Paused {
		words += ", paused"
	}
	if v.Disabled {
		words += ", disabled"
	}
	if v.Pinned > 0 {
		words += fmt.Sprintf(", %d pinned", v.Pinned)
	}
	if v.Withheld > 0 {
		words += fmt.Sprintf(", withheld %d: server connections of the node's former life", v.Withheld)
	}
	return words
}

// orderView is the answer of pool pause and its like.
type orderView struct {
	Verb  armor.PoolVerb    `json:"verb"`
	Pool  string            `json:"pool"`
	Nodes []orderResultView `json:"nodes"`
}

type orderResultView struct {
	Node    armor.NodeID `json:"node"`
	Failure string       `json:"failure,omitempty"` // why it did not; the rest is then empty
	poolView
}

func (a *app) poolOrderCommand(verb armor.PoolVerb, short string) *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: string(verb) + " NAME", Short: short, Example: fmt.Sprintf("  armorctl pool %s orders --environment production",
			verb), Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			return a.orderPool(cmd.Context(), client, verb, args[0], environment)
		},
	}
	environmentFlag(cmd, &environment)
	return cmd
}

// orderPool gives every node an order. Pause and kill are over when no server
// connection is open any more.
func (a *app) orderPool(ctx context.Context, client *rpc.Client, verb armor.PoolVerb, name, environment string) error {
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	pools, err := poolsOf(reading, client)
	if err != nil {
		return err
	}
	pool, err := poolNamed(pools, name, environment)
	if err != nil {
		return err
	}
	order := armor.PoolOrder{Verb: verb}
	order.Environment, order.Pool, _ = strings.Cut(pool.Pool, "/")
	if verb == armor.KillPool {
		if err := a.confirmKill(reading, client, order); err != nil {
			return err
		}
	}
	ctx, cancel = a.within(ctx, patience)
	defer cancel()
	results, err := client.Order(ctx, order)
	if err != nil {
		return err
	}
	v := viewOfOrder(order, results)
	if verb == armor.PausePool || verb == armor.KillPool {
		awaitClosed(ctx, client, &v)
	}
	return errors.Join(a.show(answer{data: v, tables: []table{orderTable(v)}}), verdictOfOrder(v))
}

// confirmKill lists what will be cut, and asks.
func (a *app) confirmKill(ctx context.Context, client *rpc.Client, order armor.PoolOrder) error {
	survey, err := client.Sessions(ctx)
	if err != nil {
		return err
	}
	a.reportSilent(silentIn(survey))
	sessions := 0
	for _, s := range survey.Sessions {
		if s.Environment == order.Environment && s.Pool == order.Pool {
			sessions++
		}
	}
	a.say("pool %s has %d sessions", order.Key(), sessions)
	return a.confirm(ctx, order.Pool)
}

func viewOfOrder(order armor.PoolOrder, results []rpc.OrderResult) orderView {
	v := orderView{Verb: order.Verb, Pool: order.Key(), Nodes: []orderResultView{}}
	for _, r := range results {
		v.Nodes = append(v.Nodes, orderResultView{Node: r.Node, Failure: r.Failure, poolView: poolView(r.Pool)})
	}
	return v
}

// settlePause is how long armorctl waits before it looks again at server connections
// that are still open.
const settlePause = 200 * time.Millisecond

// awaitClosed looks again until no node that obeyed has a server connection open, or
// ctx ends. The view keeps what was seen last.
func awaitClosed(ctx context.Context, client *rpc.Client, v *orderView) {
	for v.open() > 0 {
		if !pauseFor(ctx, settlePause) {
			return
		}
		nodes, err := client.Nodes(ctx)
		if err != nil {
			return
		}
		v.update(nodes)
	}
}

func (v *orderView) open() (n int) {
	for _, node := range v.Nodes {
		n += node.Open
	}
	return n
}

func (v *orderView) update(nodes []armor.NodeStatus) {
	for i := range v.Nodes {
		for _, n := range nodes {
			for _, p := range n.Pools {
				if n.Node == v.Nodes[i].Node && p.Pool == v.Pool && v.Nodes[i].Failure == "" {
					v.Nodes[i].poolView = poolView(p)
				}
			}
		}
	}
}

func orderTable(v orderView) table {
	t := table{columns: []string{"node", "open", "idle", "waiting", "state"}}
	for _, n := range v.Nodes {
		if n.Failure != "" {
			t.row(string(n.Node), "", "", "", "failed: "+n.Failure)
			continue
		}
		t.row(string(n.Node), fmt.Sprint(n.Open), fmt.Sprint(n.Idle), fmt.Sprint(n.Waiting), n.stateWords())
	}
	return t
}

// verdictOfOrder is what the exit code says: done everywhere, or not.
func verdictOfOrder(v orderView) error {
	failed := 0
	for _, n := range v.Nodes {
		if n.Failure != "" {
			failed++
		}
	}
	switch {
	case failed == len(v.Nodes):
		return &verdict{exitFailed, fmt.Sprintf("no node did %s pool %s", v.Verb, v.Pool)}
	case failed > 0:
		return &verdict{exitUnconfirmed, fmt.Sprintf("%d of %d nodes did not %s pool %s", failed, len(v.Nodes), v.Verb, v.Pool)}
	case (v.Verb == armor.PausePool || v.Verb == armor.KillPool) && v.open() > 0:
		return &verdict{exitUnconfirmed, fmt.Sprintf("pool %s is paused everywhere; %d server connections are still in use", v.Pool, v.open())}
	}
	return nil
}
