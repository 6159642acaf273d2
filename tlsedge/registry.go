package tlsedge

import (
	"maps"
	"slices"
	"sync"

	"github.com/armordb/armordb/armor"
)

// registry holds every session from proof of possession to its end, and finds those
// that a selector may match without looking at the others.
type registry struct {
	mu       sync.Mutex // guards below; nothing is called while held
	sessions map[uint64]*Session
	// ending are those of them that have a cause to end.
	ending map[uint64]*Session
	// index is keyed like armor.State.Revocations: by the keys of all selectors that
	// could take the session's certificate away.
	index map[armor.SelectorKey]map[uint64]*Session
}

func newRegistry() *registry {
	return &registry{
		sessions: map[uint64]*Session{}, ending: map[uint64]*Session{},
		index: map[armor.SelectorKey]map[uint64]*Session{},
	}
}

// add registers a session before anybody else sees it.
func (r *registry) add(s *Session) {
	keys := s.peer.SelectorKeys()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shareLocked(s, r.index[keys[0]])
	r.sessions[s.id] = s
	for _, k := range keys {
		if r.index[k] == nil {
			r.index[k] = map[uint64]*Session{}
		}
		r.index[k][s.id] = s
	}
}

// shareLocked gives a session the facts of another one with the same certificate, if
// there is: applications open many connections with one.
func (r *registry) shareLocked(s *Session, same map[uint64]*Session) {
	for _, other := range same {
		if s.peer.Leaf == other.peer.Leaf && slices.EqualFunc(s.peer.Chains, other.peer.Chains, slices.Equal) {
			s.peer.Leaf, s.peer.Chains = other.peer.Leaf, other.peer.Chains
		}
		return
	}
}

func (r *registry) remove(s *Session) {
	keys := s.peer.SelectorKeys()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.id)
	delete(r.ending, s.id)
	for _, k := range keys {
		delete(r.index[k], s.id)
		if len(r.index[k]) == 0 {
			delete(r.index, k)
		}
	}
}

// ends notes that a session has a cause to end.
func (r *registry) ends(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.id] == s {
		r.ending[s.id] = s
	}
}

// all returns every session, in no order.
func (r *registry) all() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.sessions))
}

// allEnding returns every session that has a cause to end and has not ended.
func (r *registry) allEnding() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.ending))
}

// matching returns the sessions under the keys, each once.
func (r *registry) matching(keys []armor.SelectorKey) []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[uint64]*Session{}
	for _, k := range keys {
		for id, s := range r.index[k] {
			found[id] = s
		}
	}
	return slices.Collect(maps.Values(found))
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}
