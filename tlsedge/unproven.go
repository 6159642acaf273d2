package tlsedge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

const (
	// maxSources is how many sources' failed handshakes are remembered; the one that has been
	// quiet for longest goes first.
	maxSources = 512
	// maxOfSource is how many certificates, or kinds of failure, of one source.
	maxOfSource = 16
	// cureEvery is how often it is worked out for one source what it lacks: that checks signatures.
	cureEvery = 100 * time.Millisecond
)

// unproven are the latest handshakes that failed, apart from the denials, which no flood of
// strangers may push out. One source pushes out only its own.
type unproven struct {
	mu      sync.Mutex // guards below
	sources map[netip.Addr]stranger
}

// stranger is a source; it has failed at least once.
type stranger struct {
	failed []failed  // the latest last
	cured  time.Time // when it was last worked out what one of these lacks
}

// failed is a failure as it is remembered; what is alike of one source is one.
type failed struct {
	leaf  armor.Digest // of the certificate; zero: none was shown
	cured bool         // it is known what it lacks
	armor.Unproven
}

func newUnproven() *unproven { return &unproven{sources: map[netip.Addr]stranger{}} }

// note remembers a failure and returns it with what can be done, which is worked out once for a
// certificate and a revision, and no more often for one source than cureEvery says unless it is to
// be logged.
func (u *unproven) note(now armor.Unproven, leaf armor.Digest, logged bool, cure func() string) armor.Unproven {
	f := failed{leaf: leaf, Unproven: now}
	before, last := u.like(f)
	switch {
	case before.cured && before.Revision == now.Revision:
		f.Cure, f.cured = before.Cure, true
	case logged || now.At.Sub(last).Abs() >= cureEvery:
		f.Cure, f.cured = cure(), true
		last = now.At
	}
	return u.put(f, last)
}

func (f failed) like(o failed) bool {
	return f.leaf == o.leaf && (!f.leaf.IsZero() || f.Error == o.Error)
}

// like returns the failure that is remembered and alike, and when the source was last looked into.
func (u *unproven) like(f failed) (before failed, cured time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sources[armor.SourceOf(f.Source.Addr())]
	if i := slices.IndexFunc(s.failed, f.like); i >= 0 {
		before = s.failed[i]
	}
	return before, s.cured
}

// put makes a failure the latest of its source.
func (u *unproven) put(f failed, cured time.Time) armor.Unproven {
	u.mu.Lock()
	defer u.mu.Unlock()
	source := armor.SourceOf(f.Source.Addr())
	s, known := u.sources[source]
	if !known && len(u.sources) >= maxSources {
		u.forgetLocked()
	}
	if i := slices.IndexFunc(s.failed, f.like); i >= 0 {
		f.Times += s.failed[i].Times
		s.failed = slices.Delete(s.failed, i, i+1)
	} else if len(s.failed) >= maxOfSource {
		s.failed = slices.Delete(s.failed, 0, 1)
	}
	u.sources[source] = stranger{append(s.failed, f), cured}
	return f.Unproven
}

// forgetLocked forgets the source that has been quiet for longest.
func (u *unproven) forgetLocked() {
	var oldest netip.Addr
	var last failed
	for source, s := range u.sources {
		if latest := s.failed[len(s.failed)-1]; !oldest.IsValid() || latest.At.Before(last.At) {
			oldest, last = source, latest
		}
	}
	delete(u.sources, oldest)
}

// of returns the failures of an address, the latest first.
func (u *unproven) of(source netip.Addr, most int) (found []armor.Unproven) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range slices.Backward(u.sources[armor.SourceOf(source)].failed) {
		if f.Source.Addr() == source && len(found) < most {
			found = append(found, f.Unproven)
		}
	}
	return found
}

// claimed is what failed, and what the certificate said of itself.
func (p *proof) claimed(err error, source netip.AddrPort) armor.Unproven {
	u := armor.Unproven{At: p.edge.cfg.Lease.Now().UTC(), Source: source, Times: 1, Revision: p.terms.revision, Sent: len(p.shown)}
	if lost, ok := errors.AsType[*net.OpError](err); ok {
		err = lost.Err // without the ports, which differ each time
	}
	u.Error = pki.Clip(err.Error())
	if len(p.shown) > 0 {
		leaf := p.shown[0]
		u.Subject, u.Issuer = pki.Clip(leaf.Subject.String()), pki.Clip(leaf.Issuer.String())
		u.Serial, u.Authority = pki.Clip(leaf.SerialNumber.Text(16)), pki.Clip(hex.EncodeToString(leaf.AuthorityKeyId))
	}
	return u
}

func (p *proof) leaf() armor.Digest {
	if len(p.shown) == 0 {
		return armor.Digest{}
	}
	return sha256.Sum256(p.shown[0].Raw)
}

// cure is what an operator can do about certificates that lead to no anchor.
func (p *proof) cure() string {
	return pki.Gap(p.shown, p.terms.verifier.Anchors(), p.edge.cfg.Lease.Now())
}

// shown is what a log line says of certificates that lead to no anchor.
func shown(u armor.Unproven) []any {
	if u.Sent == 0 {
		return nil
	}
	said := slog.Group(armor.KeyUnproven, armor.KeySubject, u.Subject, armor.KeyIssuer, u.Issuer,
		armor.KeySerial, u.Serial, armor.KeyAuthority, u.Authority, armor.KeySent, u.Sent)
	if u.Cure == "" {
		return []any{said}
	}
	return []any{said, armor.KeyHint, u.Cure}
}

// Refusals are the latest of an address, at most that many of each kind.
func (e *Edge) Refusals(source netip.Addr, most int) armor.SourceRefusals {
	source = source.Unmap()
	return armor.SourceRefusals{Node: e.cfg.Node, Denials: e.denials.of(source, most), Unproven: e.unproven.of(source, most)}
}
