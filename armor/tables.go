package armor

import (
	"iter"
	"slices"
)

// The tables of a State, each named once. Their order is that of a snapshot's sections:
// a new one comes last, with a new level of the log.
var (
	Environments = table("environments", Trusting, func(s *State) *Table[Environment] { return &s.Environments })
	Anchors      = table("anchors", Trusting, func(s *State) *Table[TrustAnchor] { return &s.Anchors }).
			index(TrustAnchor.index, TrustAnchor.unindex)
	Inventory = table("inventory", Listing, func(s *State) *Table[CertRecord] { return &s.Inventory }).
			index(CertRecord.index, CertRecord.unindex).atOnce(indexInventory).about(CertRecord.holders)
	Revoked    = revocations("revocations", Revoking)
	Identities = table("identities", Granting, func(s *State) *Table[IdentityConfig] { return &s.Identities }).
			index(IdentityConfig.indexGrant, IdentityConfig.forgetGrant)
	Databases  = table("databases", Pooling, func(s *State) *Table[Database] { return &s.Databases })
	Pools      = table("pools", Pooling, func(s *State) *Table[Pool] { return &s.Pools })
	Shares     = table("shares", Sharing, func(s *State) *Table[Share] { return &s.Shares })
	Members    = table("members", Joining, func(s *State) *Table[Member] { return &s.Members })
	Tombstones = table("tombstones", Joining, func(s *State) *Table[Tombstone] { return &s.Tombstones })
	Tokens     = table("tokens", Joining, func(s *State) *Table[JoinToken] { return &s.Tokens })
	Joins      = table("joins", Joining, func(s *State) *Table[JoinRequest] { return &s.Joins })
	Operators  = table("operators", Operating, func(s *State) *Table[Operator] { return &s.Operators })
	Staged     = table("staged", Staging, func(s *State) *Table[StagedRevocations] { return &s.Staged })
	Rotations  = table("rotations", Rotating, func(s *State) *Table[Rotation] { return &s.Rotations })
	Uses       = table("uses", Rotating, func(s *State) *Table[Use] { return &s.Uses })
)

// AnyTable is a table of whatever rows.
type AnyTable interface {
	// Name is the table's name in snapshots, in the state's hash and in the API.
	Name() string
	// Len returns the number of rows of s.
	Len(s *State) int
	// Rows walks the rows of s in the order of their keys.
	Rows(s *State) iter.Seq[Row]
	// New returns the address of a zero row.
	New() Row
	// Fill begins to fill the table of s, which must be empty. add takes the address of a
	// row, which is the table's from then on, and returns false when there is one of its
	// key already; it is fastest in the order of the keys. done puts the table into s,
	// and what follows from it.
	Fill(s *State) (add func(Row) bool, done func())
}

// Tables returns all tables in their order.
func Tables() []AnyTable { return slices.Clone(declared) }

var declared []AnyTable

// TableOf is the way to one table of a State, for reading and for changing.
type TableOf[V Row] struct {
	name   string
	aspect Aspect
	store  store[V]
	// derive and forget keep what follows from a row; nil where nothing does.
	derive, forget func(row V, s *State)
	// deriveAll is derive for all rows of a state at once; nil: one after another.
	deriveAll func(s *State)
	// sessions are those that a row is about; nil where it may be any.
	sessions func(row V) SelectorKey
}

// store is how a table keeps its rows.
type store[V Row] struct {
	find    func(s *State, like V) (V, bool) // the row that has the key of another
	with    func(s *State, rows ...V)
	without func(s *State, row V)
	len     func(s *State) int
	rows    func(s *State) iter.Seq[V]
	builder func(s *State) (add func(*V) bool, done func())
}

// table declares a table.
func table[V Row](name string, aspect Aspect, of func(*State) *Table[V]) *TableOf[V] {
	return declare(&TableOf[V]{name: name, aspect: aspect, store: store[V]{
		find:    func(s *State, like V) (V, bool) { return of(s).Get(like.Key()) },
		with:    func(s *State, rows ...V) { *of(s) = of(s).With(rows...) },
		without: func(s *State, row V) { *of(s) = of(s).Without(row.Key()) },
		len:     func(s *State) int { return of(s).Len() },
		rows:    func(s *State) iter.Seq[V] { return of(s).Values() },
		builder: func(s *State) (func(*V) bool, func()) {
			m := newMap[*V]()
			add := func(row *V) bool {
				_, replaced := m.Load((*row).Key(), row)
				return !replaced
			}
			return add, func() { *of(s) = Table[V]{tree[*V]{m}} }
		},
	}})
}

