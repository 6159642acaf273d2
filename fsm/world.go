package fsm

import (
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// world is one immutable version of all that the log has led to: the published state,
// and what only the machine needs.
type world struct {
	state *armor.State
	// requests is the deduplication table, by outcomeKey; expiries is its index,
	// ordered by the end of their life.
	requests armor.Table[*outcome]
	expiries armor.Table[string]
	// configured is the last revision that changed environments, databases, pools
	// or identities: what Apply.IfRevision is held against.
	configured uint64
	// entries covers every table but the derived ones.
	entries sum
	// extra are the optional sections of a snapshot that this build does not know;
	// they are kept for the next one.
	extra []section
}

// edit is a table being changed. Changes are gathered and made in one pass when the
// table is asked for.
type edit[V any] struct {
	name    string
	table   armor.Table[V]
	changes map[string]*V
	entries *sum        // nil for a derived table
	hashed  func(V) any // what of the value is hashed
}

func (e *edit[V]) get(key string) (V, bool) {
	if v, changed := e.changes[key]; !changed {
		return e.table.Get(key)
	} else if v != nil {
		return *v, true
	}
	var none V
	return none, false
}

func (e *edit[V]) has(key string) bool {
	_, found := e.get(key)
	return found
}

func (e *edit[V]) put(key string, value V) { e.change(key, &value) }
func (e *edit[V]) remove(key string)       { e.change(key, nil) }

func (e *edit[V]) change(key string, value *V) {
	if e.changes == nil {
		e.changes = map[string]*V{}
	}
	e.changes[key] = value
}

// done makes the changes and returns the table with them.
func (e *edit[V]) done() armor.Table[V] {
	if len(e.changes) == 0 {
		return e.table
	}
	if e.entries != nil {
		for key, value := range e.changes {
			e.account(key, value)
		}
	}
	e.table = e.table.Edit(e.changes)
	e.changes = nil
	return e.table
}

func (e *edit[V]) account(key string, value *V) {
	if old, had := e.table.Get(key); had {
		e.entries.subtract(entryHash(e.name, key, e.hashed(old)))
	}
	if value != nil {
		e.entries.add(entryHash(e.name, key, e.hashed(*value)))
	}
}

// draft is a world being changed by one command. It is either finished or dropped:
// that makes every command all or nothing.
type draft struct {
	// What is being applied.
	revision uint64
	term     uint64
	time     time.Time // log time
	by       string    // principal

	cluster    armor.Cluster
	nextIndex  uint16
	configured uint64
	entries    sum
	extra      []section

	environments    edit[armor.Environment]
	anchors         edit[armor.TrustAnchor]
	inventory       edit[armor.CertRecord]
	revocations     edit[armor.Revocation]
	identities      edit[armor.IdentityConfig]
	databases       edit[armor.Database]
	pools           edit[armor.Pool]
	shares          edit[armor.Share]
	members         edit[armor.Member]
	tombstones      edit[armor.Tombstone]
	tokens          edit[armor.JoinToken]
	joins           edit[armor.JoinRequest]
	operators       edit[armor.Operator]
	requests        edit[*outcome]
	expiries        edit[string] // derived from requests
	keyEnvironments edit[string] // derived from inventory
	grants          edit[string] // derived from identities
}

// edit opens a draft of the world.
func (w *world) edit() *draft {
	s := w.state
	d := &draft{
		revision: s.Revision, time: s.Time, cluster: s.Cluster, nextIndex: s.NextIndex,
		configured: w.configured, entries: w.entries, extra: w.extra,
		expiries: derived(w.expiries), keyEnvironments: derived(s.KeyEnvironments), grants: derived(s.Grants),
	}
	d.environments = editOf(d, "environments", s.Environments)
	d.anchors = editOf(d, "anchors", s.Anchors)
	d.inventory = editOf(d, "inventory", s.Inventory)
	d.revocations = editOf(d, "revocations", s.Revocations)
	d.identities = editOf(d, "identities", s.Identities)
	d.databases = editOf(d, "databases", s.Databases)
	d.pools = editOf(d, "pools", s.Pools)
	d.shares = editOf(d, "shares", s.Shares)
	d.members = editOf(d, "members", s.Members)
	d.tombstones = editOf(d, "tombstones", s.Tombstones)
	d.tokens = editOf(d, "tokens", s.Tokens)
	d.joins = editOf(d, "joins", s.Joins)
	d.operators = editOf(d, "operators", s.Operators)
	d.requests = editOf(d, "requests", w.requests)
	d.requests.hashed = func(o *outcome) any { return o.hashed() }
	return d
}

func editOf[V any](d *draft, name string, table armor.Table[V]) edit[V] {
	return edit[V]{name: name, table: table, entries: &d.entries, hashed: func(v V) any { return v }}
}

func derived(table armor.Table[string]) edit[string] { return edit[string]{table: table} }

// state is the state as the draft stands; it is immutable.
func (d *draft) state() *armor.State {
	return &armor.State{
		Revision: d.revision, Time: d.time, Cluster: d.cluster, NextIndex: d.nextIndex,
		Environments: d.environments.done(), Anchors: d.anchors.done(), Inventory: d.inventory.done(),
		Revocations: d.revocations.done(), Identities: d.identities.done(), Databases: d.databases.done(),
		Pools: d.pools.done(), Shares: d.shares.done(), Members: d.members.done(), Tombstones: d.tombstones.done(),
		Tokens: d.tokens.done(), Joins: d.joins.done(), Operators: d.operators.done(),
		KeyEnvironments: d.keyEnvironments.done(), Grants: d.grants.done(),
	}
}

// finish closes the draft.
func (d *draft) finish() *world {
	w := &world{
		state: d.state(), requests: d.requests.done(), expiries: d.expiries.done(),
		configured: d.configured, extra: d.extra,
	}
	w.entries = d.entries
	return w
}

// run gives a command its meaning. Any error is a refusal, and the draft is dropped.
func (d *draft) run(c armor.Command) error {
	switch c := c.(type) {
	case armor.Bootstrap:
		return d.bootstrap(c)
	case armor.PutEnvironment:
		return d.putEnvironment(c.Environment)
	case armor.PutAnchor:
		return d.putAnchor(c.Anchor)
	case armor.RegisterCertificate:
		return d.registerCertificate(c)
	case armor.Revoke:
		return d.revoke(c)
	case armor.Apply:
		return d.apply(c)
	case armor.PutOperator:
		return d.putOperator(c.Operator)
	case armor.CreateJoinToken:
		return d.createJoinToken(c.Token)
	case armor.RequestJoin:
		return d.requestJoin(c)
	case armor.ApproveJoin:
		return d.approveJoin(c)
	case armor.RemoveMember:
		return d.removeMember(c)
	case armor.SetMemberAddresses:
		return d.setMemberAddresses(c)
	case armor.SetShares:
		return d.setShares(c)
	case armor.BuryTombstones:
		return d.buryTombstones(c)
	case armor.PruneExpired:
		return d.pruneExpired(c)
	}
	panic(fmt.Sprintf("fsm: no meaning for %T", c))
}
