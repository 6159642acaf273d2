package armor

import (
	"fmt"
	"time"
)

// SelectorKind says what a revocation takes away.
type SelectorKind string

const (
	SelectCertificate SelectorKind = "certificate" // one certificate
	SelectKey         SelectorKind = "key"         // every certificate that holds this key (SPKI)
	SelectIdentity    SelectorKind = "identity"    // an identity, or all below a "/*"
	SelectIssuer      SelectorKind = "issuer"      // everything this CA key has signed
)

// Selector names the certificates that a revocation takes away. Exactly the field
// of its kind is set.
type Selector struct {
	Kind        SelectorKind
	Certificate CertID
	Key         Digest
	Identity    Pattern
	Issuer      Digest
	// IssuedBefore, with SelectIdentity, spares certificates whose NotBefore is not
	// before it; zero spares none. It is how a compromised identity is emptied and
	// can then be issued anew.
	IssuedBefore time.Time
}

// Validate checks that the selector is of a known kind and names something.
func (s Selector) Validate() error {
	ok := false
	switch s.Kind {
	case SelectCertificate:
		ok = !s.Certificate.Issuer.IsZero() && s.Certificate.Serial != ""
	case SelectKey:
		ok = !s.Key.IsZero()
	case SelectIssuer:
		ok = !s.Issuer.IsZero()
	case SelectIdentity:
		_, err := ParsePattern(string(s.Identity))
		ok = err == nil
	default:
		return fmt.Errorf("%w: selector kind %q", ErrInvalid, s.Kind)
	}
	if !ok {
		return fmt.Errorf("%w: %s selector names nothing", ErrInvalid, s.Kind)
	}
	if !s.IssuedBefore.IsZero() && s.Kind != SelectIdentity {
		return fmt.Errorf("%w: issued-before goes with an identity selector", ErrInvalid)
	}
	return nil
}

// MarshalKey returns the selector's key in words, as the state's hash and people know it.
func (s Selector) MarshalKey() string {
	switch s.Kind {
	case SelectCertificate:
		return "certificate " + s.Certificate.String()
	case SelectKey:
		return "key " + s.Key.String()
	case SelectIssuer:
		return "issuer " + s.Issuer.String()
	default:
		return "identity " + string(s.Identity)
	}
}

// String is for people: "identity spiffe://…", "certificate 4f1a…".
func (s Selector) String() string {
	text := s.MarshalKey()
	if !s.IssuedBefore.IsZero() {
		text += " issued before " + s.IssuedBefore.UTC().Format(time.RFC3339)
	}
	return text
}

// RevocationReason is why, in RFC 5280 §5.3.1's words.
type RevocationReason string

// The reasons, which mean what that section says.
const (
	Unspecified          RevocationReason = "unspecified"
	KeyCompromise        RevocationReason = "key-compromise"
	CACompromise         RevocationReason = "ca-compromise"
	AffiliationChanged   RevocationReason = "affiliation-changed"
	Superseded           RevocationReason = "superseded"
	CessationOfOperation RevocationReason = "cessation-of-operation"
)

// ParseRevocationReason checks that s is one of the reasons above.
func ParseRevocationReason(s string) (RevocationReason, error) {
	switch r := RevocationReason(s); r {
	case Unspecified, KeyCompromise, CACompromise, AffiliationChanged, Superseded, CessationOfOperation:
		return r, nil
	}
	return "", fmt.Errorf("%w: reason %q is not one of unspecified, key-compromise, ca-compromise, "+
		"affiliation-changed, superseded, cessation-of-operation", ErrInvalid, clip(s))
}

// Revocation is permanent: no command takes one back. That of a certificate may be forgotten
// once the certificate has ended long ago: see PruneCertificates.
type Revocation struct {
	Selector Selector
	Reason   RevocationReason
	Comment  string
	At       time.Time // log time of the command
	By       string    // the operator
	Revision uint64
}

// Key is the revocation's key in the state's hash.
func (r Revocation) Key() string { return r.Selector.MarshalKey() }

// SelectorKeys returns the keys of all revocations that could concern a peer, whichever
// its chain.
func (p Peer) SelectorKeys() []SelectorKey {
	first := p.Leaf.selectorKeys()
	keys := first[:]
	for _, pattern := range p.Leaf.Identity.Patterns() {
		keys = append(keys, identityKey(pattern))
	}
	for _, chain := range p.Chains {
		for _, c := range chain {
			issuer := c.issuerKeys()
			keys = append(keys, issuer[:]...)
		}
		if above, known := issuerAbove(chain); known {
			keys = append(keys, above)
		}
	}
	return keys
}