// revocations declares the one table that keeps its rows in a way of its own.
func revocations(name string, aspect Aspect) *TableOf[Revocation] {
	t := declare(&TableOf[Revocation]{name: name, aspect: aspect, store: store[Revocation]{
		find: func(s *State, like Revocation) (Revocation, bool) {
			return s.Revocations.Get(like.Selector.SelectorKey())
		},
		with:    func(s *State, rows ...Revocation) { s.Revocations = s.Revocations.With(rows...) },
		without: func(s *State, row Revocation) { s.Revocations = s.Revocations.without(row.Selector.SelectorKey()) },
		len:     func(s *State) int { return s.Revocations.Len() },
		rows:    func(s *State) iter.Seq[Revocation] { return s.Revocations.Values() },
		builder: buildRevocations,
	}})
	return t.about(func(r Revocation) SelectorKey { return r.Selector.SelectorKey() })
}

func declare[V Row](t *TableOf[V]) *TableOf[V] {
	declared = append(declared, t)
	return t
}

func (t *TableOf[V]) index(derive, forget func(V, *State)) *TableOf[V] {
	t.derive, t.forget = derive, forget
	return t
}

func (t *TableOf[V]) atOnce(deriveAll func(*State)) *TableOf[V] {
	t.deriveAll = deriveAll
	return t
}

func (t *TableOf[V]) about(sessions func(V) SelectorKey) *TableOf[V] {
	t.sessions = sessions
	return t
}

// Name implements AnyTable.
func (t *TableOf[V]) Name() string { return t.name }

// Find returns the row of s that has the key of another, and whether there is one.
func (t *TableOf[V]) Find(s *State, like V) (V, bool) { return t.store.find(s, like) }

// Put puts rows into s, each in the place of the one with its key. s must not have been
// published; its Revision is that of the change.
func (t *TableOf[V]) Put(s *State, rows ...V) {
	if t.forget != nil {
		for _, row := range rows {
			if old, had := t.store.find(s, row); had {
				t.forget(old, s)
			}
		}
	}
	t.store.with(s, rows...)
	if t.derive != nil {
		for _, row := range rows {
			t.derive(row, s)
		}
	}
	t.changed(s, rows)
}

// Remove removes the row that has the key of another from s, of which the conditions of Put hold. What follows from the
// row goes with it.
func (t *TableOf[V]) Remove(s *State, row V) {
	if old, had := t.store.find(s, row); had && t.forget != nil {
		t.forget(old, s)
	}
	t.store.without(s, row)
	t.changed(s, []V{row})
}

func (t *TableOf[V]) changed(s *State, rows []V) {
	s.Changed.at[t.aspect] = s.Revision
	if t.sessions == nil {
		return
	}
	keys := make([]SelectorKey, 0, min(len(rows), maxTouched+1))
	for _, row := range rows[:min(len(rows), maxTouched+1)] {
		keys = append(keys, t.sessions(row))
	}
	s.Changed.touch(s.Revision, keys)
}

// Len implements AnyTable.
func (t *TableOf[V]) Len(s *State) int { return t.store.len(s) }

// Rows implements AnyTable.
func (t *TableOf[V]) Rows(s *State) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for row := range t.store.rows(s) {
			if !yield(row) {
				return
			}
		}
	}
}

// New implements AnyTable.
func (t *TableOf[V]) New() Row { return any(new(V)).(Row) }

// Fill implements AnyTable.
func (t *TableOf[V]) Fill(s *State) (add func(Row) bool, done func()) {
	addRow, put := t.store.builder(s)
	add = func(row Row) bool { return addRow(any(row).(*V)) }
	return add, func() {
		put()
		switch {
		case t.deriveAll != nil:
			t.deriveAll(s)
			return
		case t.derive == nil:
			return
		}
		for row := range t.store.rows(s) {
			t.derive(row, s)
		}
	}
}
