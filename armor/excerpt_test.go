package armor

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var dawn = time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)

func digestOf(words ...any) Digest { return sha256.Sum256([]byte(fmt.Sprint(words...))) }

// crowd is a state with a few environments, anchors and identities that meet often.
func crowd() *State {
	s := &State{Revision: 1}
	for _, env := range []string{"dev", "prod"} {
		Environments.Put(s, Environment{Name: env, Inventory: InventoryOpen})
		ca := digestOf(env, "ca")
		Anchors.Put(s, TrustAnchor{Name: env + "-ca", Environment: env, Prefix: "spiffe://acme/*",
			Certificate: Certificate{ID: CertID{Issuer: ca, Serial: "1"}, Fingerprint: digestOf(env), Key: ca}})
		Databases.Put(s, Database{Name: "db", Environment: env})
		Pools.Put(s, Pool{Name: "db", Environment: env, Database: "db"})
		for _, id := range []Pattern{"spiffe://acme/a/b", "spiffe://acme/a/*", "spiffe://acme/c"} {
			Identities.Put(s, IdentityConfig{Name: strings.NewReplacer("/", "-", "*", "all").Replace(string(id[14:])), Environment: env, ID: id,
				Grants: []Grant{{Database: "db", Roles: []string{"r"}, Pool: "db"}}})
		}
	}
	return s
}

var crowdIdentities = []Identity{"spiffe://acme/a/b", "spiffe://acme/a/x/y", "spiffe://acme/c", "spiffe://acme/d"}

// somebody is one of the certificates that the crowd may have.
func somebody(t *rapid.T) CertRecord {
	i := rapid.IntRange(0, 300).Draw(t, "certificate")
	env := []string{"dev", "prod"}[i%2]
	return CertRecord{Environment: env, Owner: fmt.Sprint("team-", i%3), IssuedAt: dawn, Certificate: Certificate{
		ID:          CertID{Issuer: digestOf(env, "ca"), Serial: fmt.Sprintf("a%07x%d", i/2, i)},
		Fingerprint: digestOf("certificate", i), Key: digestOf("key", i/3, env), Identity: crowdIdentities[i%len(crowdIdentities)],
		NotBefore: dawn.Add(-time.Hour), NotAfter: dawn.Add(time.Duration(i%7-2) * time.Hour),
	}}
}

func someSelector(t *rapid.T) Selector {
	c := somebody(t).Certificate
	identity := Pattern(c.Identity)
	if rapid.IntRange(0, 2).Draw(t, "wide") == 0 {
		identity = "spiffe://acme/a/*"
	}
	return rapid.SampledFrom([]Selector{
		{Kind: SelectCertificate, Certificate: c.ID}, {Kind: SelectKey, Key: c.Key}, {Kind: SelectIdentity, Identity: identity},
		{Kind: SelectIdentity, Identity: identity, IssuedBefore: dawn.Add(-2 * time.Hour)}, {Kind: SelectIssuer, Issuer: c.ID.Issuer},
	}).Draw(t, "selector")
}

func crowded(t *rapid.T) *State {
	s := crowd()
	for range rapid.IntRange(0, 60).Draw(t, "registered") {
		Inventory.Put(s, somebody(t))
	}
	for range rapid.IntRange(0, 3).Draw(t, "revoked") {
		s.Revision++
		reason := rapid.SampledFrom([]RevocationReason{Superseded, KeyCompromise}).Draw(t, "reason")
		Revoked.Put(s, Revocation{Selector: someSelector(t), Reason: reason, At: dawn, By: "ada", Revision: s.Revision})
	}
	return s
}

// judged is what a state says of a certificate.
func judged(s *State, c Certificate, env string) string {
	f := Facts{Peer: Peer{Leaf: c}, Database: "db", Role: "r"}
	for a := range s.Anchors.Values() {
		if a.Certificate.Key == c.ID.Issuer || env != "" {
			f.Peer.Chains = append(f.Peer.Chains, []Certificate{a.Certificate})
		}
	}
	access, denial := s.Decide(f, dawn)
	by, revoked := s.RevocationOf(c)
	return fmt.Sprint(access.Name, access.Pool.Name, denial, by, revoked)
}

