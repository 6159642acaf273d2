package armor

import (
	"iter"
	"math"
	"time"
	"unique"

	"github.com/tidwall/btree"
)

// SelectorKey is a Selector in the few bytes that tell it from all others: its kind and
// what it names. It is what revocations and live sessions are indexed by. Keys sort as
// the texts of Selector.MarshalKey do. IssuedBefore is not part of it: the widest
// revocation of an identity is the one that counts.
type SelectorKey string

// The first byte of a SelectorKey, in the order of the kinds' names.
const (
	certificateMark = 1 + iota // then the issuer's digest, and the serial
	identityMark               // then the pattern
	issuerMark                 // then the digest
	keyMark                    // then the digest
)

func certificateKey(id CertID) SelectorKey {
	b := make([]byte, 0, 1+len(id.Issuer)+len(id.Serial))
	b = append(append(append(b, certificateMark), id.Issuer[:]...), id.Serial...)
	return SelectorKey(b)
}

func digestKey(mark byte, d Digest) SelectorKey {
	var b [1 + len(d)]byte
	b[0] = mark
	copy(b[1:], d[:])
	return SelectorKey(b[:])
}

func identityKey(p Pattern) SelectorKey { return SelectorKey(string(rune(identityMark)) + string(p)) }

// SelectorKey returns the selector's key.
func (s Selector) SelectorKey() SelectorKey {
	switch s.Kind {
	case SelectCertificate:
		return certificateKey(s.Certificate)
	case SelectKey:
		return digestKey(keyMark, s.Key)
	case SelectIssuer:
		return digestKey(issuerMark, s.Issuer)
	default:
		return identityKey(s.Identity)
	}
}

// selector is SelectorKey's inverse.
func (k SelectorKey) selector() Selector {
	mark, rest := k[0], string(k[1:])
	switch mark {
	case certificateMark:
		s := Selector{Kind: SelectCertificate}
		s.Certificate.Serial = rest[copy(s.Certificate.Issuer[:], rest):]
		return s
	case keyMark:
		return Selector{Kind: SelectKey, Key: Digest([]byte(rest))}
	case issuerMark:
		return Selector{Kind: SelectIssuer, Issuer: Digest([]byte(rest))}
	default:
		return Selector{Kind: SelectIdentity, Identity: Pattern(rest)}
	}
}

// Revocations is the table of what was revoked, by SelectorKey. It is a Table but for
// its size: there may be a million, so a row is its key and what it does not share with
// others, some 150 bytes in all. The zero Revocations is empty and ready to use.
type Revocations struct{ acts tree[*act] }

// act is what a revocation says beside its selector. Those of one command share it.
type act struct {
	reason, comment, by unique.Handle[string]
	at, issuedBefore    int64 // nanoseconds since 1970; noTime for the zero time
	revision            uint64
	// whole is a revocation that the fields above and its key cannot give back, as it
	// has more set than belongs to its kind. No tool of ours ever made one.
	whole *Revocation
}

const noTime = math.MinInt64

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixNano()
}

func instant(nanos int64) time.Time {
	if nanos == noTime {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// pack takes a revocation apart into what under gives back.
func pack(r Revocation) (SelectorKey, act) {
	key := r.Selector.SelectorKey()
	a := act{
		reason: unique.Make(string(r.Reason)), comment: unique.Make(r.Comment), by: unique.Make(r.By),
		at: nanos(r.At), issuedBefore: nanos(r.Selector.IssuedBefore), revision: r.Revision,
	}
	if a.under(key) != r {
		whole := r // a copy, so that no other revocation is moved to the heap
		a.whole = &whole
	}
	return key, a
}

// under gives the revocation back.
func (a *act) under(key SelectorKey) Revocation {
	if a.whole != nil {
		return *a.whole
	}
	selector := key.selector()
	selector.IssuedBefore = instant(a.issuedBefore)
	return Revocation{
		Selector: selector, Reason: RevocationReason(a.reason.Value()), Comment: a.comment.Value(),
		At: instant(a.at), By: a.by.Value(), Revision: a.revision,
	}
}

// Len returns the number of revocations.
func (t Revocations) Len() int { return t.acts.len() }

// Get returns the revocation of what key names, and whether there is one.
func (t Revocations) Get(key SelectorKey) (Revocation, bool) {
	a, found := t.acts.get(string(key))
	if !found {
		return Revocation{}, false
	}
	return a.under(key), true
}

// With returns a table that also holds the rows, in the place of those with their keys.
func (t Revocations) With(rows ...Revocation) Revocations {
	return Revocations{t.acts.edited(func(m *btree.Map[string, *act]) {
		var last *act
		for _, r := range rows {
			key, a := pack(r)
			if last == nil || *last != a {
				last = &a
			}
			m.Set(string(key), last)
		}
	})}
}

// without is for revocations of what has ended.
func (t Revocations) without(key SelectorKey) Revocations {
	return Revocations{t.acts.without(string(key))}
}

// buildRevocations fills the table of a state. Rows come in the order of their keys and
// not of their commands, so that the acts met lately are remembered.
func buildRevocations(s *State) (add func(*Revocation) bool, done func()) {
	m := newMap[*act]()
	met := map[act]*act{}
	add = func(r *Revocation) bool {
		key, a := pack(*r)
		one, known := met[a]
		if !known {
			one = &a
			if len(met) < maxActsMet {
				met[a] = one
			}
		}
		_, replaced := m.Load(string(key), one)
		return !replaced
	}
	return add, func() { s.Revocations = Revocations{tree[*act]{m}} }
}

// maxActsMet bounds what a restore remembers so that rows may share it.
const maxActsMet = 10_000

// All walks the revocations with their keys.
func (t Revocations) All() iter.Seq2[SelectorKey, Revocation] {
	return func(yield func(SelectorKey, Revocation) bool) {
		for key, a := range t.acts.from("") {
			if !yield(SelectorKey(key), a.under(SelectorKey(key))) {
				return
			}
		}
	}
}

// Values walks the revocations.
func (t Revocations) Values() iter.Seq[Revocation] {
	return func(yield func(Revocation) bool) {
		for _, r := range t.All() {
			if !yield(r) {
				return
			}
		}
	}
}
