package armor

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Table is an immutable map from string keys to values, kept sorted so that two
// nodes that hold the same entries walk them in the same order. The zero Table is
// empty and ready to use.
//
// With and Without copy the index (16 bytes and one pointer an entry), which is
// why a change costs O(n) and a read costs O(log n): the state changes a few
// times a minute and is read on every connection.
type Table[V any] struct {
	rows []row[V]
}

type row[V any] struct {
	key   string
	value V
}

// Len returns the number of entries.
func (t Table[V]) Len() int { return len(t.rows) }

// Get returns the value under key, and whether there is one.
func (t Table[V]) Get(key string) (V, bool) {
	i, found := t.find(key)
	if !found {
		var none V
		return none, false
	}
	return t.rows[i].value, true
}

// Has reports whether there is an entry under key.
func (t Table[V]) Has(key string) bool {
	_, found := t.find(key)
	return found
}

// With returns a table that also holds value under key.
func (t Table[V]) With(key string, value V) Table[V] {
	i, found := t.find(key)
	if found {
		rows := slices.Clone(t.rows)
		rows[i].value = value
		return Table[V]{rows: rows}
	}
	rows := make([]row[V], 0, len(t.rows)+1)
	rows = append(rows, t.rows[:i]...)
	rows = append(rows, row[V]{key: key, value: value})
	return Table[V]{rows: append(rows, t.rows[i:]...)}
}

// Without returns a table that holds nothing under key.
func (t Table[V]) Without(key string) Table[V] {
	i, found := t.find(key)
	if !found {
		return t
	}
	return Table[V]{rows: slices.Delete(slices.Clone(t.rows), i, i+1)}
}

// Edit returns a table with all of the changes made, in one pass however many they
// are: a nil value removes its key.
func (t Table[V]) Edit(changes map[string]*V) Table[V] {
	rows := make([]row[V], 0, len(t.rows)+len(changes))
	rest := t.rows
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		i, found := Table[V]{rows: rest}.find(key)
		rows = append(rows, rest[:i]...)
		rest = rest[i:]
		if found {
			rest = rest[1:]
		}
		if value := changes[key]; value != nil {
			rows = append(rows, row[V]{key: key, value: *value})
		}
	}
	return Table[V]{rows: append(rows, rest...)}
}

// All walks the entries in the order of their keys.
func (t Table[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, r := range t.rows {
			if !yield(r.key, r.value) {
				return
			}
		}
	}
}

// Prefixed walks, in order, the entries whose keys begin with prefix.
func (t Table[V]) Prefixed(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		i, _ := t.find(prefix)
		for ; i < len(t.rows) && strings.HasPrefix(t.rows[i].key, prefix); i++ {
			if !yield(t.rows[i].key, t.rows[i].value) {
				return
			}
		}
	}
}

// Values walks the values in the order of their keys.
func (t Table[V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, r := range t.rows {
			if !yield(r.value) {
				return
			}
		}
	}
}

func (t Table[V]) find(key string) (int, bool) {
	return slices.BinarySearchFunc(t.rows, key, func(r row[V], k string) int {
		return strings.Compare(r.key, k)
	})
}
