package armor_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestOnlyCanonicalIdentitiesParse(t *testing.T) {
	good := []string{
		"spiffe://production.acme.internal/app/checkout",
		"spiffe://acme.internal/env/production/app/checkout/host/web-3",
		"spiffe://a/B_c.D-1",
	}
	for _, s := range good {
		if id, err := armor.ParseIdentity(s); err != nil || string(id) != s {
			t.Errorf("ParseIdentity(%q) = %q, %v", s, id, err)
		}
	}
	bad := []string{
		"", "spiffe://", "spiffe://td", "spiffe://td/", "spiffe:///app", "http://td/app",
		"SPIFFE://td/app", "spiffe://TD/app", "spiffe://td:80/app", "spiffe://u@td/app",
		"spiffe://td/a//b", "spiffe://td/a/", "spiffe://td/./a", "spiffe://td/../a",
		"spiffe://td/a%2fb", "spiffe://td/a?q", "spiffe://td/a#f", "spiffe://td/é", "spiffe://td/a\x00",
		"spiffe://td/*", "spiffe://" + strings.Repeat("a", 256) + "/x", "spiffe://td/" + strings.Repeat("a", 2048),
	}
	for _, s := range bad {
		if _, err := armor.ParseIdentity(s); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("ParseIdentity(%q) accepted it (%v)", s, err)
		}
	}
}

func TestPatternMatchesOnlyAtSegmentBoundaries(t *testing.T) {
	cases := []struct {
		pattern, id string
		want        bool
	}{
		{"spiffe://td/app/*", "spiffe://td/app/a", true},
		{"spiffe://td/app/*", "spiffe://td/app/a/host/h", true},
		{"spiffe://td/app/*", "spiffe://td/app", false},
		{"spiffe://td/app/*", "spiffe://td/apple/a", false},
		{"spiffe://td/*", "spiffe://td/app", true},
		{"spiffe://td/*", "spiffe://td.evil/app", false},
		{"spiffe://td/app", "spiffe://td/app", true},
		{"spiffe://td/app", "spiffe://td/app/a", false},
	}
	for _, c := range cases {
		p, err := armor.ParsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		id := armor.Identity(c.id)
		if got := p.Matches(id); got != c.want {
			t.Errorf("%s matches %s = %v", c.pattern, c.id, got)
		}
		listed := false
		for _, q := range id.Patterns() {
			listed = listed || q == p
		}
		if listed != c.want {
			t.Errorf("%s among Patterns of %s = %v", c.pattern, c.id, listed)
		}
	}
}

func TestSignatureBindsClusterRequestDeadlineAndPayload(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	request := armor.Request{
		ID: "00112233445566778899aabbccddeeff", Principal: "ada", Expires: time.Unix(1000, 0),
		Command: armor.Revoke{Selectors: []armor.Selector{{Kind: armor.SelectIdentity, Identity: "spiffe://td/app"}},
			Reason: armor.KeyCompromise},
	}
	digest := request.SigningDigest("c1")
	if request.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		t.Fatal(err)
	}
	if err := request.Verify("c1", public); err != nil {
		t.Fatal(err)
	}
	forgeries := map[string]func(*armor.Request) string{
		"cluster":   func(*armor.Request) string { return "c2" },
		"id":        func(r *armor.Request) string { r.ID = "ff112233445566778899aabbccddeeff"; return "c1" },
		"principal": func(r *armor.Request) string { r.Principal = "eve"; return "c1" },
		"deadline":  func(r *armor.Request) string { r.Expires = r.Expires.Add(1); return "c1" },
		"payload":   func(r *armor.Request) string { r.Command = armor.Revoke{Reason: armor.Superseded}; return "c1" },
		"kind":      func(r *armor.Request) string { r.Command = armor.PruneExpired{}; return "c1" },
	}
	for name, forge := range forgeries {
		forged := request
		cluster := forge(&forged)
		if err := forged.Verify(cluster, public); !errors.Is(err, armor.ErrDenied) {
			t.Errorf("a request with another %s verifies: %v", name, err)
		}
	}
}

func TestCanonicalIgnoresHowNothingIsSpelt(t *testing.T) {
	type inner struct{ List []string }
	type value struct {
		When  time.Time
		List  []string
		Inner inner
		Kept  [][]byte
	}
	bare := armor.Canonical(value{Kept: [][]byte{nil}})
	spelt := armor.Canonical(value{When: time.Time{}.Local(), List: []string{}, Inner: inner{List: []string{}}, Kept: [][]byte{{}}})
	if !bytes.Equal(bare, spelt) {
		t.Fatalf("%q\n%q", bare, spelt)
	}
}