// agree compares an excerpt with the whole, in every way in which one can ask about a
// certificate.
func agree(t *rapid.T, wrong mistakes) string {
	s, r := crowded(t), somebody(t)
	stranger := r.Certificate
	if rapid.Bool().Draw(t, "stranger") {
		stranger.Fingerprint, stranger.ID.Serial = digestOf("stranger"), "5"
		stranger.ID.Issuer = digestOf(rapid.SampledFrom([]string{"dev", "prod"}).Draw(t, "of"), "ca")
	}
	for _, q := range []Question{
		{Leaves: []Certificate{stranger}}, {Certificates: []string{r.Certificate.Fingerprint.String()}},
		{Certificates: []string{r.Certificate.ID.Serial}}, {Certificates: []string{r.Certificate.ID.String()}},
		{Identities: []string{string(r.Certificate.Identity)}, Each: 1000}, {Identities: []string{"a-all"}, Each: 1000},
	} {
		x, _, err := s.excerpt(q, wrong)
		if err != nil {
			return err.Error()
		}
		asked := slices.Collect(x.Inventory.Values())
		if len(q.Leaves) > 0 {
			asked = []CertRecord{{Certificate: stranger}}
		} else if s.Inventory.Has(r.Key()) != x.Inventory.Has(r.Key()) && !slices.Contains(q.Identities, "a-all") {
			return fmt.Sprintf("%+v: the certificate is registered: %t", q, s.Inventory.Has(r.Key()))
		}
		for _, each := range asked {
			if want, got := judged(s, each.Certificate, ""), judged(x, each.Certificate, ""); got != want {
				return fmt.Sprintf("%+v:\n got %s\nwant %s", q, got, want)
			}
		}
		for i := range x.Identities.Values() {
			if x.WholeIdentityRevoked(i.ID) != s.WholeIdentityRevoked(i.ID) {
				return fmt.Sprintf("%+v: %s is revoked: %t", q, i.ID, s.WholeIdentityRevoked(i.ID))
			}
		}
	}
	return ""
}

func TestAnExcerptJudgesAsTheWholeState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if fault := agree(t, mistakes{}); fault != "" {
			t.Fatal(fault)
		}
	})
}

// seen reports whether some draw shows a mistake.
func seen(t *testing.T, check func(*rapid.T) string) bool {
	t.Helper()
	example := rapid.Custom(func(t *rapid.T) string { return check(t) })
	for seed := range 2000 {
		if example.Example(seed) != "" {
			return true
		}
	}
	return false
}

func TestAnExcerptThatForgetsIsNoticed(t *testing.T) {
	for name, wrong := range map[string]mistakes{"patterns above": {forgetAbove: true}, "environments of keys": {forgetKeys: true}} {
		if !seen(t, func(t *rapid.T) string { return agree(t, wrong) }) {
			t.Errorf("an excerpt without %s passes", name)
		}
	}
}

func TestTheInventorysOrdersFollowItsRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := crowd()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if r := somebody(t); rapid.IntRange(0, 2).Draw(t, "remove") == 0 && s.Inventory.Has(r.Key()) {
				Inventory.Remove(s, r)
			} else {
				r.ReplacedBy = digestOf(rapid.Int().Draw(t, "successor"))
				Inventory.Put(s, r)
			}
		}
		anew := &State{}
		add, done := Inventory.Fill(anew)
		for r := range s.Inventory.Values() {
			add(&r)
		}
		done()
		for i := range orderings {
			if got, want := fmt.Sprint(rowsOf(s, i)), fmt.Sprint(rowsOf(anew, i)); got != want {
				t.Fatalf("order %d\n got %s\nwant %s", i, got, want)
			}
		}
		for key := range anew.KeyEnvironments.All() {
			if _, bound := s.KeyEnvironments.Get(key); !bound {
				t.Fatal("a key lost its environment")
			}
		}
	})
}

