package armor

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
)

// NodeID names a node of the cluster. It is the last path segment of the node's
// certificate identity and its Raft server id.
type NodeID string

// ParseNodeID checks that s can name a node: 1 to 63 characters of a–z, 0–9 and
// '-', beginning with a letter, as in a DNS label.
func ParseNodeID(s string) (NodeID, error) {
	ok := len(s) >= 1 && len(s) <= maxName && s[0] >= 'a' && s[0] <= 'z'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return "", fmt.Errorf("%w: node id %q must have 1 to %d characters of a–z, 0–9 and '-', beginning with a letter",
			ErrInvalid, clip(s), maxName)
	}
	return NodeID(s), nil
}

// maxName bounds the names of nodes and objects.
const maxName = 63

// CheckName reports whether s can name an environment, database, pool, identity or
// operator: 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or
// digit. what names the thing in the error.
func CheckName(what, s string) error {
	ok := len(s) >= 1 && len(s) <= maxName && isAlphanumeric(s[0])
	for _, c := range []byte(s) {
		ok = ok && (isAlphanumeric(c) || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("%w: %s %q must have 1 to %d letters, digits, '-', '_' and '.', beginning with a letter or digit",
			ErrInvalid, what, clip(s), maxName)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Identity is a SPIFFE ID in its one canonical spelling, such as
// spiffe://production.acme.internal/app/checkout. Make one with ParseIdentity;
// comparing two with == is then comparing the identities.
type Identity string

const (
	spiffeScheme   = "spiffe://"
	maxIdentity    = 2048 // SPIFFE-ID §2.3
	maxTrustDomain = 255  // SPIFFE-ID §2.1
)

// ParseIdentity checks s against the SPIFFE-ID grammar (SPIFFE-ID §2): scheme
// spiffe, a lower-case trust domain without user info or port, a path of
// non-empty segments of letters, digits, '.', '-' and '_' that are neither "."
// nor "..", and neither query nor fragment. Nothing is normalised: what is not
// canonical is refused, so that two spellings can never be one identity.
func ParseIdentity(s string) (Identity, error) {
	path, err := checkIdentity(s)
	if err != nil {
		return "", err
	}
	if path == "" {
		return "", fmt.Errorf("%w: identity %q has no path", ErrInvalid, clip(s))
	}
	return Identity(s), nil
}

// TrustDomain returns the host part, "production.acme.internal".
func (id Identity) TrustDomain() string {
	domain, _, _ := strings.Cut(strings.TrimPrefix(string(id), spiffeScheme), "/")
	return domain
}

// Path returns the path with its leading slash, "/app/checkout".
func (id Identity) Path() string {
	rest := strings.TrimPrefix(string(id), spiffeScheme)
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return ""
}

// checkIdentity checks everything but that there is a path, and returns the path.
func checkIdentity(s string) (path string, err error) {
	if len(s) > maxIdentity {
		return "", fmt.Errorf("%w: identity is longer than %d bytes", ErrInvalid, maxIdentity)
	}
	domain, ok := strings.CutPrefix(s, spiffeScheme)
	if !ok {
		return "", fmt.Errorf("%w: identity %q does not begin with spiffe://", ErrInvalid, clip(s))
	}
	if i := strings.IndexByte(domain, '/'); i >= 0 {
		domain, path = domain[:i], domain[i:]
	}
	if err := checkTrustDomain(domain); err != nil {
		return "", fmt.Errorf("%w in identity %q", err, clip(s))
	}
	if path == "" {
		return "", nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if err := checkSegment(segment); err != nil {
			return "", fmt.Errorf("%w in identity %q", err, clip(s))
		}
	}
	return path, nil
}

func checkTrustDomain(domain string) error {
	if domain == "" || len(domain) > maxTrustDomain {
		return fmt.Errorf("%w: trust domain must have 1 to %d characters", ErrInvalid, maxTrustDomain)
	}
	for _, c := range []byte(domain) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' {
			continue
		}
		return fmt.Errorf("%w: trust domain may hold only a–z, 0–9, '-', '.' and '_'", ErrInvalid)
	}
	return nil
}

func checkSegment(segment string) error {
	if segment == "" || segment == "." || segment == ".." {
		return fmt.Errorf("%w: path segment %q", ErrInvalid, segment)
	}
	for _, c := range []byte(segment) {
		if !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("%w: character %q", ErrInvalid, c)
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// Pattern is an identity, or an identity prefix that ends in "/*" and matches
// every identity below it: spiffe://prod/app/* matches spiffe://prod/app/a and
// spiffe://prod/app/a/host/h, but not spiffe://prod/app. Nothing else is special.
type Pattern string

// ParsePattern checks s: an identity, optionally followed by "/*". A bare trust
// domain followed by "/*" stands for every identity of that domain.
func ParsePattern(s string) (Pattern, error) {
	prefix, wild := strings.CutSuffix(s, "/*")
	if path, err := checkIdentity(prefix); err != nil {
		return "", err
	} else if path == "" && !wild {
		return "", fmt.Errorf("%w: identity %q has no path", ErrInvalid, clip(s))
	}
	return Pattern(s), nil
}

// Matches reports whether id is the pattern's identity or lies below it.
func (p Pattern) Matches(id Identity) bool {
	if prefix, wild := strings.CutSuffix(string(p), "*"); wild {
		return strings.HasPrefix(string(id), prefix) && len(id) > len(prefix)
	}
	return string(p) == string(id)
}

// Covers reports whether every identity that q matches is also matched by p.
func (p Pattern) Covers(q Pattern) bool {
	prefix, wild := strings.CutSuffix(string(p), "*")
	if !wild {
		return p == q
	}
	return strings.HasPrefix(string(q), prefix) && len(q) > len(prefix)-1
}

// Patterns returns every pattern that matches id, the most exact first: the id
// itself, then each parent with "/*". A set of patterns is searched by looking up
// each of these, whatever the set's size.
func (id Identity) Patterns() []Pattern {
	all := []Pattern{Pattern(id)}
	for end := len(id); ; {
		i := strings.LastIndexByte(string(id[:end]), '/')
		if i < len(spiffeScheme) {
			return all
		}
		all = append(all, Pattern(id[:i])+"/*")
		end = i
	}
}

// Digest is a SHA-256 digest; its text form is lower-case hex.
type Digest [32]byte

// ParseDigest reads 64 hex digits, with or without ':' between the bytes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ToLower(s), ":", ""))
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("%w: %q is not a SHA-256 digest (64 hex digits)", ErrInvalid, clip(s))
	}
	copy(d[:], b)
	return d, nil
}

// String is the text form.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first eight hex digits, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:4]) }

// IsZero reports whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// CertID names one certificate the way RFC 5280 §4.1.2.2 makes it unique: the key
// that issued it and its serial number. A serial alone names nothing.
type CertID struct {
	Issuer Digest // SHA-256 of the issuer's SubjectPublicKeyInfo
	Serial string // lower-case hex without leading zeros
}

// String is issuer/serial.
func (c CertID) String() string { return c.Issuer.String() + "/" + c.Serial }

// IsZero reports whether c names no certificate.
func (c CertID) IsZero() bool { return c == CertID{} }

// Certificate is what we keep of an X.509 certificate once it has been parsed and
// checked: facts that can be compared without parsing again.
type Certificate struct {
	ID          CertID
	Fingerprint Digest   // SHA-256 of the DER encoding
	Key         Digest   // SHA-256 of the SubjectPublicKeyInfo (SPKI)
	Identity    Identity // its one URI SAN; empty for a CA certificate
	NotBefore   time.Time
	NotAfter    time.Time
}

// Peer is a client as it was proven on one connection: it holds the private key
// of Leaf, and each of Chains leads from Leaf to a certificate that was a trust
// anchor at the time.
type Peer struct {
	Leaf   Certificate
	Chains [][]Certificate // issuers only, nearest first, the anchor last
	Source netip.AddrPort
	// ServerAuth says that the leaf is fit for servers too, which only an anchor
	// marked SVID may issue.
	ServerAuth bool
}

// LogValue keeps log lines short and free of key material.
func (p Peer) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String(KeyIdentity, string(p.Leaf.Identity)),
		slog.String(KeySerial, p.Leaf.ID.Serial),
		slog.String(KeySource, p.Source.String()),
	)
}
