package armor

// Aspect is a side of the state that its followers may care about. A follower that asks
// which sides have changed does only what is due.
type Aspect int

const (
	Revoking  Aspect = iota // revocations
	Listing                 // the inventory, and which environment a key is bound to
	Trusting                // environments and trust anchors
	Granting                // identities and their grants
	Pooling                 // databases and pools
	Sharing                 // shares of pools
	Joining                 // members, and those on their way in or out
	Operating               // operators
	Staging                 // parts of revocations that are not in force yet
	Rotating                // rotations of CAs, and the uses that they wait for
	aspects
)

// Changes is what the latest revisions of a state were about.
type Changes struct {
	at      [aspects]uint64 // the last revision that changed an aspect
	touched *touched
}

// Everything is the Changes of a state that did not come about by small steps: all is new
// at its revision.
func Everything(revision uint64) Changes {
	var c Changes
	for a := range c.at {
		c.at[a] = revision
	}
	return c
}

// Differs reports whether any of the aspects may be another in s than in before, an
// earlier state of the same node; nil is the state of nothing.
func (s *State) Differs(before *State, of ...Aspect) bool {
	if before == nil || before.Revision > s.Revision {
		return true
	}
	for _, a := range of {
		if s.Changed.at[a] > before.Revision {
			return true
		}
	}
	return false
}

// touched is the end of a chain that says which sessions the latest changes of Revoking
// and Listing are about.
type touched struct {
	revision uint64
	keys     []SelectorKey
	earlier  *touched // nil: unknown
	length   int
	// since is the revision after which all is known that the chain is about.
	since uint64
}

const (
	// maxTouched bounds the keys that one change may leave: whoever has to look at more
	// sessions than that may as well look at all.
	maxTouched = 1024
	// maxTouches bounds the chain. A follower that is as many changes behind looks at all.
	maxTouches = 256
)

// touch notes whom a change of a revision is about.
func (c *Changes) touch(revision uint64, keys []SelectorKey) {
	t := &touched{revision: revision, keys: keys, earlier: c.touched, length: 1, since: revision - 1}
	switch {
	case len(keys) > maxTouched:
		t.keys, t.earlier, t.since = nil, nil, revision
	case t.earlier == nil || t.earlier.length >= maxTouches && t.earlier.revision < revision:
		t.earlier = nil
	default:
		t.length, t.since = t.earlier.length+1, t.earlier.since
	}
	c.touched = t
}

// Touched returns the keys of the sessions that changes of Revoking and Listing after
// before are about; a session that none of them names is judged as it was. It returns
// false when that is not known, so that any session may be meant.
func (s *State) Touched(before *State) (keys []SelectorKey, known bool) {
	if !s.Differs(before, Revoking, Listing) {
		return nil, true
	}
	last := s.Changed.touched
	if before == nil || before.Revision > s.Revision || last == nil || before.Revision < last.since {
		return nil, false
	}
	for t := last; t != nil && t.revision > before.Revision; t = t.earlier {
		keys = append(keys, t.keys...)
	}
	return keys, true
}