func rowsOf(s *State, order int) (rows []CertRecord) {
	for row := range s.Orders.in[order].from(&CertRecord{}) {
		rows = append(rows, *row)
	}
	return rows
}

// paged reads a list page by page while rows come and go, and says what is wrong with it.
func paged(t *rapid.T, wrong mistakes) string {
	s := crowded(t)
	stayed, listed := map[string]bool{}, map[string]int{}
	for key := range s.Inventory.All() {
		stayed[key] = true
	}
	page := CertificatePage{Limit: rapid.IntRange(1, 9).Draw(t, "limit")}
	ended := time.Time{}
	for range 1000 {
		x, next, err := s.excerpt(Question{CertificatePage: page}, wrong)
		if err != nil || x.Inventory.Len() > page.Limit {
			return fmt.Sprint(x, err)
		}
		for _, row := range rowsOf(x, byEnd) {
			if row.Certificate.NotAfter.Before(ended) {
				return "the pages are not in order"
			}
			ended = row.Certificate.NotAfter
			listed[row.Key()]++
		}
		if page.After = next; next == "" {
			break
		}
		if r := somebody(t); s.Inventory.Has(r.Key()) {
			Inventory.Remove(s, r)
			delete(stayed, r.Key())
		} else if r := somebody(t); !s.Inventory.Has(r.Key()) {
			Inventory.Put(s, r)
		}
	}
	for row, times := range listed {
		if times > 1 {
			return fmt.Sprintf("row %s was listed %d times", row, times)
		}
	}
	for row := range stayed {
		if listed[row] == 0 {
			return fmt.Sprintf("row %s was there all the time and was not listed", row)
		}
	}
	return ""
}

func TestPagesOfAChangingListHaveEachRowOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if fault := paged(t, mistakes{}); fault != "" {
			t.Fatal(fault)
		}
	})
	if !seen(t, func(t *rapid.T) string { return paged(t, mistakes{repeatEnd: true}) }) {
		t.Error("pages that repeat a row pass")
	}
}

func TestPagesOfRevocationsAreTheLatestFirst(t *testing.T) {
	s := crowd()
	for i := range 100 {
		s.Revision++
		kind := Selector{Kind: SelectKey, Key: digestOf(i)}
		if i%3 == 0 {
			kind = Selector{Kind: SelectCertificate, Certificate: CertID{Issuer: digestOf("ca"), Serial: fmt.Sprint("f", i)}}
		}
		by := []string{"ada", "bob"}[i%2]
		Revoked.Put(s, Revocation{Selector: kind, Reason: Superseded, By: by, Revision: s.Revision})
	}
	page, last, count := RevocationPage{Limit: 7, By: "bob", Kind: SelectKey}, s.Revision+1, 0
	for {
		x, next, err := s.Excerpt(Question{RevocationPage: page})
		if err != nil || x.Revocations.Len() > 7 {
			t.Fatal(err)
		}
		rows := slices.SortedFunc(x.Revocations.Values(), func(a, b Revocation) int { return int(b.Revision) - int(a.Revision) })
		for _, r := range rows {
			if r.Revision >= last || r.By != "bob" || r.Selector.Kind != SelectKey {
				t.Fatalf("%+v after %d", r, last)
			}
			last, count = r.Revision, count+1
		}
		if page.After = next; next == "" {
			break
		}
	}
	if count != 33 {
		t.Errorf("%d of 33", count)
	}
}

