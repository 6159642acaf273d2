package armor

import (
	"iter"
	"strings"

	"github.com/tidwall/btree"
)

// tree is an immutable map from strings to values, walked in the order of its keys, so
// that two nodes that hold the same entries walk them alike. A change makes another tree
// that shares all but O(log n) of its nodes with the first. The zero tree is empty.
type tree[V any] struct {
	m *btree.Map[string, V] // never changed once it is here
}

// degree is how many children an inner node has at least. A change copies a node on each
// level: with the library's 32 that was twice as many bytes, and no faster to read.
const degree = 16

func newMap[V any]() *btree.Map[string, V] { return btree.NewMap[string, V](degree) }

func (t tree[V]) len() int {
	if t.m == nil {
		return 0
	}
	return t.m.Len()
}

func (t tree[V]) get(key string) (V, bool) {
	if t.m == nil {
		var none V
		return none, false
	}
	return t.m.Get(key)
}

// edited returns the tree that change makes of a copy.
func (t tree[V]) edited(change func(*btree.Map[string, V])) tree[V] {
	if t.m == nil {
		m := newMap[V]()
		change(m)
		return tree[V]{m}
	}
	// Copy gives both sides new marks by which they know whose nodes are whose. The one
	// that is ours must not be written to, since others may copy it at the same time: a
	// shallow copy takes that write.
	source := *t.m
	m := source.Copy()
	change(m)
	return tree[V]{m}
}

func (t tree[V]) with(key string, value V) tree[V] {
	return t.edited(func(m *btree.Map[string, V]) { m.Set(key, value) })
}

func (t tree[V]) without(key string) tree[V] {
	if _, found := t.get(key); !found {
		return t
	}
	return t.edited(func(m *btree.Map[string, V]) { m.Delete(key) })
}

// from walks the entries from a key on.
func (t tree[V]) from(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.m != nil {
			t.m.Ascend(key, yield)
		}
	}
}

func (t tree[V]) prefixed(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for key, value := range t.from(prefix) {
			if !strings.HasPrefix(key, prefix) || !yield(key, value) {
				return
			}
		}
	}
}
