package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// warrant signs an act on nodes. Each attempt has its own, since a node acts on one once.
func (c *Client) warrant(ctx context.Context, words []string) (*armorpb.Warrant, error) {
	cluster, err := c.cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the cluster's id: %w", err)
	}
	w := armor.Warrant{ID: NewRequestID(), Principal: c.operator, Expires: c.cfg.Now().Add(armor.WarrantLife).UTC()}
	digest := w.SigningDigest(cluster, words)
	if w.Signature, err = ecdsa.SignASN1(rand.Reader, c.key, digest[:]); err != nil {
		return nil, fmt.Errorf("sign a warrant: %w", err)
	}
	return toMessage[armorpb.Warrant](w), nil
}

// warrants remembers which warrants this node has acted on, for as long as they are good.
type warrants struct {
	mu    sync.Mutex // guards below
	since time.Time  // the latest time up to which what was done is not remembered any more
	done  map[armor.RequestID]time.Time
}

// maxWarrants bounds what is remembered.
const maxWarrants = 4096

// newWarrants begins at the start of a process: what was signed before it may have been done
// by the process before.
func newWarrants(started time.Time) *warrants {
	return &warrants{since: started, done: map[armor.RequestID]time.Time{}}
}

// take notes a warrant as acted on; an error says why it must not be.
func (s *warrants) take(w armor.Warrant, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, expires := range s.done {
		if now.After(expires.Add(armor.WarrantLife)) {
			delete(s.done, id)
		}
	}
	_, again := s.done[w.ID]
	switch signed := w.Expires.Add(-armor.WarrantLife); {
	case again:
		return fmt.Errorf("%w: this node has done that already, by the same warrant", armor.ErrConflict)
	case now.After(w.Expires), signed.After(now.Add(armor.WarrantLife)):
		return fmt.Errorf("%w: operator %q signed it at %s, and here it is %s: compare the clocks, and try again",
			armor.ErrExpired, w.Principal, signed.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case signed.Before(s.since):
		return fmt.Errorf("%w: it was signed before this node's process began: try again", armor.ErrExpired)
	case len(s.done) >= maxWarrants:
		return fmt.Errorf("%w: more than %d orders within %s: wait", armor.ErrExhausted, maxWarrants, armor.WarrantLife)
	}
	s.done[w.ID] = w.Expires
	return nil
}

// warranted says whether an operator has signed what this node is to do. The node that
// passes it on is not believed: its key may be stolen.
func (s *Server) warranted(m *armorpb.Warrant, words []string) error {
	if s.cfg.mistakes.believeNodes {
		return nil
	}
	if m == nil {
		return fmt.Errorf("%w: no operator has signed it: use an armorctl of this release", armor.ErrInvalid)
	}
	w, err := fromMessage[armor.Warrant](m)
	if err != nil {
		return err
	}
	state, _ := s.cfg.Node.Current()
	operator, ok := state.Operators.Get(w.Principal)
	switch {
	case !ok:
		return fmt.Errorf("%w: there is no operator %.63q", armor.ErrDenied, w.Principal)
	case !operator.Has(armor.NodeAdmin):
		return fmt.Errorf("%w: operator %s lacks role %s, which acting on nodes and their pools needs",
			armor.ErrDenied, operator.Name, armor.NodeAdmin)
	}
	if err := stillGood(state, operator, s.cfg.Node.WallClock()); err != nil {
		return err
	}
	if err := w.Verify(state.Cluster.ID, words, operator); err != nil {
		return err
	}
	return s.warrants.take(w, s.cfg.Node.WallClock())
}

// stillGood says whether an operator's certificate is. The connection on which the operator
// speaks may end at another node than the one that acts.
func stillGood(s *armor.State, o armor.Operator, now time.Time) error {
	c := o.Certificate
	if r, revoked := s.RevokesOwn(c); revoked {
		return fmt.Errorf("%w: operator %s: %s is revoked", armor.ErrRevoked, o.Name, r.Selector)
	}
	if now.After(c.NotAfter) {
		return fmt.Errorf("%w: the certificate of operator %s ended at %s", armor.ErrExpired, o.Name, c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
