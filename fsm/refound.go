package fsm

import (
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// eraLevel is the level from which on a state may be in an era that is not the first.
const eraLevel = 8

// Refounding begins a new era of a cluster: one node goes on alone from a state, whatever
// became of the others. It is no command. Whoever leads could append one, and a stolen key
// would be a way to throw everybody out; so it is done to a state outside of any log, by an
// act on the one machine, and reaches others as a snapshot of the node that they join.
type Refounding struct {
	EraID string // random, 32 hex digits
	// Revision is the new era's first, and Term the one that it is of: both later than any
	// of the state's.
	Revision, Term uint64
	// Member goes on. When it is a member already, with this key, it stays the one that it was.
	Member armor.Member
	Now    time.Time
	// MendTime takes log time, which is in the future, back to Now and one request's life more.
	MendTime bool
	// Revoke are revocations that are known from elsewhere; none of those that are there goes.
	Revoke []armor.Revocation
}

// Refound returns what a snapshot becomes as the first state of a new era. Nobody has more
// access by it: every other member is removed, as RemoveMember does it, and so is a former node of
// the member's name; invitations lapse; and no removed node may say a last word, since it
// says what another era has told it. What they hold of pools stays withheld until
// PostgreSQL or an operator has settled it.
func (s Snapshot) Refound(r Refounding) (Snapshot, error) {
	next, err := s.version.world.refound(r)
	if err != nil {
		return Snapshot{}, fmt.Errorf("begin a new era after revision %d: %w", s.Revision(), err)
	}
	name := armor.Canonical(struct {
		Format string
		Era    armor.Era
		Node   armor.NodeID
	}{"armor era v1", next.state.Cluster.Era, r.Member.ID})
	return Snapshot{&version{world: next, chain: link(s.version.chain, r.Revision, r.Term, name)}}, nil
}

func (w *world) refound(r Refounding) (*world, error) {
	d := w.edit()
	if err := d.mayBeRefounded(r); err != nil {
		return nil, err
	}
	d.Revision, d.term, d.level, d.by = r.Revision, r.Term, eraLevel, armor.NodePrincipal(r.Member.ID)
	if err := d.setEraTime(r); err != nil {
		return nil, err
	}
	ended := max(d.Cluster.Era.Number, 1)
	d.Cluster.Era = armor.Era{Number: d.Cluster.Era.Next(), ID: r.EraID, Since: d.Time}
	if err := d.unite(r.Revoke); err != nil {
		return nil, err
	}
	if by, revoked := d.RevokesOwn(r.Member.Certificate); revoked {
		return nil, refuse(armor.ErrRevoked, "the certificate of node %s: %s is revoked", r.Member.ID, by.Selector)
	}
	if err := d.goOnAlone(r.Member, ended); err != nil {
		return nil, err
	}
	d.dropInvitations()
	d.configured = d.Revision // what was planned in another era is planned again
	if err := d.levelPools(); err != nil {
		return nil, err
	}
	return d.finish(), nil
}

func (d *draft) mayBeRefounded(r Refounding) error {
	_, badID := armor.ParseRequestID(r.EraID)
	switch {
	case d.Cluster.ID == "":
		return refuse(armor.ErrInvalid, "the state is of no cluster")
	case badID != nil:
		return refuse(armor.ErrInvalid, "era id %.40q is not 32 hex digits", r.EraID)
	case r.Revision <= d.Revision:
		return refuse(armor.ErrInvalid, "revision %d is not after %d", r.Revision, d.Revision)
	}
	if _, err := armor.ParseNodeID(string(r.Member.ID)); err != nil {
		return err
	}
	if err := firstError(
		checkAddresses(r.Member.PeerAddress, r.Member.ClientAddress, r.Member.OpsAddress),
		checkCertificate(r.Member.Certificate, false),
	); err != nil {
		return err
	}
	if want := d.Cluster.NodeIdentity(r.Member.ID); r.Member.Certificate.Identity != want {
		return refuse(armor.ErrInvalid, "node %s has a certificate of %q, and %q is needed", r.Member.ID, r.Member.Certificate.Identity, want)
	}
	return nil
}

// setEraTime never takes log time back by itself: what was signed before could run again.
func (d *draft) setEraTime(r Refounding) error {
	now := r.Now.UTC().Round(0)
	mended := now.Add(armor.RequestWindow)
	switch {
	case r.MendTime && !d.Time.After(mended):
		return refuse(armor.ErrConflict, "log time is %s, and it is %s: there is nothing to mend", stamp(d.Time), stamp(now))
	case r.MendTime:
		d.takeTimeBack(mended)
	case now.After(d.Time):
		d.Time = now
	}
	d.forgetOver()
	return nil
}

// unite adds revocations that are known from elsewhere.
func (d *draft) unite(known []armor.Revocation) error {
	for _, r := range known {
		_, badReason := armor.ParseRevocationReason(string(r.Reason))
		if err := firstError(
			r.Selector.Validate(), badReason,
			armor.CheckText("comment", r.Comment, maxComment, false),
			armor.CheckText("who revoked it", r.By, armor.MaxText, false),
		); err != nil {
			return describe(err, "revocation of %s", r.Selector)
		}
		r.Revision = d.Revision
		if old, had := d.Revocations.Get(r.Selector.SelectorKey()); had {
			r = strictest(old, r)
		}
		change(d, armor.Revoked, r)
	}
	return nil
}

// strictest is what takes away all that two revocations of one selector's key do.
func strictest(old, other armor.Revocation) armor.Revocation {
	strict, widest := old, old.Selector
	if wider(other.Selector, old.Selector) {
		strict, widest = other, other.Selector
	}
	switch {
	case old.LeavesDoubt() && other.LeavesDoubt():
		if strict = old; other.At.After(old.At) {
			strict = other
		}
	case old.LeavesDoubt():
		strict = old
	case other.LeavesDoubt():
		strict = other
	}
	strict.Selector = widest
	return strict
}

// goOnAlone makes one member the only one. ended is the number of the era that is over.
func (d *draft) goOnAlone(m armor.Member, ended uint32) error {
	former, was := d.Members.Get(string(m.ID))
	stays := was && former.Certificate.Key == m.Certificate.Key
	for other := range d.Members.Values() {
		if other.ID == m.ID && stays {
			continue
		}
		if other.Certificate.Key == m.Certificate.Key {
			return refuse(armor.ErrConflict, "node %s has the same key: each node makes its own", other.ID)
		}
		remove(d, armor.Members, other)
		d.revokeRemoved(other)
		put(d, armor.Tombstones, armor.Tombstone{ID: other.ID, RemovedAt: d.Time})
	}
	for t := range d.Tombstones.Values() {
		t.FormerKey = armor.Digest{}
		if t.ID == m.ID {
			d.setAside(t, ended)
			continue
		}
		change(d, armor.Tombstones, t)
	}
	m.Voter = true
	switch {
	case stays:
		m.Index, m.AdmittedAt = former.Index, former.AdmittedAt
	case d.NextIndex > armor.MaxNodeIndex:
		return refuse(armor.ErrExhausted, "all %d node numbers of this cluster have been used", armor.MaxNodeIndex)
	default:
		m.Index, m.AdmittedAt = d.NextIndex, d.Time
		d.NextIndex++
	}
	put(d, armor.Members, m)
	return nil
}

// setAside keeps what a former node of the member's name holds under another name: shares are
// kept by name, and one node's must not pass for another's.
func (d *draft) setAside(t armor.Tombstone, ended uint32) {
	former := t.ID
	remove(d, armor.Tombstones, t)
	t.ID = d.nameAside(former, ended)
	put(d, armor.Tombstones, t)
	for share := range d.Shares.Values() {
		if share.Node == former {
			remove(d, armor.Shares, share)
			share.Node = t.ID
			put(d, armor.Shares, share)
		}
	}
}

// maxNodeName is what armor.ParseNodeID takes.
const maxNodeName = 63

func (d *draft) nameAside(n armor.NodeID, ended uint32) armor.NodeID {
	for i := 1; ; i++ {
		suffix := fmt.Sprintf("-era-%d", ended)
		if i > 1 {
			suffix += fmt.Sprintf("-%d", i)
		}
		name := string(n)[:min(len(n), maxNodeName-len(suffix))] + suffix
		if !d.Members.Has(name) && !d.Tombstones.Has(name) {
			return armor.NodeID(name)
		}
	}
}

// dropInvitations drops what waits for somebody: whoever was to join, or to revoke what he has
// staged, begins again.
func (d *draft) dropInvitations() {
	for t := range d.Tokens.Values() {
		remove(d, armor.Tokens, t)
	}
	for j := range d.Joins.Values() {
		remove(d, armor.Joins, j)
	}
	for p := range d.Staged.Values() {
		remove(d, armor.Staged, p)
	}
}