func TestAQuestionIsBounded(t *testing.T) {
	s := crowd()
	long := strings.Repeat("a", maxAskedWord+1)
	for name, q := range map[string]Question{
		"too many words":    {Certificates: make([]string, MaxAsked+1)},
		"a short word":      {Certificates: []string{"4f1a"}},
		"a long word":       {Certificates: []string{long}},
		"a long identity":   {Identities: []string{long}},
		"a long database":   {Database: long},
		"too many of each":  {Certificates: []string{"4f1a4f1a"}, Each: maxBrought + 1},
		"less than none":    {Each: -1},
		"a long page":       {CertificatePage: CertificatePage{Limit: MaxPage + 1}},
		"a long other page": {RevocationPage: RevocationPage{Limit: MaxPage + 1}},
		"no place":          {CertificatePage: CertificatePage{Limit: 1, After: "there"}},
		"half a place":      {CertificatePage: CertificatePage{Limit: 1, After: "12-4f"}},
		"no other place":    {RevocationPage: RevocationPage{Limit: 1, After: "xyz-"}},
		"no selector":       {Selectors: []Selector{{Kind: "door"}}},
	} {
		if _, _, err := s.Excerpt(q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := (&State{}).Excerpt(Question{CertificatePage: CertificatePage{Limit: 1}}); err != nil {
		t.Error(err)
	}
}

func FuzzPlaceInAList(f *testing.F) {
	f.Add("12-4f")
	f.Add("7-03aa")
	f.Fuzz(func(t *testing.T, place string) {
		s := crowd()
		Inventory.Put(s, CertRecord{Certificate: Certificate{Fingerprint: digestOf(1), NotAfter: dawn}})
		Revoked.Put(s, Revocation{Selector: Selector{Kind: SelectKey, Key: digestOf(1)}})
		for _, q := range []Question{
			{CertificatePage: CertificatePage{Limit: 1, After: place}}, {RevocationPage: RevocationPage{Limit: 1, After: place}},
		} {
			if _, _, err := s.Excerpt(q); err != nil && !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
		}
	})
}

func TestPageOfAnIssuerHasItsCertificatesAlone(t *testing.T) {
	s := crowd()
	for i := range 20 {
		Inventory.Put(s, CertRecord{Environment: "dev", Certificate: Certificate{
			ID: CertID{Issuer: digestOf("ca", i%2), Serial: fmt.Sprint("a", i)}, Fingerprint: digestOf("certificate", i),
			Identity: crowdIdentities[0], NotAfter: dawn.Add(time.Duration(i) * time.Hour),
		}})
	}
	page, found := CertificatePage{Limit: 3, Issuer: digestOf("ca", 1)}, 0
	for {
		x, next, err := s.Excerpt(Question{CertificatePage: page})
		if err != nil || x.Inventory.Len() > 3 {
			t.Fatal(x.Inventory.Len(), err)
		}
		for r := range x.Inventory.Values() {
			if found++; r.Certificate.ID.Issuer != page.Issuer {
				t.Errorf("%+v", r)
			}
		}
		if page.After = next; next == "" {
			break
		}
	}
	if found != 10 {
		t.Errorf("%d found", found)
	}
}

func TestNamesThatBeginSoAreBoundedInEachEnvironment(t *testing.T) {
	s := crowd()
	for i := range 50 {
		Identities.Put(s, IdentityConfig{Name: fmt.Sprintf("shop-%02d", i), Environment: "dev", ID: Pattern(fmt.Sprint("spiffe://acme/shop/", i))})
	}
	Identities.Put(s, IdentityConfig{Name: "shop-prod", Environment: "prod", ID: "spiffe://acme/shop"})
	for prefix, want := range map[string]int{"shop-": 11, "shop-0": 10, "shop-49": 1, "shopping": 0, "": 14} {
		x, _, err := s.Excerpt(Question{Names: NamesBegun{Prefix: prefix, Limit: 10}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range x.Identities.Values() {
			if !strings.HasPrefix(i.Name, prefix) {
				t.Errorf("%q brings %s", prefix, i.Name)
			}
		}
		if n := x.Identities.Len(); n != want {
			t.Errorf("%q brings %d, want %d", prefix, n, want)
		}
	}
	if x, _, _ := s.Excerpt(Question{Names: NamesBegun{Prefix: "shop"}}); x.Identities.Len() != 0 {
		t.Error("names that were not asked for")
	}
	if err := (Question{Names: NamesBegun{Limit: MaxPage + 1}}).Check(); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
}