// issuerAbove is the key of whoever signed the anchor of a chain, if that is an intermediate and
// its issuer is known.
func issuerAbove(chain []Certificate) (SelectorKey, bool) {
	if len(chain) == 0 {
		return "", false
	}
	anchor := chain[len(chain)-1]
	if anchor.ID.Issuer.IsZero() || anchor.ID.Issuer == anchor.Key {
		return "", false
	}
	return digestKey(issuerMark, anchor.ID.Issuer), true
}

// selectorKeys are those of a leaf: itself, its key and whoever signed it.
func (c Certificate) selectorKeys() [3]SelectorKey {
	return [3]SelectorKey{certificateKey(c.ID), digestKey(keyMark, c.Key), digestKey(issuerMark, c.ID.Issuer)}
}

// issuerKeys are those of an issuer in a chain: itself, its key and all that it signed.
func (c Certificate) issuerKeys() [3]SelectorKey {
	return [3]SelectorKey{certificateKey(c.ID), digestKey(keyMark, c.Key), digestKey(issuerMark, c.Key)}
}

// Revokes reports whether a revocation ends sessions of the certificate, looking at
// the leaf and at each issuer of the chain, the anchor included.
func (s *State) Revokes(leaf Certificate, chain []Certificate) (Revocation, bool) {
	if r, found := s.revokesLeaf(leaf); found {
		return r, true
	}
	return s.revokesChain(chain)
}

// RevokesCA is Revokes for the certificate of a CA, which is its own chain.
func (s *State) RevokesCA(c Certificate) (Revocation, bool) {
	return s.Revokes(c, []Certificate{c})
}

// RevokesOwn is Revokes for a certificate of a node or an operator: of its issuer, the peer CA,
// the key is known.
func (s *State) RevokesOwn(c Certificate) (Revocation, bool) {
	return s.Revokes(c, []Certificate{{Key: c.ID.Issuer}})
}

func (s *State) revokesLeaf(leaf Certificate) (Revocation, bool) {
	for _, key := range leaf.selectorKeys() {
		if r, found := s.Revocations.Get(key); found {
			return r, true
		}
	}
	return s.revokesIdentity(leaf, func(r Revocation) bool {
		return r.Selector.IssuedBefore.IsZero() || leaf.NotBefore.Before(r.Selector.IssuedBefore)
	})
}

// revokesIdentity returns the first revocation of the leaf's identity, or of all below it, that
// concerns this certificate.
func (s *State) revokesIdentity(leaf Certificate, concerns func(Revocation) bool) (Revocation, bool) {
	for _, p := range leaf.Identity.Patterns() {
		if r, found := s.Revocations.Get(identityKey(p)); found && concerns(r) {
			return r, true
		}
	}
	return Revocation{}, false
}

// Compromised reports whether the leaf's identity was emptied because a key of it was out, and
// nobody has said since that this certificate is good: an operator does so by registering
// it. Its dates say nothing: whoever had the key may have had certificates signed
// that begin later. Where the operator named an instant of the past himself, he knows when
// that was, and the dates decide.
func (s *State) Compromised(leaf Certificate) (Revocation, bool) {
	return s.revokesIdentity(leaf, func(r Revocation) bool {
		if !r.LeavesDoubt() {
			return false
		}
		record, registered := s.Inventory.Get(leaf.Fingerprint.String())
		return !registered || record.IssuedAt.Before(r.At)
	})
}

// LeavesDoubt reports whether certificates that the revocation spares are Compromised until
// they are registered.
func (r Revocation) LeavesDoubt() bool {
	return r.Reason == KeyCompromise && !r.Selector.IssuedBefore.Before(r.At.Add(-RequestWindow))
}

func (s *State) revokesChain(chain []Certificate) (Revocation, bool) {
	for _, c := range chain {
		for _, key := range c.issuerKeys() {
			if r, found := s.Revocations.Get(key); found {
				return r, true
			}
		}
	}
	if above, known := issuerAbove(chain); known {
		return s.Revocations.Get(above)
	}
	return Revocation{}, false
}
