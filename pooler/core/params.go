package core

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Params are the parameters that PostgreSQL reports by ParameterStatus, with their
// values. They are immutable and shared: many clients expect the same ones.
type Params struct {
	pairs []pair // sorted by name
}

type pair struct{ name, value string }

func (p pair) compare(q pair) int { return strings.Compare(p.name, q.name) }

// NewParams returns the parameters of a map, which it does not keep.
func NewParams(values map[string]string) *Params { return &Params{pairs: sortedPairs(values)} }

func sortedPairs(values map[string]string) []pair {
	pairs := make([]pair, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		pairs = append(pairs, pair{name, values[name]})
	}
	return pairs
}

// Get returns a parameter's value, and whether there is one.
func (p *Params) Get(name string) (string, bool) {
	i, found := p.find(name)
	if !found {
		return "", false
	}
	return p.pairs[i].value, true
}

func (p *Params) find(name string) (int, bool) {
	return slices.BinarySearchFunc(p.pairs, pair{name: name}, pair.compare)
}

// With returns parameters in which name has the value.
func (p *Params) With(name, value string) *Params {
	i, found := p.find(name)
	if found && p.pairs[i].value == value {
		return p
	}
	pairs := slices.Clone(p.pairs)
	if found {
		pairs[i].value = value
	} else {
		pairs = slices.Insert(pairs, i, pair{name, value})
	}
	return &Params{pairs: pairs}
}

// All walks the parameters in the order of their names.
func (p *Params) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, pair := range p.pairs {
			if !yield(pair.name, pair.value) {
				return
			}
		}
	}
}
