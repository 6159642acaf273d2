package armor

import (
	"fmt"
	"time"
)

// ClockSkew is how far a client's issuer may be ahead of us: a certificate counts
// as valid from NotBefore less this, and never after NotAfter.
const ClockSkew = 30 * time.Second

// InventoryMode says whether a certificate must be registered to be accepted.
type InventoryMode string

const (
	// InventoryOpen accepts any certificate that chains to a bound anchor.
	InventoryOpen InventoryMode = "open"
	// InventoryRequired also wants the certificate in the inventory, so that a
	// stolen CA key alone opens nothing.
	InventoryRequired InventoryMode = "required"
)

// Default freshness bounds; see Environment.
const (
	DefaultFreshNew  = 5 * time.Second
	DefaultFreshLive = 15 * time.Second
)

// Environment is one island of trust: production, staging. Anchors, identities,
// databases and pools each belong to exactly one.
type Environment struct {
	Name      string
	Inventory InventoryMode
	// MaxLeafLifetime refuses longer-lived client certificates; zero is no bound.
	MaxLeafLifetime time.Duration
	// FreshNew and FreshLive are T_new and T_live: how old a node's proof of the
	// trust state may grow before it refuses new sessions, and before it closes
	// live ones.
	FreshNew, FreshLive time.Duration
	// Cancel says which cancel requests end queries.
	Cancel CancelMode
}

// Key is the environment's key in State.Environments.
func (e Environment) Key() string { return e.Name }

// Ref names the environment among the objects of the configuration.
func (e Environment) Ref() ObjectRef { return ObjectRef{Kind: KindEnvironment, Name: e.Name} }

// CancelMode says how cancel requests may come. All libpq before 17 sends them without
// TLS, whatever the session uses.
type CancelMode string

const (
	CancelAny     CancelMode = ""         // AnyWord: the key is proof enough
	CancelTLSOnly CancelMode = "tls-only" // only over TLS, with a client certificate
)

// TrustAnchor is a CA certificate that may vouch for clients, bound to one
// environment and to the identities below Prefix: whatever it signs, it cannot
// yield an identity outside of them.
type TrustAnchor struct {
	Name        string
	Environment string
	Prefix      Pattern
	Certificate Certificate
	DER         []byte
	SVID        bool // its leaves may also carry serverAuth, as X.509-SVIDs do
	// Retired: nobody is to get a certificate of it any more, and clients are not told that one
	// would do. Who has one gets in until it ends.
	Retired bool
	// Distrusted: a rotation has ended it. Nobody gets in by it, and who tries is told so.
	Distrusted bool
}

// Key is the anchor's key in State.Anchors.
func (a TrustAnchor) Key() string { return a.Certificate.Fingerprint.String() }

// CertRecord is the inventory's entry for one issued certificate.
type CertRecord struct {
	Certificate Certificate
	Environment string
	Owner       string // the team that answers for it
	Contact     string
	IssuedAt    time.Time
	IssuedBy    string // the operator
	ReplacedBy  Digest // fingerprint of its successor, zero while it is current
}

// Key is the record's key in State.Inventory.
func (r CertRecord) Key() string { return r.Certificate.Fingerprint.String() }

// holders are the sessions that the record may decide: those of its key.
func (r CertRecord) holders() SelectorKey { return digestKey(keyMark, r.Certificate.Key) }

// Facts are what a session is judged by: who the client proved to be and, once its
// startup packet has been read, what it asked for. They are kept for the session's
// life, because every new revision judges them again.
type Facts struct {
	Peer     Peer
	Database string // empty until the startup packet has been read
	Role     string
	// LoggedIn says that the login is over: a second factor that is asked for must have
	// been proved by then. SecondFactor is what was proved, and Verifiers by which.
	LoggedIn     bool
	SecondFactor SecondFactor
	Verifiers    string // Database.VerifiedBy
	// Replication is the kind of replication connection that was asked for.
	Replication Replication
}

// Access is what the state grants a session.
type Access struct {
	Environment string
	Anchor      string // name of the trust anchor that vouched
	Vouched     Digest // its fingerprint
	Name        string // name of the Identity object that granted it
	Owner       string
	Database    Database
	Pool        Pool
	// MaxConnections is the Identity object's.
	MaxConnections int
	// SecondFactor must be proved before the session is admitted; empty: nothing.
	SecondFactor SecondFactor
	Revision     uint64 // of the state that decided
}

// Decide judges facts at the given time. It is the only judge of client sessions:
// the edge, armorctl explain and every re-check of a live session call it. Before
// the startup packet (Facts.Database empty) it answers whether the certificate is
// trusted at all. The denial is nil when access is granted; it has no id yet.
func (s *State) Decide(f Facts, now time.Time) (Access, *Denial) {
	env, anchor, denial := s.trusts(f.Peer, now)
	if denial != nil {
		return Access{}, denial
	}
	access := Access{Environment: env.Name, Anchor: anchor.Name, Vouched: anchor.Certificate.Fingerprint, Revision: s.Revision}
	if f.Database == "" {
		return access, nil
	}
	return s.grants(access, f)
}

