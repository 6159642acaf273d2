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

// unsettable are reported parameters that no SET can change: they describe the
// server, or follow from the role, which a reset restores.
var unsettable = []string{
	"in_hot_standby", "integer_datetimes", "is_superuser", "server_encoding", "server_version", "session_authorization",
}

// lacks returns the parameters that a client expects and for which the server connection
// has another value, as far as they can be set.
func (p *Params) lacks(expected *Params) []pair {
	var lacking []pair
	for _, e := range expected.pairs {
		value, reported := p.Get(e.name)
		if reported && value != e.value && !slices.Contains(unsettable, e.name) {
			lacking = append(lacking, e)
		}
	}
	return lacking
}

// Settings are parameters that a client asked for at startup and that PostgreSQL
// does not report, such as statement_timeout. They are immutable.
type Settings struct {
	pairs []pair // sorted by name
}

// NewSettings returns the settings of a map, which it does not keep. It returns nil
// when there are none.
func NewSettings(values map[string]string) *Settings {
	if len(values) == 0 {
		return nil
	}
	return &Settings{pairs: sortedPairs(values)}
}

// SQL returns statements that put the settings in force for a session.
func (s *Settings) SQL() string {
	if s == nil {
		return ""
	}
	return setConfig(s.pairs)
}

func (s *Settings) list() []pair {
	if s == nil {
		return nil
	}
	return s.pairs
}

// setConfig is one statement for all: unlike SET, set_config takes the value of a
// list such as search_path as it is.
func setConfig(pairs []pair) string {
	if len(pairs) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, p := range pairs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("pg_catalog.set_config(" + quoteLiteral(p.name) + ", " + quoteLiteral(p.value) + ", false)")
	}
	return b.String()
}

// replay returns the statements that turn what a server connection has into what a
// client expects; empty when nothing is to be done.
func replay(have, want *Settings, lacking []pair) string {
	var statements []string
	for _, p := range have.list() {
		if !slices.ContainsFunc(want.list(), func(q pair) bool { return q.name == p.name }) {
			statements = append(statements, "RESET "+quoteName(p.name))
		}
	}
	set := slices.Clone(lacking)
	for _, p := range want.list() {
		if !slices.Contains(have.list(), p) {
			set = append(set, p)
		}
	}
	if len(set) > 0 {
		statements = append(statements, setConfig(set))
	}
	return strings.Join(statements, "; ")
}

// quoteLiteral quotes a string for any setting of standard_conforming_strings.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// quoteName quotes a setting's name, each part of a dotted one by itself.
func quoteName(s string) string {
	parts := strings.Split(s, ".")
	for i, part := range parts {
		parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}
