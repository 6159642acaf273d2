package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

// What clients do at the fake, and what it remembers of them.

// client makes the facts of a client with the certificate in a folder of cert issue.
func (n *fakeNode) client(dir, database, role string) (armor.Facts, error) {
	certs, err := issue.Certificates(filepath.Join(dir, issue.CertFile))
	if err != nil {
		return armor.Facts{}, err
	}
	state, _ := n.machine.Current()
	verifier, err := pki.NewVerifier(slices.Collect(state.Anchors.Values()))
	if err != nil {
		return armor.Facts{}, err
	}
	chains, err := verifier.Verify(certs, time.Now())
	if err != nil {
		return armor.Facts{}, err
	}
	return armor.Facts{
		Peer:     armor.Peer{Leaf: pki.Facts(certs[0], chains[0][0].Key), Chains: chains, Source: netip.MustParseAddrPort("10.2.0.7:50123")},
		Database: database, Role: role,
	}, nil
}

// arrive lets a client in as a live session, or records why not under the given id.
func (n *fakeNode) arrive(id, dir, database, role string) error {
	f, err := n.client(dir, database, role)
	if err != nil {
		return err
	}
	state, _ := n.machine.Current()
	access, denial := state.Decide(f, time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	if denial != nil {
		n.denials[id] = armor.DenialRecord{Denial: *denial.WithID(id), Node: n.ID(), At: time.Now(), Facts: f, Revision: state.Revision}
		return nil
	}
	n.sessions = append(n.sessions, armor.SessionInfo{
		ID: uint64(len(n.sessions) + 1), Node: n.ID(), Certificate: f.Peer.Leaf, Environment: access.Environment, Source: f.Peer.Source,
		Database: database, Role: role, Pool: access.Pool.Name, Since: time.Now(), State: "idle",
	})
	return nil
}

// join files a new node's request with a token's text.
func (n *fakeNode) join(text string) error {
	token, err := rpc.ParseJoinToken(text)
	if err != nil {
		return err
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key, pki.NodeIdentity(fakeCluster, token.Node))
	if err != nil {
		return err
	}
	_, err = n.ProposeOwn(context.Background(), armor.RequestJoin{Token: token.Hash(), Request: armor.JoinRequest{
		Node: token.Node, CSR: csr, PeerAddress: string(token.Node) + ":6433", ClientAddress: string(token.Node) + ":6432",
	}})
	return err
}

func (n *fakeNode) Refusals(source netip.Addr, most int) armor.SourceRefusals {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := armor.SourceRefusals{}
	for _, d := range n.denials {
		if d.Facts.Peer.Source.Addr() == source && len(r.Denials) < most {
			r.Denials = append(r.Denials, d)
		}
	}
	for _, u := range n.unproven {
		if u.Source.Addr() == source {
			r.Unproven = append(r.Unproven, u)
		}
	}
	return r
}
