package tlsedge

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// maxUses bounds the uses that wait to be recorded here. While nobody records any, as before the
// first rotation of a cluster, no more are kept.
const maxUses = 2 * armor.MaxUses

// uses are by which trust anchors which identities were let in here, until the state has it: a
// rotation waits until nobody comes by the old one any more.
type uses struct {
	mu  sync.Mutex // guards below
	all map[useKey]*use
}

type useKey struct {
	anchor   armor.Digest
	identity armor.Identity
}

// use is the last time of one. Sessions that live by it keep it.
type use struct {
	useKey
	seen atomic.Int64 // nanoseconds since the Unix epoch
}

func newUses() *uses { return &uses{all: map[useKey]*use{}} }

// note remembers that an anchor has let an identity in.
func (u *uses) note(anchor armor.Digest, identity armor.Identity, now time.Time) *use {
	key := useKey{anchor, identity}
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.all[key]
	if known == nil {
		known = &use{useKey: key}
		u.keepLocked(known)
	}
	known.seen.Store(now.UnixNano())
	return known
}

func (u *uses) keepLocked(one *use) {
	if u.all[one.useKey] == nil && len(u.all) < maxUses {
		u.all[one.useKey] = one
	}
}

// wanted returns what a state wants to know, and forgets what it knows and nobody lives by.
// living are the uses of live sessions, whose time is now.
func (u *uses) wanted(s *armor.State, living []*use, now time.Time) (wanted []armor.Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range living {
		one.seen.Store(now.UnixNano())
		u.keepLocked(one)
	}
	for key, one := range u.all {
		seen := time.Unix(0, one.seen.Load()).UTC()
		report := armor.Use{Anchor: key.anchor, Identity: key.identity, Seen: seen}
		switch {
		case !s.WantsUse(report):
			delete(u.all, key)
		case len(wanted) < armor.MaxUsesAtOnce:
			wanted = append(wanted, report)
		}
	}
	return wanted
}

// Uses are those by which trust anchors let clients in here that a state wants to know of, at
// most armor.MaxUsesAtOnce; what is left over comes the next time.
func (e *Edge) Uses(s *armor.State) []armor.Use {
	var living []*use
	for _, session := range e.registry.all() {
		if one := session.livesBy(); one != nil {
			living = append(living, one)
		}
	}
	return e.uses.wanted(s, living, e.cfg.Lease.Now())
}

// LivingBy counts the live sessions that a trust anchor has let in.
func (e *Edge) LivingBy(anchor armor.Digest) (n int) {
	for _, session := range e.registry.all() {
		if one := session.livesBy(); one != nil && one.anchor == anchor {
			n++
		}
	}
	return n
}

// livesBy is the use that let the session in; nil before it is admitted.
func (s *Session) livesBy() *use {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.granted == nil {
		return nil
	}
	return s.granted.use
}
