package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

// watchPeriod is how often a revocation that takes its time is looked after. The first
// look comes one period after its beginning, when most are over.
const watchPeriod = 400 * time.Millisecond

// watch tells people which nodes enforce a revocation while it is being waited for. It
// ends with ctx, and says nothing of what it cannot find out.
func (a *app) watch(ctx context.Context, client *rpc.Client, r revocation) {
	told := map[armor.NodeID]bool{}
	committed := uint64(0)
	for ticks := time.NewTicker(watchPeriod); ; {
		select {
		case <-ctx.Done():
			ticks.Stop()
			return
		case <-ticks.C:
		}
		if committed == 0 {
			if committed = r.committedAs(ctx, client); committed != 0 {
				a.say("committed as revision %d; waiting for every node to enforce it", committed)
			}
		}
		if committed != 0 {
			a.tellNodes(ctx, client, committed, told)
		}
	}
}

// committedAs returns the revision of the revocation once it is in the state.
func (r revocation) committedAs(ctx context.Context, client *rpc.Client) uint64 {
	state, _, err := client.Ask(ctx, armor.Question{Selectors: r.command.Selectors[:1]}, armor.Revoked)
	if err != nil || r.state.Revision == 0 { // then nobody knows what was there before
		return 0
	}
	found, ok := state.Revocations.Get(r.command.Selectors[0].SelectorKey())
	if !ok || found.Revision <= r.state.Revision {
		return 0
	}
	return found.Revision
}

// tellNodes names each node once: when it enforces the revision, or does not answer.
func (a *app) tellNodes(ctx context.Context, client *rpc.Client, revision uint64, told map[armor.NodeID]bool) {
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return
	}
	var news []string
	for _, n := range nodes {
		enforced := n.Unreachable == "" && n.Enforced >= revision
		if told[n.Node] || !enforced && n.Unreachable == "" {
			continue
		}
		told[n.Node] = true
		if enforced {
			news = append(news, fmt.Sprintf("%s enforces it", n.Node))
		} else {
			news = append(news, fmt.Sprintf("%s does not answer", n.Node))
		}
	}
	if len(news) > 0 {
		a.say("%s", strings.Join(news, "\n"))
	}
}
