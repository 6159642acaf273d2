package armor

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RevocationOf returns what revokes a registered certificate, or one that is being
// registered now and so vouched for: itself, or its issuer as far as that is a trust anchor.
func (s *State) RevocationOf(c Certificate) (Revocation, bool) {
	if r, found := s.Compromised(c); found && s.Inventory.Has(c.Fingerprint.String()) {
		return r, true
	}
	for anchor := range s.Anchors.Values() {
		if anchor.Certificate.Key == c.ID.Issuer {
			return s.Revokes(c, []Certificate{anchor.Certificate})
		}
	}
	return s.Revokes(c, nil)
}

// valid reports whether a registered certificate is valid at a time: not revoked, begun
// and not over.
func (s *State) valid(c Certificate, at time.Time) bool {
	if at.After(c.NotAfter) || at.Before(c.NotBefore.Add(-ClockSkew)) {
		return false
	}
	return !s.revoked(c)
}

// revoked reports whether anything revokes a registered certificate.
func (s *State) revoked(c Certificate) bool {
	_, found := s.RevocationOf(c)
	return found
}

// WholeIdentityRevoked reports whether all that a pattern stands for is revoked, of
// whatever date.
func (s *State) WholeIdentityRevoked(p Pattern) bool {
	for _, q := range p.covering() {
		if r, found := s.Revocations.Get(identityKey(q)); found && r.Selector.IssuedBefore.IsZero() {
			return true
		}
	}
	return false
}

// covering are the patterns that cover p.
func (p Pattern) covering() []Pattern {
	prefix, wild := strings.CutSuffix(string(p), "/*")
	above := Identity(prefix).Patterns()
	if wild {
		above[0] = p
	}
	return above
}

// A page ends early when it has looked at so much that it would keep the node busy; the
// next one goes on from there.
const (
	maxLooked  = 20_000 // rows
	judgedCost = 10     // rows that it costs to find out whether one is revoked
)

// page takes the part of a list that was asked for, and returns where it ends.
func (x *excerpt) page() (string, error) {
	if x.q.RevocationPage.Limit > 0 {
		return x.revocationPage(x.q.RevocationPage)
	}
	if x.q.CertificatePage.Limit > 0 {
		return x.certificatePage(x.q.CertificatePage)
	}
	return "", nil
}

func (x *excerpt) certificatePage(p CertificatePage) (string, error) {
	after, err := p.after()
	if err != nil {
		return "", err
	}
	looked := 0
	var last *CertRecord
	for row := range x.of.Orders.in[byEnd].from(after) {
		switch {
		case !p.Until.IsZero() && !row.Certificate.NotAfter.Before(p.Until):
			return "", nil
		case !orderings[byEnd].less(after, row) && !x.mistakes.repeatEnd: // the last of the page before
			continue
		case p.Limit == 0 || looked >= maxLooked:
			return endOfCertificates(last), nil
		}
		last, looked = row, looked+1
		if !p.wants(row) {
			continue
		}
		if !p.ValidAt.IsZero() {
			looked += judgedCost
			if !row.ReplacedBy.IsZero() || !x.of.valid(row.Certificate, p.ValidAt) {
				continue
			}
		}
		p.Limit--
		x.take(row)
	}
	return "", nil
}

func (p CertificatePage) wants(r *CertRecord) bool {
	return (p.Environment == "" || r.Environment == p.Environment) &&
		(p.Owner == "" || r.Owner == p.Owner) &&
		(p.Identity == "" || p.Identity.Matches(r.Certificate.Identity)) &&
		(p.Issuer.IsZero() || p.Issuer == r.Certificate.ID.Issuer)
}

// after is the place behind which the page begins. Of certificates in use none has ended.
func (p CertificatePage) after() (*CertRecord, error) {
	if p.After == "" {
		first := &CertRecord{Certificate: Certificate{NotAfter: earliest}}
		if !p.ValidAt.IsZero() {
			first.Certificate.NotAfter = p.ValidAt
		}
		return first, nil
	}
	end, fingerprint, _ := strings.Cut(p.After, "-")
	nanos, err := strconv.ParseInt(end, 16, 64)
	if err != nil {
		return nil, noPage(p.After)
	}
	digest, err := ParseDigest(fingerprint)
	if err != nil {
		return nil, noPage(p.After)
	}
	return &CertRecord{Certificate: Certificate{NotAfter: time.Unix(0, nanos), Fingerprint: digest}}, nil
}

func endOfCertificates(last *CertRecord) string {
	return strconv.FormatInt(last.Certificate.NotAfter.UnixNano(), 16) + "-" + last.Certificate.Fingerprint.String()
}

func noPage(token string) error {
	return fmt.Errorf("%w: %q is not where a page of this list ends", ErrInvalid, clip(token))
}

// dated is a revocation as the latest come first.
type dated struct {
	revision uint64
	key      SelectorKey
	act      *act
}

func (d dated) compare(o dated) int {
	return cmp.Or(cmp.Compare(o.revision, d.revision), strings.Compare(string(d.key), string(o.key)))
}

// revocationPage looks at all, in one walk, and keeps the latest.
func (x *excerpt) revocationPage(p RevocationPage) (string, error) {
	after, err := p.after()
	if err != nil {
		return "", err
	}
	var page []dated
	more := false
	for key, a := range x.of.Revocations.acts.from("") {
		d := dated{a.revision, SelectorKey(key), a}
		if after.compare(d) >= 0 || !p.wants(d) {
			continue
		}
		if page = append(page, d); len(page) >= 2*p.Limit {
			page, more = latest(page, p.Limit), true
		}
	}
	more = more || len(page) > p.Limit
	page = latest(page, p.Limit)
	for _, d := range page {
		x.acts[d.key] = d.act.under(d.key)
	}
	if !more {
		return "", nil
	}
	last := page[len(page)-1]
	return fmt.Sprintf("%x-%x", last.revision, string(last.key)), nil
}

func latest(page []dated, most int) []dated {
	slices.SortFunc(page, dated.compare)
	return page[:min(len(page), most)]
}

func (p RevocationPage) wants(d dated) bool {
	r := d.act
	return (p.Kind == "" || d.key.selector().Kind == p.Kind) &&
		(p.Reason == "" || r.reason.Value() == string(p.Reason)) &&
		(p.By == "" || r.by.Value() == p.By)
}

func (p RevocationPage) after() (dated, error) {
	if p.After == "" {
		return dated{revision: math.MaxUint64}, nil
	}
	revision, key, _ := strings.Cut(p.After, "-")
	var d dated
	var err error
	if d.revision, err = strconv.ParseUint(revision, 16, 64); err != nil {
		return d, noPage(p.After)
	}
	name, err := hex.DecodeString(key)
	if err != nil {
		return d, noPage(p.After)
	}
	d.key = SelectorKey(name)
	return d, nil
}
