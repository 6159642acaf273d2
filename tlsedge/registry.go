package tlsedge

import (
	"slices"
	"sync"

	"github.com/armordb/armordb/armor"
)

// registry holds every session from proof of possession to its end, and finds those
// that a selector may match without looking at the others.
type registry struct {
	mu       sync.Mutex // guards below; nothing is called while held
	sessions map[uint64]*Session
	// index is keyed like armor.State.Revocations: by the keys of all selectors that
	// could take the session's certificate away.
	index map[string]map[uint64]*Session
}

func newRegistry() *registry {
	return &registry{sessions: map[uint64]*Session{}, index: map[string]map[uint64]*Session{}}
}

// add registers a session before anybody else sees it.
func (r *registry) add(s *Session) {
	keys := selectorKeys(s.peer)
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
	keys := selectorKeys(s.peer)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.id)
	for _, k := range keys {
		delete(r.index[k], s.id)
		if len(r.index[k]) == 0 {
			delete(r.index, k)
		}
	}
}

// selectorKeys are the revocations that could concern a peer, whichever its chain.
func selectorKeys(p armor.Peer) []string {
	selectors := []armor.Selector{
		{Kind: armor.SelectCertificate, Certificate: p.Leaf.ID},
		{Kind: armor.SelectKey, Key: p.Leaf.Key},
		{Kind: armor.SelectIssuer, Issuer: p.Leaf.ID.Issuer},
	}
	for _, pattern := range p.Leaf.Identity.Patterns() {
		selectors = append(selectors, armor.Selector{Kind: armor.SelectIdentity, Identity: pattern})
	}
	for _, chain := range p.Chains {
		for _, c := range chain {
			selectors = append(selectors,
				armor.Selector{Kind: armor.SelectCertificate, Certificate: c.ID},
				armor.Selector{Kind: armor.SelectKey, Key: c.Key},
				armor.Selector{Kind: armor.SelectIssuer, Issuer: c.Key})
		}
	}
	keys := make([]string, len(selectors))
	for i, s := range selectors {
		keys[i] = s.MarshalKey()
	}
	return keys
}

// all returns every session, in no order.
func (r *registry) all() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		all = append(all, s)
	}
	return all
}

// matching returns the sessions under the keys, each once.
func (r *registry) matching(keys []string) []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[uint64]*Session{}
	for _, k := range keys {
		for id, s := range r.index[k] {
			found[id] = s
		}
	}
	list := make([]*Session, 0, len(found))
	for _, s := range found {
		list = append(list, s)
	}
	return list
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}
