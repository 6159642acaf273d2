package armor

import (
	"time"
)

// Use is the last time that a trust anchor let an identity in, as far as it is remembered: a use
// that is repeated is recorded again once UseGrain has passed, or a rotation asks.
type Use struct {
	Anchor   Digest // fingerprint
	Identity Identity
	Seen     time.Time
}

// Key is the use's key in State.Uses.
func (u Use) Key() string { return u.Anchor.String() + "/" + string(u.Identity) }

const (
	// UseGrain is how exactly the last use is known.
	UseGrain = time.Hour
	// MaxUses is how many uses the state remembers.
	MaxUses = 20_000
	// MaxUsesAtOnce is how many one RecordUses, and one renewal, may bring.
	MaxUsesAtOnce = 250
)

// WantsUse reports whether a use is news to the state: worth an entry of the log.
func (s *State) WantsUse(u Use) bool {
	a, found := s.Anchors.Get(u.Anchor.String())
	if !found || !a.Prefix.Matches(u.Identity) {
		return false
	}
	known, had := s.Uses.Get(u.Key())
	switch {
	case !had:
		return s.Uses.Len() < MaxUses
	case u.Seen.Sub(known.Seen) >= UseGrain:
		return true
	}
	r, rotating := s.Rotations.Get(a.Environment)
	return rotating && r.Active() && (u.Anchor == r.Old || u.Anchor == r.New) && u.Seen.After(r.Since) && !known.Seen.After(r.Since)
}
