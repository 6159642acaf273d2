package armor_test

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func digest(s string) armor.Digest { return sha256.Sum256([]byte(s)) }

// world is a state in which the client below may reach database orders of
// production as checkout_rw from 10.0.0.0/8.
func world() *armor.State {
	s := &armor.State{Revision: 7}
	s.Environments = s.Environments.
		With(armor.Environment{Name: "production", Inventory: armor.InventoryOpen}).
		With(armor.Environment{Name: "staging", Inventory: armor.InventoryOpen})
	s.Anchors = s.Anchors.With(armor.TrustAnchor{
		Name: "prod-ca", Environment: "production", Prefix: "spiffe://production.acme/*",
		Certificate: armor.Certificate{Fingerprint: digest("prod-ca"), Key: digest("prod-ca-key")},
	})
	s.Databases = s.Databases.
		With(armor.Database{Name: "orders", Environment: "production"}).
		With(armor.Database{Name: "scratch", Environment: "staging"})
	s.Pools = s.Pools.With(armor.Pool{Name: "orders", Environment: "production", Database: "orders", Budget: 4})
	return withIdentity(s, armor.Grant{
		Database: "orders", Roles: []string{"checkout_rw"}, Pool: "orders",
		CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
}

func withIdentity(s *armor.State, grants ...armor.Grant) *armor.State {
	s.Identities = s.Identities.With(armor.IdentityConfig{
		Name: "checkout", Environment: "production", ID: "spiffe://production.acme/app/checkout",
		Owner: "payments", Grants: grants, MaxConnections: 30,
	})
	s.Grants = s.Grants.With("production/spiffe://production.acme/app/checkout", "checkout")
	return s
}

func checkout() armor.Facts {
	return armor.Facts{
		Peer: armor.Peer{
			Leaf: armor.Certificate{
				ID:          armor.CertID{Issuer: digest("prod-ca-key"), Serial: "4f1a"},
				Fingerprint: digest("leaf"), Key: digest("leaf-key"),
				Identity:  "spiffe://production.acme/app/checkout",
				NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
			},
			Chains: [][]armor.Certificate{{{ID: armor.CertID{Issuer: digest("prod-ca-key"), Serial: "1"},
				Fingerprint: digest("prod-ca"), Key: digest("prod-ca-key")}}},
			Source: netip.MustParseAddrPort("10.2.3.4:5555"),
		},
		Database: "orders", Role: "checkout_rw",
	}
}

func revoke(s *armor.State, selector armor.Selector) {
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: selector})
}

func TestGrantedClientGetsItsPool(t *testing.T) {
	access, denial := world().Decide(checkout(), noon)
	if denial != nil {
		t.Fatal(denial)
	}
	if access.Pool.Key() != "production/orders" || access.Owner != "payments" ||
		access.MaxConnections != 30 || access.Anchor != "prod-ca" || access.Revision != 7 {
		t.Fatalf("access = %+v", access)
	}
}

