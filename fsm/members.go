package fsm

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/armordb/armordb/armor"
)

const (
	// maxTokenLife bounds how long a leaked join token is worth something.
	maxTokenLife = 7 * 24 * time.Hour
	// joinLife is how long a join request waits for an operator.
	joinLife = 24 * time.Hour
)

// bootstrap is the first command of a log, and only the first.
func (d *draft) bootstrap(b armor.Bootstrap) error {
	if d.Cluster.ID != "" {
		return refuse(armor.ErrConflict, "the cluster is initialised: it is %s, created at %s", d.Cluster.Name, stamp(d.Cluster.CreatedAt))
	}
	if _, err := armor.ParseRequestID(b.Cluster.ID); err != nil {
		return refuse(armor.ErrInvalid, "cluster id %.40q is not 32 hex digits", b.Cluster.ID)
	}
	if err := firstError(
		armor.CheckName("cluster", b.Cluster.Name),
		checkDER("peer CA", b.Cluster.PeerCA),
	); err != nil {
		return err
	}
	if len(b.Cluster.NextPeerCA)+len(b.Cluster.Endorsement) > 0 {
		return refuse(armor.ErrInvalid, "a cluster begins with one peer CA")
	}
	d.Cluster = b.Cluster
	d.Cluster.CreatedAt, d.NextIndex = d.Time, 1
	if !b.Member.Voter {
		return refuse(armor.ErrInvalid, "the first member must be a voter")
	}
	if !b.Operator.Has(armor.CAAdmin) {
		return refuse(armor.ErrInvalid, "the first operator needs role %s", armor.CAAdmin)
	}
	if err := d.addMember(b.Member); err != nil {
		return err
	}
	return d.putOperator(b.Operator)
}

// addMember gives a node that may join its index, and its part of every pool.
func (d *draft) addMember(m armor.Member) error {
	if _, err := armor.ParseNodeID(string(m.ID)); err != nil {
		return err
	}
	if err := firstError(
		checkAddresses(m.PeerAddress, m.ClientAddress, m.OpsAddress),
		d.addressFree(m.ID, m.PeerAddress),
		describe(d.checkOwn(m.Certificate, d.Cluster.NodeIdentity(m.ID)), "node %s", m.ID),
		d.nodeIsNew(m.ID),
	); err != nil {
		return err
	}
	for _, other := range d.Members.All() {
		if other.Certificate.Key == m.Certificate.Key {
			return refuse(armor.ErrConflict, "node %s has the same key: each node makes its own", other.ID)
		}
	}
	if d.NextIndex > armor.MaxNodeIndex {
		return refuse(armor.ErrExhausted, "all %d node numbers of this cluster have been used", armor.MaxNodeIndex)
	}
	m.Index, m.AdmittedAt = d.NextIndex, d.Time
	d.NextIndex++
	put(d, armor.Members, m)
	return d.levelPools()
}

// nameIsFree is what a node that asks to join needs of its name. From level 7 on it may ask
// while the former node of that name is not over yet: it is admitted when that is.
func (d *draft) nameIsFree(n armor.NodeID) error {
	if d.level >= 7 && !d.Members.Has(string(n)) {
		return nil
	}
	return d.nodeIsNew(n)
}

func (d *draft) nodeIsNew(n armor.NodeID) error {
	if d.Members.Has(string(n)) {
		return refuse(armor.ErrConflict, "node %s is a member: if its machine is lost, replace it", n)
	}
	if t, found := d.Tombstones.Get(string(n)); found {
		return refuse(armor.ErrConflict,
			"node %s was removed at %s, and its server connections may not be over yet: try again later, or join under another id",
			n, stamp(t.RemovedAt))
	}
	return nil
}

func (d *draft) addressFree(n armor.NodeID, peer string) error {
	for _, m := range d.Members.All() {
		if m.ID != n && m.PeerAddress == peer {
			return refuse(armor.ErrConflict, "peer address %s is node %s's", peer, m.ID)
		}
	}
	return nil
}

func (d *draft) createJoinToken(t armor.JoinToken) error {
	t.By = d.by
	if old, had := d.Tokens.Get(t.Hash.String()); had {
		if !same(old, t) {
			return refuse(armor.ErrConflict, "that join token exists and is for node %s", old.Node)
		}
		return nil
	}
	if _, err := armor.ParseNodeID(string(t.Node)); err != nil {
		return err
	}
	switch {
	case t.Hash.IsZero():
		return refuse(armor.ErrInvalid, "join token for node %s has no hash", t.Node)
	case !t.Expires.After(d.Time):
		return refuse(armor.ErrInvalid, "join token for node %s is over at %s, and it is %s", t.Node, stamp(t.Expires), stamp(d.Time))
	case t.Expires.After(d.Time.Add(maxTokenLife)):
		return refuse(armor.ErrInvalid, "join token for node %s lives longer than %s", t.Node, maxTokenLife)
	}
	if err := d.nameIsFree(t.Node); err != nil {
		return err
	}
	put(d, armor.Tokens, t)
	return nil
}

