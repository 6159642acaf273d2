package core

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/armordb/armordb/pooler/pgwire"
)

// statementPrefix begins the names that prepared statements have on the server.
const statementPrefix = "armor_"

// statementKey is the digest of all that Parse depends on: a statement's text, the types of
// its parameters, and the client's settings.
type statementKey [16]byte

// Secret is a server connection's own, and random. The names of its prepared statements follow
// from it and from their keys: every session finds a statement again, and no client can guess
// what a neighbour's is called.
type Secret [16]byte

func (s Secret) name(key statementKey) string {
	if mutant == NamesGuessable {
		s = Secret{}
	}
	digest := sha256.Sum256(append(s[:], key[:]...))
	return statementPrefix + hex.EncodeToString(digest[:16])
}

// statement is what a client has prepared: what it takes to prepare it anywhere.
type statement struct {
	key  statementKey
	tail []byte // what follows the name in a Parse message
	reading
	refs int
}

// Statements interns prepared statements, so that a thousand clients which prepare
// the same one keep it once. It belongs to one driver loop or session, which calls
// it from one goroutine at a time.
type Statements struct {
	byKey map[statementKey]*statement
	size  int // bytes of all tails
	limit int
}

// NewStatements returns an empty set that holds at most limit bytes of statements.
func NewStatements(limit int) *Statements {
	return &Statements{byKey: map[statementKey]*statement{}, limit: limit}
}

// keyOf is the key of a Parse message's tail under settings that were digested.
func keyOf(tail []byte, reads [16]byte) statementKey {
	digest := sha256.Sum256(tail)
	if reads != [16]byte{} {
		digest = sha256.Sum256(append(digest[:], reads[:]...))
	}
	return statementKey(digest[:16])
}

// intern returns the statement of a Parse message's tail, which it copies when it is
// new, and counts one reference more. It returns nil when there is no room.
func (s *Statements) intern(tail []byte, reads [16]byte) *statement {
	key := keyOf(tail, reads)
	st := s.byKey[key]
	if st == nil {
		if s.size+len(tail) > s.limit {
			return nil
		}
		st = &statement{
			key: key, tail: append([]byte(nil), tail...), reading: read(pgwire.ParseText(tail)),
		}
		s.byKey[key] = st
		s.size += len(tail)
	}
	st.refs++
	return st
}

// release takes one reference back. What nobody refers to is forgotten here; the
// server connections that have it prepared keep it until it is their oldest.
func (s *Statements) release(st *statement) {
	if st.refs--; st.refs == 0 {
		delete(s.byKey, st.key)
		s.size -= len(st.tail)
	}
}

// named is a statement under the name that a client gave it.
type named struct {
	name  string
	st    *statement
	reads [16]byte    // of the settings in its key
	age   uint64      // of the client's Parse: see Config.Tick
	told  description // what the client was told of it; zero: nothing
}

// preparedSet is what a server connection has prepared, or will have once it has
// worked off what was sent; the least recently used goes first.
type preparedSet struct {
	index map[statementKey]int32
	nodes []preparedNode // 0 is the sentinel of the ring; the newest follows it
	free  []int32
}

type preparedNode struct {
	key        statementKey
	name       string
	newer, old int32
	age        uint64      // when it was prepared: see Config.Tick
	told       description // what PostgreSQL has said of it; zero: it was not asked
	// stale: PostgreSQL refuses to run it as it was planned; it must be closed and
	// prepared again.
	stale bool
}

func (p *preparedSet) len() int { return len(p.index) }

// touch reports whether the statement is there and fit for use, and makes it the
// newest.
func (p *preparedSet) touch(key statementKey) bool {
	i, ok := p.index[key]
	if !ok || p.nodes[i].stale {
		return false
	}
	if p.nodes[0].old != i {
		p.unlink(i)
		p.link(i)
	}
	return true
}

// find returns what is noted of a statement; nil when it is not there. It is valid until
// the next change.
func (p *preparedSet) find(key statementKey) *preparedNode {
	if i, ok := p.index[key]; ok {
		return &p.nodes[i]
	}
	return nil
}

// isStale reports whether the statement is there and unfit.
func (p *preparedSet) isStale(key statementKey) bool {
	i, ok := p.index[key]
	return ok && p.nodes[i].stale
}

// markStale notes that the statement must be prepared again before its next use.
func (p *preparedSet) markStale(key statementKey) {
	if i, ok := p.index[key]; ok {
		p.nodes[i].stale = true
	}
}

// add makes the statement the newest one.
func (p *preparedSet) add(key statementKey, name string, age uint64) {
	if p.index == nil {
		p.index, p.nodes = map[statementKey]int32{}, make([]preparedNode, 1)
	}
	p.remove(key)
	i := int32(len(p.nodes))
	if n := len(p.free); n > 0 {
		i, p.free = p.free[n-1], p.free[:n-1]
	} else {
		p.nodes = append(p.nodes, preparedNode{})
	}
	p.nodes[i] = preparedNode{key: key, name: name, age: age}
	p.index[key] = i
	p.link(i)
}

func (p *preparedSet) remove(key statementKey) {
	if i, ok := p.index[key]; ok {
		p.unlink(i)
		p.nodes[i] = preparedNode{}
		p.free = append(p.free, i)
		delete(p.index, key)
	}
}

// oldest returns the least recently used statement.
func (p *preparedSet) oldest() (statementKey, string) {
	n := p.nodes[p.nodes[0].newer]
	return n.key, n.name
}

func (p *preparedSet) clear() { *p = preparedSet{} }

// link puts a node at the new end of the ring: behind the sentinel's old link.
func (p *preparedSet) link(i int32) {
	last := p.nodes[0].old
	p.nodes[i].old, p.nodes[i].newer = last, 0
	p.nodes[last].newer = i
	p.nodes[0].old = i
}

func (p *preparedSet) unlink(i int32) {
	n := p.nodes[i]
	p.nodes[n.old].newer = n.newer
	p.nodes[n.newer].old = n.old
}