func TestEveryWrongThingIsDeniedWithItsOwnReason(t *testing.T) {
	cases := []struct {
		name   string
		change func(*armor.State, *armor.Facts)
		want   armor.Reason
	}{
		{"certificate revoked", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectCertificate, Certificate: f.Peer.Leaf.ID})
		}, armor.ReasonRevoked},
		{"key revoked", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectKey, Key: digest("leaf-key")})
		}, armor.ReasonRevoked},
		{"identity revoked", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.acme/app/*"})
		}, armor.ReasonRevoked},
		{"identity revoked before a later issue", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.acme/app/checkout", IssuedBefore: noon})
		}, armor.ReasonRevoked},
		{"issuer revoked", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectIssuer, Issuer: digest("prod-ca-key")})
		}, armor.ReasonRevoked},
		{"the issuer of the anchor revoked", func(s *armor.State, f *armor.Facts) {
			f.Peer.Chains[0][0].ID.Issuer = digest("root-key")
			revoke(s, armor.Selector{Kind: armor.SelectIssuer, Issuer: digest("root-key")})
		}, armor.ReasonRevoked},
		{"an issuer in the chain revoked", func(s *armor.State, f *armor.Facts) {
			revoke(s, armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: digest("prod-ca-key"), Serial: "1"}})
		}, armor.ReasonRevoked},
		{"expired", func(_ *armor.State, f *armor.Facts) { f.Peer.Leaf.NotAfter = noon.Add(-1) }, armor.ReasonExpired},
		{"not valid yet", func(_ *armor.State, f *armor.Facts) {
			f.Peer.Leaf.NotBefore = noon.Add(armor.ClockSkew + 1)
		}, armor.ReasonNotYetValid},
		{"too long a life", func(s *armor.State, _ *armor.Facts) {
			s.Environments = s.Environments.With(armor.Environment{Name: "production", MaxLeafLifetime: time.Hour})
		}, armor.ReasonLifetime},
		{"anchor taken back", func(s *armor.State, _ *armor.Facts) {
			s.Anchors = s.Anchors.Without(digest("prod-ca").String())
		}, armor.ReasonUntrusted},
		{"no chain at all", func(_ *armor.State, f *armor.Facts) { f.Peer.Chains = nil }, armor.ReasonUntrusted},
		{"anchor bound elsewhere", func(s *armor.State, _ *armor.Facts) {
			s.Anchors = s.Anchors.With(armor.TrustAnchor{Certificate: armor.Certificate{Fingerprint: digest("prod-ca")},
				Environment: "production", Prefix: "spiffe://production.acme/batch/*"})
		}, armor.ReasonBinding},
		{"serverAuth from an anchor not marked for it", func(_ *armor.State, f *armor.Facts) { f.Peer.ServerAuth = true }, armor.ReasonProfile},
		{"issuer expired", func(_ *armor.State, f *armor.Facts) { f.Peer.Chains[0][0].NotAfter = noon.Add(-1) }, armor.ReasonExpired},
		{"key of another environment", func(s *armor.State, _ *armor.Facts) {
			s.KeyEnvironments = s.KeyEnvironments.With(digest("leaf-key").String(), "staging")
		}, armor.ReasonKeyReuse},
		{"unregistered", func(s *armor.State, _ *armor.Facts) {
			s.Environments = s.Environments.With(armor.Environment{Name: "production", Inventory: armor.InventoryRequired})
		}, armor.ReasonUnregistered},
		{"database of another environment", func(_ *armor.State, f *armor.Facts) { f.Database = "scratch" }, armor.ReasonEnvironment},
		{"no such database", func(_ *armor.State, f *armor.Facts) { f.Database = "nowhere" }, armor.ReasonDatabase},
		{"identity without grants", func(s *armor.State, _ *armor.Facts) { withIdentity(s) }, armor.ReasonDatabase},
		{"identity nobody knows",
			func(_ *armor.State, f *armor.Facts) { f.Peer.Leaf.Identity = "spiffe://production.acme/app/other" }, armor.ReasonDatabase},
		{"role not granted", func(_ *armor.State, f *armor.Facts) { f.Role = "postgres" }, armor.ReasonRole},
		{"address not granted", func(_ *armor.State, f *armor.Facts) {
			f.Peer.Source = netip.MustParseAddrPort("192.0.2.1:1")
		}, armor.ReasonAddress},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, f := world(), checkout()
			c.change(s, &f)
			_, denial := s.Decide(f, noon)
			if denial == nil || denial.Reason != c.want {
				t.Fatalf("denial = %+v, want reason %s", denial, c.want)
			}
			if !errors.Is(denial, armor.ErrDenied) || denial.Message == "" || denial.Detail == "" {
				t.Fatalf("denial says too little: %+v", denial)
			}
		})
	}
}

func TestUnknownAndNotGrantedDatabasesReadAlike(t *testing.T) {
	s := world()
	texts := map[string]bool{}
	for _, database := range []string{"orders2", "scratch"} {
		f := checkout()
		f.Database = database
		_, denial := s.Decide(f, noon)
		texts[denial.Message[:len(denial.Message)-len(database)-2]] = true
	}
	if len(texts) != 1 {
		t.Fatalf("a stranger can tell them apart: %v", texts)
	}
}

func TestReissuedCertificateOutlivesIssuedBeforeRevocation(t *testing.T) {
	s, f := world(), checkout()
	revoke(s,
		armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.acme/app/checkout", IssuedBefore: f.Peer.Leaf.NotBefore})
	if _, denial := s.Decide(f, noon); denial != nil {
		t.Fatalf("a certificate issued at the cut is refused: %v", denial)
	}
}

func TestOneGoodChainIsEnough(t *testing.T) {
	s, f := world(), checkout()
	bad := []armor.Certificate{{Fingerprint: digest("old-ca"), Key: digest("old-ca-key")}}
	f.Peer.Chains = append([][]armor.Certificate{bad}, f.Peer.Chains...)
	if _, denial := s.Decide(f, noon); denial != nil {
		t.Fatal(denial)
	}
}

func TestCancelKeyNamesItsNode(t *testing.T) {
	for _, node := range []uint16{1, 2, 513, armor.MaxNodeIndex} {
		for _, random := range []uint64{0, 1, 1<<63 | 12345, 1<<64 - 1} {
			if got, _ := armor.NewTransactionKey(node, random).Nodes(); got != node {
				t.Fatalf("transaction key of node %d names %d", node, got)
			}
			key := armor.NewSessionKey(node, 4242, random)
			if _, got := key.Nodes(); got != node || key.PID != 4242 {
				t.Fatalf("session key of node %d names %d, pid %d", node, got, key.PID)
			}
			if int32(armor.NewTransactionKey(node, random).PID) <= 0 {
				t.Fatal("a process id must be positive")
			}
		}
	}
}

func TestOnlyANodeMakesALongCancelKey(t *testing.T) {
	signer := []byte("shared by all nodes")
	key := armor.NewSessionKey(3, 4242, 99).Lengthen(513, [14]byte{1, 2, 3}, signer)
	a, b := key.Nodes()
	if !key.IsLong() || !key.Genuine(signer) || key.PID != 4242 || key.Secret != 0 || a != 513 || b != 513 {
		t.Fatalf("%+v names %d and %d", key, a, b)
	}
	if key.Genuine([]byte("another cluster's")) {
		t.Error("a key of another cluster is taken for ours")
	}
	for i := range key.Long {
		forged := key
		forged.Long[i] ^= 1
		if forged.Genuine(signer) || forged.Equal(key) {
			t.Errorf("a change of byte %d is not seen", i)
		}
	}
	if other := (armor.CancelKey{PID: 4243, Long: key.Long}); other.Genuine(signer) || other.Equal(key) {
		t.Error("the secret is taken with another process id")
	}
	if short := (armor.CancelKey{PID: 4242}); short.Equal(key) {
		t.Error("a key of protocol 3.0 is equal to one of 3.2")
	}
}

func TestCanonicalEncodingTellsValuesApart(t *testing.T) {
	type pair struct{ A, B string }
	values := []any{pair{"ab", "c"}, pair{"a", "bc"}, pair{A: "abc"}, pair{B: "abc"},
		[]string{"a", "b"}, []string{"ab"}, []byte("ab"), 1, uint(1), true, noon}
	seen := map[string]int{}
	for i, v := range values {
		key := string(armor.Canonical(v))
		if j, dup := seen[key]; dup {
			t.Errorf("values %d and %d have one encoding", i, j)
		}
		seen[key] = i
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://production.acme.internal/app/checkout")
	f.Add("spiffe://td/../x")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := armor.ParseIdentity(s)
		if err != nil {
			return
		}
		if string(id) != s || "spiffe://"+id.TrustDomain()+id.Path() != s {
			t.Fatalf("%q is not what was parsed", s)
		}
		for _, p := range id.Patterns() {
			if !p.Matches(id) {
				t.Fatalf("%q does not match its own %q", s, p)
			}
			if _, err := armor.ParsePattern(string(p)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestSecondFactorIsAskedForAndThenDemanded(t *testing.T) {
	s := withIdentity(world(), armor.Grant{Database: "orders", Roles: []string{"checkout_rw"}, Pool: "orders", SecondFactor: armor.SCRAM})
	s.Databases = s.Databases.With(armor.Database{Name: "orders", Environment: "production", Verifiers: "apps"})
	f := checkout()
	if access, denial := s.Decide(f, noon); denial != nil || access.SecondFactor != armor.SCRAM || access.Database.Verifiers != "apps" {
		t.Fatalf("before the login is over: %+v, %v", access, denial)
	}
	for name, c := range map[string]struct {
		proved    armor.SecondFactor
		verifiers string
		allowed   bool
	}{
		"nothing proved":            {"", "", false},
		"proved":                    {armor.SCRAM, "apps", true},
		"proved by other ones":      {armor.SCRAM, "apps-2024", false},
		"something else was proved": {"otp", "apps", false},
	} {
		f.LoggedIn, f.SecondFactor, f.Verifiers = true, c.proved, c.verifiers
		_, denial := s.Decide(f, noon)
		if (denial == nil) != c.allowed || denial != nil && denial.Reason != armor.ReasonSecondFactor {
			t.Errorf("%s: %v", name, denial)
		}
	}
	f.SecondFactor = armor.SCRAM
	byQuery := armor.Database{Name: "orders", Environment: "production", Query: armor.AuthQuery{Role: "looker", Statement: "SELECT $1"}}
	s.Databases = s.Databases.With(byQuery)
	if f.Verifiers = byQuery.VerifiedBy(); !allows(s, f) {
		t.Error("proved by what a query had returned, and denied")
	}
	byQuery.Query.Statement = "SELECT $1 FROM elsewhere"
	if s.Databases = s.Databases.With(byQuery); allows(s, f) {
		t.Error("proved by what another query had returned, and allowed")
	}
	f.SecondFactor, f.Verifiers = "", ""
	if _, denial := world().Decide(f, noon); denial != nil {
		t.Errorf("where none is asked for: %v", denial)
	}
}

func allows(s *armor.State, f armor.Facts) bool {
	_, denial := s.Decide(f, noon)
	return denial == nil
}

func TestConsoleIsGrantedAsADatabaseWithoutAPool(t *testing.T) {
	now := noon
	s := withIdentity(world(), armor.Grant{Database: armor.ConsoleDatabasePgBouncer, Roles: []string{armor.ConsoleStats, "root"}})
	facts := checkout()
	facts.Database, facts.Role = armor.ConsoleDatabasePgBouncer, armor.ConsoleStats
	access, denial := s.Decide(facts, now)
	if denial != nil || access.Database.Name != armor.ConsoleDatabasePgBouncer ||
		access.Database.Environment != access.Environment || access.Pool.Name != "" {
		t.Errorf("%+v, %v", access, denial)
	}
	for _, c := range []struct {
		database, role string
		want           armor.Reason
	}{
		{armor.ConsoleDatabasePgBouncer, armor.ConsoleAdmin, armor.ReasonRole},
		{armor.ConsoleDatabasePgBouncer, "root", armor.ReasonRole}, // granted, as the machine would not, and yet no role
		{armor.ConsoleDatabase, armor.ConsoleStats, armor.ReasonDatabase},
	} {
		facts.Database, facts.Role = c.database, c.role
		if _, denial := s.Decide(facts, now); denial == nil || denial.Reason != c.want {
			t.Errorf("%s as %s: %v, want %s", c.database, c.role, denial, c.want)
		}
	}
}

// issuedAnew is a certificate of the same identity with the given dates.
func issuedAnew(name string, notBefore time.Time) armor.Facts {
	f := checkout()
	f.Peer.Leaf.Fingerprint, f.Peer.Leaf.Key, f.Peer.Leaf.ID.Serial = digest(name), digest(name+" key"), "aa"
	f.Peer.Leaf.NotBefore, f.Peer.Leaf.NotAfter = notBefore, notBefore.Add(time.Hour)
	return f
}

func TestKeyCompromiseSparesNoCertificateThatNobodyVouchedForSince(t *testing.T) {
	s := world()
	emptied := armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.acme/*", IssuedBefore: noon}
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: emptied, Reason: armor.KeyCompromise, At: noon})
	register := func(f armor.Facts, at time.Time) {
		s.Inventory = s.Inventory.With(armor.CertRecord{Certificate: f.Peer.Leaf, Environment: "production", IssuedAt: at})
	}
	for name, ahead := range map[string]time.Duration{
		"at once": 0, "20 s": 20 * time.Second, "45 s": 45 * time.Second, "a day": 24 * time.Hour,
	} {
		f := issuedAnew(name, noon.Add(ahead))
		later := noon.Add(ahead)
		if _, denial := s.Decide(f, later); denial == nil || denial.Reason != armor.ReasonRevoked {
			t.Errorf("one that begins %s after it: %v", name, denial)
		}
		register(f, noon.Add(-time.Second))
		if _, denial := s.Decide(f, later); denial == nil || denial.Reason != armor.ReasonRevoked {
			t.Errorf("one that begins %s after it and was registered before: %v", name, denial)
		}
		register(f, noon.Add(time.Second))
		if _, denial := s.Decide(f, later); denial != nil {
			t.Errorf("one that begins %s after it and was registered since: %v", name, denial)
		}
	}
	long := emptied
	long.IssuedBefore = noon.Add(-time.Hour)
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: long, Reason: armor.KeyCompromise, At: noon})
	if _, denial := s.Decide(issuedAnew("named instant", noon), noon); denial != nil {
		t.Errorf("where an instant of the past was named, dates are enough: %v", denial)
	}
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: emptied, Reason: armor.Superseded, At: noon})
	if _, denial := s.Decide(issuedAnew("superseded", noon), noon); denial != nil {
		t.Errorf("for another reason dates are enough: %v", denial)
	}
}

func TestWhoIsGrantedNothingHereIsDeniedEverything(t *testing.T) {
	elsewhere := checkout().Peer
	elsewhere.Source = netip.MustParseAddrPort("192.0.2.1:5555")
	stranger := checkout().Peer
	stranger.Leaf.Identity = "spiffe://production.acme/app/other"
	revoked := world()
	revoke(revoked, armor.Selector{Kind: armor.SelectKey, Key: digest("leaf-key")})
	for _, c := range []struct {
		name  string
		state *armor.State
		peer  armor.Peer
		want  armor.Reason
	}{
		{"granted", world(), checkout().Peer, ""},
		{"from elsewhere", world(), elsewhere, armor.ReasonAddress},
		{"unknown identity", world(), stranger, armor.ReasonDatabase},
		{"no grant", withIdentity(world()), checkout().Peer, armor.ReasonDatabase},
		{"revoked", revoked, checkout().Peer, armor.ReasonRevoked},
	} {
		_, denial := c.state.DecideAny(c.peer, noon)
		if denial == nil && c.want != "" || denial != nil && denial.Reason != c.want {
			t.Errorf("%s: %+v", c.name, denial)
		}
	}
}