// requestJoin spends a token and files the request. A retry that finds its token spent
// and its own request filed has succeeded.
func (d *draft) requestJoin(c armor.RequestJoin) error {
	r := c.Request
	if err := d.checkJoin(r); err != nil {
		return err
	}
	token, found := d.Tokens.Get(c.Token.String())
	switch {
	case !found:
		if filed, had := d.Joins.Get(string(r.Node)); had && sameJoin(filed, r) {
			return nil
		}
		return refuse(armor.ErrDenied, "the join token is unknown or was used: ask an operator for a new one")
	case token.Node != r.Node:
		return refuse(armor.ErrDenied, "the join token is not for node %q", r.Node)
	case token.Expires.Before(d.Time):
		return refuse(armor.ErrExpired,
			"the join token for node %s was good until %s: ask an operator for a new one", r.Node, stamp(token.Expires))
	}
	if err := d.nameIsFree(r.Node); err != nil {
		return err
	}
	r.Voter, r.At, r.Chain = token.Voter, d.Time, nil
	remove(d, armor.Tokens, token)
	put(d, armor.Joins, r)
	return nil
}

func (d *draft) checkJoin(r armor.JoinRequest) error {
	if _, err := armor.ParseNodeID(string(r.Node)); err != nil {
		return err
	}
	return firstError(
		checkDER("certificate request of node "+string(r.Node), r.CSR),
		checkAddresses(r.PeerAddress, r.ClientAddress, r.OpsAddress),
		d.addressFree(r.Node, r.PeerAddress),
	)
}

func sameJoin(filed, r armor.JoinRequest) bool {
	return bytes.Equal(filed.CSR, r.CSR) && filed.PeerAddress == r.PeerAddress &&
		filed.ClientAddress == r.ClientAddress && filed.OpsAddress == r.OpsAddress
}

// approveJoin admits the node that asked. Its request stays, with the chain, so that
// the node can fetch its certificate.
func (d *draft) approveJoin(c armor.ApproveJoin) error {
	if err := checkIssued(c.Node, c.Certificate, c.Chain); err != nil {
		return err
	}
	request, found := d.Joins.Get(string(c.Node))
	if !found {
		return refuse(armor.ErrNotFound, "node %q has not asked to join", c.Node)
	}
	if len(request.Chain) > 0 {
		if !same(request.Chain, c.Chain) {
			return refuse(armor.ErrConflict, "node %s was admitted with another certificate", c.Node)
		}
		return nil
	}
	request.Chain = c.Chain
	put(d, armor.Joins, request)
	return d.addMember(armor.Member{
		ID: c.Node, Certificate: c.Certificate, Voter: request.Voter,
		PeerAddress: request.PeerAddress, ClientAddress: request.ClientAddress, OpsAddress: request.OpsAddress,
	})
}

func checkIssued(node armor.NodeID, leaf armor.Certificate, chain [][]byte) error {
	if len(chain) == 0 || len(chain) > maxChain {
		return refuse(armor.ErrInvalid, "the chain of node %q has %d certificates; 1 to %d are taken", node, len(chain), maxChain)
	}
	for _, der := range chain {
		if err := checkDER("a certificate of the chain", der); err != nil {
			return err
		}
	}
	if sha256.Sum256(chain[0]) != leaf.Fingerprint {
		return refuse(armor.ErrInvalid, "the chain of node %q does not begin with certificate %s", node, leaf.ID.Serial)
	}
	return nil
}

// renewMember replaces a node's certificate, and not its key: with another key it would be
// another node. A certificate that ends earlier is one of a retry that comes late.
func (d *draft) renewMember(c armor.RenewMember) error {
	m, found := d.Members.Get(string(c.Node))
	if !found {
		return refuse(armor.ErrNotFound, "there is no node %q", c.Node)
	}
	if err := firstError(
		checkIssued(c.Node, c.Certificate, c.Chain),
		describe(d.checkOwn(c.Certificate, d.Cluster.NodeIdentity(c.Node)), "node %s", c.Node),
	); err != nil {
		return err
	}
	switch {
	case c.Certificate.Key != m.Certificate.Key:
		return refuse(armor.ErrConflict, "node %s has another key than the certificate: a node keeps its key, and with another one it is replaced", c.Node)
	case c.Certificate == m.Certificate:
	case d.level >= 8 && c.Certificate.ID.Issuer != m.Certificate.ID.Issuer: // whenever it ends
	case !c.Certificate.NotAfter.After(m.Certificate.NotAfter):
		return refuse(armor.ErrConflict, "the certificate of node %s is good until %s already", c.Node, stamp(m.Certificate.NotAfter))
	}
	m.Certificate, m.Chain = c.Certificate, c.Chain
	put(d, armor.Members, m)
	return nil
}

