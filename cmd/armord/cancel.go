package main

import (
	"context"
	"net/netip"
	"sync"

	"github.com/armordb/armordb/armor"
)

// Cancel carries a cancel request to the node that holds the session, wherever the
// load balancer has let the request in. Our own sessions come first; then the one or two
// nodes that the key may name are asked, and only the one that made the key knows it. A
// guess at a key of protocol 3.2 costs other nodes nothing (tlsedge.Canceler).
func (n *node) Cancel(ctx context.Context, key armor.CancelKey, source netip.AddrPort, plaintext bool) {
	if (*api)(n).Cancel(ctx, key, plaintext) || !key.Genuine(n.cancelSigner) {
		return
	}
	state, _ := n.cluster.Current()
	var asked sync.WaitGroup
	for _, id := range otherHolders(state, key, armor.NodeID(n.cfg.Node)) {
		asked.Go(func() {
			found, err := n.peers.Cancel(ctx, id, key, plaintext)
			if err != nil {
				n.log.Info("cancel request not passed on", armor.KeyPeer, string(id), armor.KeySource, source.String(), armor.KeyErr, err)
				return
			}
			n.log.Debug("cancel request passed on", armor.KeyPeer, string(id), armor.KeySource, source.String(), armor.KeyCount,
				map[bool]int{true: 1}[found])
		})
	}
	asked.Wait()
}

// cancelTLSOnly is what the pooler asks: see armor.Environment.
func (n *node) cancelTLSOnly(environment string) bool {
	state, _ := n.cluster.Current()
	e, _ := state.Environments.Get(environment)
	return e.Cancel == armor.CancelTLSOnly
}

// otherHolders are the nodes that may have made a key, without this one.
func otherHolders(state *armor.State, key armor.CancelKey, self armor.NodeID) []armor.NodeID {
	transaction, session := key.Nodes()
	var all []armor.NodeID
	for m := range state.Members.Values() {
		if m.ID != self && (m.Index == transaction || m.Index == session) {
			all = append(all, m.ID)
		}
	}
	return all
}
