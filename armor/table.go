package armor

import (
	"iter"

	"github.com/tidwall/btree"
)

// Row is what a Table holds: a value that knows the key it is found by.
type Row interface {
	// Key is the same for as long as the row lives.
	Key() string
}

// Table is an immutable set of rows, each under its own key and walked in the order of
// the keys. A lookup and a change cost O(log n): a change makes another Table that
// shares nearly all with the first. The zero Table is empty and ready to use.
type Table[V Row] struct{ rows tree[*V] }

// Len returns the number of rows.
func (t Table[V]) Len() int { return t.rows.len() }

// Get returns the row under key, and whether there is one.
func (t Table[V]) Get(key string) (V, bool) {
	row, found := t.rows.get(key)
	if !found {
		var none V
		return none, false
	}
	return *row, true
}

// Has reports whether there is a row under key.
func (t Table[V]) Has(key string) bool {
	_, found := t.rows.get(key)
	return found
}

// With returns a table that also holds the rows, in the place of those with their keys.
func (t Table[V]) With(rows ...V) Table[V] {
	return Table[V]{t.rows.edited(func(m *btree.Map[string, *V]) {
		for i := range rows {
			m.Set(rows[i].Key(), &rows[i])
		}
	})}
}

// Without returns a table that holds nothing under key.
func (t Table[V]) Without(key string) Table[V] { return Table[V]{t.rows.without(key)} }

// All walks the rows with their keys.
func (t Table[V]) All() iter.Seq2[string, V] { return t.Prefixed("") }

// Prefixed walks the rows whose keys begin with prefix.
func (t Table[V]) Prefixed(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for key, row := range t.rows.prefixed(prefix) {
			if !yield(key, *row) {
				return
			}
		}
	}
}

// Values walks the rows.
func (t Table[V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, row := range t.rows.from("") {
			if !yield(*row) {
				return
			}
		}
	}
}

// Index is an immutable map from keys to texts that follows from a Table. It costs what
// a Table costs. The zero Index is empty and ready to use.
type Index struct{ entries tree[string] }

// Len returns the number of entries.
func (x Index) Len() int { return x.entries.len() }

// Get returns the text under key, and whether there is one.
func (x Index) Get(key string) (string, bool) { return x.entries.get(key) }

// With returns an index that also has text under key.
func (x Index) With(key, text string) Index { return Index{x.entries.with(key, text)} }

// Without returns an index that has nothing under key.
func (x Index) Without(key string) Index { return Index{x.entries.without(key)} }

// All walks the entries in the order of their keys.
func (x Index) All() iter.Seq2[string, string] { return x.entries.from("") }
