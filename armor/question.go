package armor

import (
	"fmt"
	"time"
)

// Question bounds what is wanted of the tables that grow: the inventory, the revocations and
// the identities. A state that answers it (State.Excerpt) has of these only the rows that
// the question names, and what they cannot be judged without: to whoever asks, it is as
// good as the whole state, and it costs the same beside a thousand rows and a million.
type Question struct {
	// Certificates are registered ones: each is the first digits of a fingerprint or of a
	// serial number, or ISSUER/SERIAL.
	Certificates []string
	// Identities are SPIFFE ids, patterns, or names of Identity objects.
	Identities []string
	// Database brings the identities that are granted it.
	Database string
	// Leaves are certificates that need not be registered. Their issuers may be left out
	// where they are trust anchors, or among the leaves themselves.
	Leaves []Certificate
	// Selectors bring the revocations of what they name, and the registered certificates.
	Selectors []Selector
	// Each is how many certificates each of the words above may bring, those that end last
	// first. Zero: of Identities and Selectors none.
	Each int
	// ValidAt leaves out certificates of Identities that are not in use at that time.
	ValidAt time.Time
	// CertificatePage and RevocationPage ask for a part of a long list.
	CertificatePage CertificatePage
	RevocationPage  RevocationPage
	// Names brings Identity objects whose names begin so.
	Names NamesBegun
	// DependsOn is the fingerprint of a trust anchor, and brings certificates that a rotation away
	// from it waits for (State.Dependents, State.Unseen): of each MaxDependents, and one where there are more.
	DependsOn Digest
}

// MaxDependents is how many certificates a question about a rotation brings.
const MaxDependents = 1000

// NamesBegun are the first objects of each environment whose names begin with Prefix.
type NamesBegun struct {
	Prefix string
	Limit  int // of each environment; zero asks for none
}

// CertificatePage is a part of the inventory, in the order in which certificates end.
type CertificatePage struct {
	Limit int    // how many certificates; zero asks for none
	After string // what the page before gave as its end; empty: the first page
	// The certificates that are wanted; empty: any.
	Environment, Owner string
	Identity           Pattern
	Issuer             Digest    // the key of the CA that signed it
	Until              time.Time // those that end before
	ValidAt            time.Time // those in use at that time
}

// RevocationPage is a part of the revocations, the latest first. One that is widened between
// two pages belongs to a later revision than it did, and is not seen again.
type RevocationPage struct {
	Limit int    // how many revocations; zero asks for none
	After string // what the page before gave as its end; empty: the first page
	// The revocations that are wanted; empty: any.
	Kind   SelectorKind
	Reason RevocationReason
	By     string
}

const (
	// MaxPage is how many rows a page may have.
	MaxPage = 10_000
	// MaxAsked is how many words, certificates and selectors a question may have.
	MaxAsked = 10_000
	// maxBrought bounds the certificates that a question brings.
	maxBrought = 20_000
	// maxAskedWord bounds one word, in bytes: no identity is longer.
	maxAskedWord = maxIdentity + len("/*")
	// minAskedDigits is how many digits of a certificate must be given.
	minAskedDigits = 8
)

// Check refuses what is more than a node answers at a time, or means nothing.
func (q Question) Check() error {
	words := len(q.Certificates) + len(q.Identities) + len(q.Leaves) + len(q.Selectors)
	switch {
	case words > MaxAsked:
		return fmt.Errorf("%w: a question has %d words, more than %d: ask several", ErrInvalid, words, MaxAsked)
	case q.Each < 0 || q.Each*max(words, 1) > maxBrought:
		return fmt.Errorf("%w: %d certificates for each of %d words are more than %d: ask for fewer", ErrInvalid, q.Each, words, maxBrought)
	case q.Names.Limit < 0 || q.Names.Limit > MaxPage:
		return fmt.Errorf("%w: 1 to %d names can be asked for", ErrInvalid, MaxPage)
	case q.CertificatePage.Limit < 0 || q.CertificatePage.Limit > MaxPage, q.RevocationPage.Limit < 0 || q.RevocationPage.Limit > MaxPage:
		return fmt.Errorf("%w: a page has 1 to %d rows", ErrInvalid, MaxPage)
	}
	for _, word := range q.Certificates {
		if len(word) < minAskedDigits || len(word) > maxAskedWord {
			return fmt.Errorf("%w: %q is not %d digits of a certificate or more", ErrInvalid, clip(word), minAskedDigits)
		}
	}
	for _, word := range append([]string{q.Database, q.Names.Prefix}, q.Identities...) {
		if len(word) > maxAskedWord {
			return fmt.Errorf("%w: %q is longer than any identity", ErrInvalid, clip(word))
		}
	}
	for _, sel := range q.Selectors {
		if err := sel.Validate(); err != nil {
			return err
		}
	}
	return nil
}