// removeMember takes a node out. What it holds stays counted until its tombstone is
// buried: the node may not know yet, and its server connections may still be open. Its
// key is revoked, so that nobody is that node again with it.
func (d *draft) removeMember(c armor.RemoveMember) error {
	member, found := d.Members.Get(string(c.Node))
	if !found {
		if t, removed := d.Tombstones.Get(string(c.Node)); removed {
			t.SharesSettled = t.SharesSettled || c.SharesSettled
			put(d, armor.Tombstones, t)
			return nil
		}
		return refuse(armor.ErrNotFound, "there is no node %q", c.Node)
	}
	before := d.strength()
	remove(d, armor.Members, member)
	remove(d, armor.Joins, armor.JoinRequest{Node: c.Node})
	tombstone := armor.Tombstone{ID: c.Node, RemovedAt: d.Time, SharesSettled: c.SharesSettled}
	if d.level >= 7 {
		tombstone.FormerKey = d.revokeRemoved(member)
	}
	put(d, armor.Tombstones, tombstone)
	after := d.strength()
	if after.voters == 0 {
		return refuse(armor.ErrConflict, "node %s is the last voter", c.Node)
	}
	if err := before.mayBecome(after); err != nil {
		return err
	}
	return d.levelPools()
}

// replaceMember removes a node and invites another of its name, or does neither.
func (d *draft) replaceMember(c armor.ReplaceMember) error {
	if c.Token.Node != c.Node {
		return refuse(armor.ErrInvalid, "node %q is replaced, and the join token is for node %q", c.Node, c.Token.Node)
	}
	if err := d.removeMember(armor.RemoveMember{Node: c.Node, SharesSettled: c.SharesSettled}); err != nil {
		return err
	}
	return d.createJoinToken(c.Token)
}

// revokeRemoved revokes the key of a member that goes. It returns the key, with which the node may
// say its last word; none when its certificate was revoked before.
func (d *draft) revokeRemoved(m armor.Member) armor.Digest {
	_, revoked := d.RevokesOwn(m.Certificate)
	put(d, armor.Revoked, d.widened(armor.Revoke{
		Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: m.Certificate.Key}},
		Reason:    armor.CessationOfOperation, Comment: "node " + string(m.ID) + " was removed",
	})...)
	if revoked {
		return armor.Digest{}
	}
	return m.Certificate.Key
}

func (d *draft) setMemberAddresses(c armor.SetMemberAddresses) error {
	m, found := d.Members.Get(string(c.Node))
	if !found {
		return refuse(armor.ErrNotFound, "there is no node %q", c.Node)
	}
	if err := firstError(
		checkAddresses(c.PeerAddress, c.ClientAddress, c.OpsAddress),
		d.addressFree(c.Node, c.PeerAddress),
	); err != nil {
		return err
	}
	m.PeerAddress, m.ClientAddress, m.OpsAddress = c.PeerAddress, c.ClientAddress, c.OpsAddress
	put(d, armor.Members, m)
	return nil
}

// buryTombstones forgets removed members; the proposer vouches that their leases and
// server connections are over, so what they held is free for the others.
func (d *draft) buryTombstones(c armor.BuryTombstones) error {
	for _, n := range c.Nodes {
		if !remove(d, armor.Tombstones, armor.Tombstone{ID: n}) {
			continue
		}
		for share := range d.Shares.Values() {
			if share.Node == n {
				remove(d, armor.Shares, share)
			}
		}
	}
	return d.levelPools()
}

// pruneExpired drops tokens, unanswered join requests and staged parts that were over
// before At; a proposer whose clock is ahead drops nothing that is good by log time.
func (d *draft) pruneExpired(c armor.PruneExpired) error {
	if c.At.After(d.Time) {
		c.At = d.Time
	}
	for t := range d.Tokens.Values() {
		if t.Expires.Before(c.At) {
			remove(d, armor.Tokens, t)
		}
	}
	for j := range d.Joins.Values() {
		if len(j.Chain) == 0 && j.At.Add(joinLife).Before(c.At) {
			remove(d, armor.Joins, j)
		}
	}
	for p := range d.Staged.Values() {
		if p.At.Add(armor.StagedLife).Before(c.At) {
			remove(d, armor.Staged, p)
		}
	}
	return nil
}