// DecideAny asks whether a peer may have anything at all from where it is: nil, or why
// every session that it could ask for would be refused.
func (s *State) DecideAny(p Peer, now time.Time) (Access, *Denial) {
	f := Facts{Peer: p}
	access, denial := s.Decide(f, now)
	if denial != nil {
		return access, denial
	}
	identity, _ := s.IdentityFor(access.Environment, p.Leaf.Identity)
	if len(identity.Grants) == 0 {
		return access, f.deny(ReasonDatabase, "identity %q of environment %q is granted nothing", p.Leaf.Identity, access.Environment)
	}
	for _, g := range identity.Grants {
		if g.hasSource(p.Source.Addr()) {
			return access, nil
		}
	}
	return access, s.notGranted(access, f, "", otherSource)
}

// trusts finds the anchor that vouches for the peer and checks the certificate.
func (s *State) trusts(p Peer, now time.Time) (Environment, TrustAnchor, *Denial) {
	leaf := p.Leaf
	if r, found := s.revokesLeaf(leaf); found {
		return Environment{}, TrustAnchor{}, revokedDenial(leaf, r)
	}
	if r, found := s.Compromised(leaf); found {
		return Environment{}, TrustAnchor{}, unconfirmedDenial(leaf, r)
	}
	anchor, denial := s.vouchingAnchor(p, now)
	if denial != nil {
		return Environment{}, anchor, denial
	}
	env, ok := s.Environments.Get(anchor.Environment)
	if !ok {
		return env, anchor, deny(ReasonUntrusted, "the issuer of the client certificate is not trusted any more", leaf)
	}
	switch {
	case now.Before(leaf.NotBefore.Add(-ClockSkew)):
		return env, anchor, deny(ReasonNotYetValid,
			fmt.Sprintf("client certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339)), leaf)
	case now.After(leaf.NotAfter):
		return env, anchor, deny(ReasonExpired, fmt.Sprintf("client certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339)), leaf)
	case env.MaxLeafLifetime > 0 && leaf.NotAfter.Sub(leaf.NotBefore) > env.MaxLeafLifetime:
		return env, anchor, deny(ReasonLifetime,
			fmt.Sprintf("client certificate lives longer than the %s that environment %q allows", env.MaxLeafLifetime, env.Name), leaf)
	}
	if bound, ok := s.KeyEnvironments.Get(leaf.Key.String()); ok && bound != env.Name {
		return env, anchor, deny(ReasonKeyReuse, "the key of the client certificate belongs to another environment", leaf)
	}
	if env.Inventory == InventoryRequired && !s.Inventory.Has(leaf.Fingerprint.String()) {
		return env, anchor, deny(ReasonUnregistered, fmt.Sprintf("client certificate is not registered in environment %q", env.Name), leaf)
	}
	return env, anchor, nil
}

// vouchingAnchor returns the anchor of a chain that still holds: of several one that no rotation
// leads away from.
func (s *State) vouchingAnchor(p Peer, now time.Time) (TrustAnchor, *Denial) {
	var denial *Denial
	var outgoing TrustAnchor
	held := false
	for _, chain := range p.Chains {
		if len(chain) == 0 {
			continue
		}
		if fault := s.chainEnded(p.Leaf, chain); fault != nil {
			denial = fault
			continue
		}
		anchor, ok := s.Anchors.Get(chain[len(chain)-1].Fingerprint.String())
		if !ok {
			continue
		}
		if fault := anchor.cannotVouch(p, chain, now); fault != nil {
			denial = fault
			continue
		}
		if !s.outgoing(anchor) {
			return anchor, nil
		}
		outgoing, held = anchor, true
	}
	if held {
		return outgoing, nil
	}
	if denial == nil {
		denial = deny(ReasonUntrusted, "the issuer of the client certificate is not trusted", p.Leaf)
	}
	return TrustAnchor{}, denial
}

// chainEnded says why a chain lets nobody in any more, whatever it ends in; nil: it may.
func (s *State) chainEnded(leaf Certificate, chain []Certificate) *Denial {
	if old, found := s.distrusts(chain); found {
		return distrustedDenial(leaf, old.Name, s.successor(old))
	}
	if r, found := s.revokesChain(chain); found {
		return revokedDenial(leaf, r)
	}
	return nil
}

// cannotVouch says why the anchor does not let the peer in by a chain that ends in it; nil: it does.
func (a TrustAnchor) cannotVouch(p Peer, chain []Certificate, now time.Time) *Denial {
	if !a.Prefix.Matches(p.Leaf.Identity) {
		return deny(ReasonBinding, fmt.Sprintf("the issuer of the client certificate may not vouch for identity %q", p.Leaf.Identity), p.Leaf)
	}
	if p.ServerAuth && !a.SVID {
		return deny(ReasonProfile, "client certificate has the extended key usage serverAuth, which its issuer is not marked for", p.Leaf)
	}
	if until, over := chainOver(chain, now); over {
		return deny(ReasonExpired, fmt.Sprintf("the issuer of the client certificate expired at %s", until.UTC().Format(time.RFC3339)), p.Leaf)
	}
	return nil
}

// chainOver reports whether an issuer has expired, and when.
func chainOver(chain []Certificate, now time.Time) (time.Time, bool) {
	for _, c := range chain {
		if !c.NotAfter.IsZero() && now.After(c.NotAfter) {
			return c.NotAfter, true
		}
	}
	return time.Time{}, false
}

// grants looks for the grant that lets a trusted peer have the database and role.
func (s *State) grants(access Access, f Facts) (Access, *Denial) {
	identity, ok := s.IdentityFor(access.Environment, f.Peer.Leaf.Identity)
	if !ok {
		return access, s.noDatabase(access, f)
	}
	access.Name, access.Owner, access.MaxConnections = identity.Name, identity.Owner, identity.MaxConnections
	wanted, several := identity.asked(f)
	if several {
		return access, severalDatabases(f)
	}
	named, nearest := s.DatabaseFor(access.Environment, wanted), otherDatabase
	for _, g := range identity.Grants {
		how := g.fits(named, f)
		if how == fits {
			return s.follow(access, g, f)
		}
		nearest = max(nearest, how)
	}
	return access, s.notGranted(access, f, wanted, nearest)
}

// fit is how near a grant comes to what is asked for.
type fit int

const (
	otherDatabase fit = iota
	otherRole
	otherKind // of connection
	otherSource
	fits
)

func (g Grant) fits(database string, f Facts) fit {
	switch {
	case g.Database != database:
		return otherDatabase
	case !g.hasRole(f.Role):
		return otherRole
	case f.Replication != NoReplication && !g.Replication:
		return otherKind
	case !g.hasSource(f.Peer.Source.Addr()):
		return otherSource
	}
	return fits
}

// notGranted says what the grant that came nearest lacks.
func (s *State) notGranted(access Access, f Facts, wanted string, nearest fit) *Denial {
	switch {
	case nearest == otherKind, nearest == otherDatabase && f.Replication == PhysicalReplication && wanted == UnnamedDatabase:
		return noReplication(f)
	case nearest == otherDatabase:
		return s.noDatabase(access, f)
	case nearest == otherRole:
		return f.deny(ReasonRole, "identity %q may not use role %q on database %q", f.Peer.Leaf.Identity, f.Role, f.Database)
	default:
		return f.deny(ReasonAddress, "identity %q may not connect from %s", f.Peer.Leaf.Identity, f.Peer.Source.Addr())
	}
}

// follow gives what a grant that fits leads to.
func (s *State) follow(access Access, g Grant, f Facts) (Access, *Denial) {
	if IsConsole(g.Database) {
		return s.reachConsole(access, g, f)
	}
	return s.reach(access, g, f)
}

func (s *State) reach(access Access, g Grant, f Facts) (Access, *Denial) {
	database, okDatabase := s.Databases.Get(ObjectKey(access.Environment, g.Database))
	pool, okPool := s.Pools.Get(ObjectKey(access.Environment, g.Pool))
	if !okDatabase || !okPool {
		return access, s.noDatabase(access, f)
	}
	access.Database, access.Pool, access.SecondFactor = database.named(f.Database), pool, g.SecondFactor
	if f.LoggedIn && !f.proves(access) {
		return access, f.deny(ReasonSecondFactor, "identity %q must prove a password for role %q on database %q: connect again",
			f.Peer.Leaf.Identity, f.Role, f.Database)
	}
	return access, nil
}

// proves reports whether a session that has logged in has proved what is asked for.
func (f Facts) proves(a Access) bool {
	return a.SecondFactor == "" || f.SecondFactor == a.SecondFactor && f.Verifiers == a.Database.VerifiedBy()
}

// noDatabase has one text for a database that does not exist and one that is not
// granted, so that the answer tells a stranger nothing; the reason, which only
// operators see, tells an attempt across environments from a plain one.
func (s *State) noDatabase(access Access, f Facts) *Denial {
	reason := ReasonDatabase
	for _, d := range s.Databases.All() {
		if d.Name == f.Database && d.Environment != access.Environment && !s.Databases.Has(ObjectKey(access.Environment, d.Name)) {
			reason = ReasonEnvironment
		}
	}
	return f.deny(reason, "identity %q of environment %q may not reach database %q", f.Peer.Leaf.Identity, access.Environment, f.Database)
}
