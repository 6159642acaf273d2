package fsm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

const eraID = "fedcba98765432100123456789abcdef"

// alone begins an era in which a node of the lab goes on.
func (l *lab) alone(n string) Refounding {
	return Refounding{
		EraID: eraID, Revision: l.index + 1, Term: l.term + 1, Now: l.now,
		Member: armor.Member{ID: armor.NodeID(n), Certificate: l.nodeCert(n), PeerAddress: n + ":7432"},
	}
}

// refounded is a machine that goes on from the new era.
func (l *lab) refounded(r Refounding) *Machine {
	l.t.Helper()
	s, err := l.machine.Snapshot().Refound(r)
	if err != nil {
		l.t.Fatal(err)
	}
	m := New()
	restore(l.t, m, s)
	return m
}

// goOn has the lab's next commands applied in the new era.
func (l *lab) goOn(r Refounding) {
	l.t.Helper()
	l.machine = l.refounded(r)
	l.index, l.term = r.Revision, r.Term
	if time := l.state().Time; time.After(l.now) {
		l.now = time
	}
}

func TestNewEraIsOfOneNodeAlone(t *testing.T) {
	l := governed(t, "n2", "n3")
	l.must(l.by("ada", armor.Apply{
		Environments: []armor.Environment{{Name: "dev"}}, Databases: []armor.Database{database("dev", "app", "rw")},
		Pools: []armor.Pool{pool("dev", "app", "app", 12)},
	}))
	l.must(l.by("ada", l.token("n4", time.Hour)))
	l.must(l.by("ada", l.token("n5", time.Hour)))
	l.must(l.node("n1", l.join("n5")))
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("all"), Part: 1, Selectors: everySelector()[:1]}))
	before := l.machine.Mark()
	l.now = l.now.Add(time.Hour)
	l.goOn(l.alone("n2"))
	s := l.state()
	era := armor.Era{Number: 2, ID: eraID, Since: l.now}
	if s.Revision != before.Revision+1 || s.Cluster.ID != clusterID || s.Cluster.Era != era || !s.Time.Equal(l.now) {
		t.Errorf("revision %d after %d, cluster %+v", s.Revision, before.Revision, s.Cluster)
	}
	if m, found := s.Members.Get("n2"); !found || s.Members.Len() != 1 || m.Index != 2 || !m.Voter {
		t.Errorf("members %v", s.Members)
	}
	for _, gone := range []string{"n1", "n3"} {
		tombstone, found := s.Tombstones.Get(gone)
		if !found || !tombstone.FormerKey.IsZero() {
			t.Errorf("tombstone of %s: %+v", gone, tombstone)
		}
		if _, revoked := s.RevokesOwn(l.nodeCert(gone)); !revoked {
			t.Errorf("the key of %s is good", gone)
		}
	}
	if s.Tokens.Len()+s.Joins.Len()+s.Staged.Len() != 0 {
		t.Error("an invitation or what was staged is left")
	}
	withheld := s.Withheld()
	own, _ := s.Shares.Get(armor.ShareKey("dev/app", "n2"))
	if len(withheld) != 2 || withheld[0].Count != 4 || withheld[1].Count != 4 || own.Granted != 4 || own.Target != 12 {
		t.Errorf("withheld %v, own share %+v", withheld, own)
	}
	l.must(l.by("ada", armor.RemoveMember{Node: "n1", SharesSettled: true}))
	l.must(l.node("n2", armor.BuryTombstones{Nodes: []armor.NodeID{"n1"}}))
	l.must(l.by("ada", l.token("n1", time.Hour))) // the name is free, and the key is not
	l.must(l.node("n2", l.join("n1")))
	l.expect(l.by("ada", l.approve("n1")), armor.ErrRevoked)
}

func TestEraEndsPlansAndOldEntries(t *testing.T) {
	l := governed(t, "n2")
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}))
	kept, fresh := l.request("ada", revocationOf("kept")), l.request("ada", revocationOf("fresh"))
	l.must(l.apply(kept))
	planned := l.state().Revision
	l.goOn(l.alone("n1"))
	if r := l.apply(kept); !r.Repeated || r.Err != nil {
		t.Errorf("the retry of a request: %+v", r)
	}
	l.must(l.apply(fresh)) // signed in the old era, and never applied there
	l.expect(l.by("ada", armor.Apply{IfRevision: planned, Environments: []armor.Environment{{Name: "x"}}}), armor.ErrConflict)
	if _, err := l.machine.Apply(planned, l.term, l.entries[len(l.entries)-1]); !errors.Is(err, ErrCannotApply) {
		t.Errorf("an entry of the old era's revisions: %v", err)
	}
}

// Two that go on from one state are two histories, whatever else they have in common.
func TestErasThatDifferHaveOtherHistories(t *testing.T) {
	l := governed(t, "n2")
	one, two := l.alone("n1"), l.alone("n1")
	two.EraID = strings.Repeat("0f", 16)
	marks := map[armor.Digest]bool{l.machine.Mark().Chain: true}
	for _, r := range []Refounding{one, two, l.alone("n2")} {
		marks[l.refounded(r).Mark().Chain] = true
	}
	if len(marks) != 4 {
		t.Errorf("%d histories of 4", len(marks))
	}
	if first, again := l.refounded(one).Mark(), l.refounded(one).Mark(); first != again {
		t.Error("one era has two histories")
	}
	l.goOn(one)
	if era := l.refounded(l.alone("n1")).current.Load().world.state.Cluster.Era.Number; era != 3 {
		t.Errorf("after era 2 comes %d", era)
	}
}

// A former node of the member's name is another node: what it holds is not the member's.
func TestNodeOfTheSameNameIsAnother(t *testing.T) {
	for _, gone := range []bool{false, true} {
		l := governed(t, "n2")
		l.must(l.by("ada", armor.Apply{
			Environments: []armor.Environment{{Name: "dev"}}, Databases: []armor.Database{database("dev", "app", "rw")},
			Pools: []armor.Pool{pool("dev", "app", "app", 12)},
		}))
		if gone {
			l.must(l.by("ada", armor.RemoveMember{Node: "n2"}))
		}
		r := l.alone("n2")
		r.Member.Certificate = l.leaf("another n2", "peer", cluster.NodeIdentity("n2"))
		l.goOn(r)
		s := l.state()
		aside := "n2-era-1"
		share, _ := s.Shares.Get(armor.ShareKey("dev/app", armor.NodeID(aside)))
		own, _ := s.Shares.Get(armor.ShareKey("dev/app", "n2"))
		m, _ := s.Members.Get("n2")
		if !s.Tombstones.Has(aside) || s.Tombstones.Has("n2") || share.Granted != 6 || own.Granted != 0 || own.Target != 12 || m.Index != 3 {
			t.Errorf("removed %v: aside %+v, own %+v, member %+v", gone, share, own, m)
		}
		if _, revoked := s.RevokesOwn(l.nodeCert("n2")); !revoked {
			t.Error("the former node's key is good")
		}
		l.must(l.by("ada", armor.RemoveMember{Node: armor.NodeID(aside), SharesSettled: true}))
	}
}

func TestRefoundingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*lab, *Refounding)
		want  error
	}{
		"no later revision": {func(l *lab, r *Refounding) { r.Revision = l.index }, armor.ErrInvalid},
		"no era id":         {func(_ *lab, r *Refounding) { r.EraID = "x" }, armor.ErrInvalid},
		"another's certificate": {func(l *lab, r *Refounding) {
			r.Member.Certificate = l.nodeCert("n2")
		}, armor.ErrInvalid},
		"another's key": {func(l *lab, r *Refounding) { r.Member.Certificate.Key = l.nodeCert("n2").Key }, armor.ErrConflict},
		"a revoked key": {func(l *lab, r *Refounding) {
			r.Revoke = []armor.Revocation{{Selector: armor.Selector{Kind: armor.SelectKey, Key: l.nodeCert("n1").Key}, Reason: armor.KeyCompromise}}
		}, armor.ErrRevoked},
		"no address":      {func(_ *lab, r *Refounding) { r.Member.PeerAddress = "" }, armor.ErrInvalid},
		"nothing to mend": {func(_ *lab, r *Refounding) { r.MendTime = true }, armor.ErrConflict},
		"a selector of nothing": {func(_ *lab, r *Refounding) {
			r.Revoke = []armor.Revocation{{Selector: armor.Selector{Kind: armor.SelectKey}, Reason: armor.Superseded}}
		}, armor.ErrInvalid},
	} {
		l := governed(t, "n2")
		r := l.alone("n1")
		c.spoil(l, &r)
		if _, err := l.machine.Snapshot().Refound(r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := Refounding{EraID: eraID, Revision: 1, Member: armor.Member{ID: "n1"}}
	if _, err := New().Snapshot().Refound(r); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a state of no cluster: %v", err)
	}
	l := newLab(t)
	b := l.bootstrap("n1", "ada")
	b.Cluster.Era = armor.Era{Number: 2, ID: eraID}
	l.expect(l.node("n1", b), armor.ErrInvalid)
}

// Log time that is wrong is mended, and what was signed before does not run twice.
func TestEraMendsTime(t *testing.T) {
	l := governed(t, "n2")
	signed := l.request("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}})
	l.must(l.apply(signed))
	l.poisoned(2*year, nothing)
	kept := l.refounded(l.alone("n1"))
	if s, _ := kept.Current(); !s.Time.Equal(l.state().Time) {
		t.Errorf("log time went from %s to %s", l.state().Time, s.Time)
	}
	r := l.alone("n1")
	r.MendTime = true
	l.goOn(r)
	if want := r.Now.Add(armor.RequestWindow); !l.state().Time.Equal(want) {
		t.Errorf("log time is %s, not %s", l.state().Time, want)
	}
	l.expect(l.apply(signed), armor.ErrExpired)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "new"}}))
}

func TestOlderBuildsReadNoLaterEra(t *testing.T) {
	l := governed(t, "n2")
	headerOf := func(s Snapshot) uint32 { return s.version.world.header().MinReaderLevel }
	if first := headerOf(l.machine.Snapshot()); first != MinLevel {
		t.Errorf("the first era's snapshot is for level %d", first)
	}
	s, err := l.machine.Snapshot().Refound(l.alone("n1"))
	if err != nil {
		t.Fatal(err)
	}
	if again := headerOf(s); again != eraLevel {
		t.Errorf("the second era's snapshot is for level %d", again)
	}
}

func TestUnitedRevocationsTakeWhatEitherTakes(t *testing.T) {
	id := armor.Pattern("spiffe://dev.acme/a")
	at := func(m int, reason armor.RevocationReason, before int) armor.Revocation {
		r := armor.Revocation{Reason: reason, At: epoch.Add(time.Duration(m) * time.Minute)}
		r.Selector = armor.Selector{Kind: armor.SelectIdentity, Identity: id}
		if before >= 0 {
			r.Selector.IssuedBefore = epoch.Add(time.Duration(before) * time.Minute)
		}
		return r
	}
	all := []armor.Revocation{}
	for _, reason := range []armor.RevocationReason{armor.Superseded, armor.KeyCompromise} {
		for _, m := range []int{0, 30, 60} {
			for _, before := range []int{-1, 0, 30, 60} {
				all = append(all, at(m, reason, before))
			}
		}
	}
	takes := func(r armor.Revocation, begins, registered int) bool {
		c := armor.Certificate{Identity: armor.Identity(id), NotBefore: epoch.Add(time.Duration(begins) * time.Minute), Fingerprint: digest("x")}
		s := &armor.State{Revocations: armor.Revocations{}.With(r)}
		s.Inventory = s.Inventory.With(armor.CertRecord{Certificate: c, IssuedAt: epoch.Add(time.Duration(registered) * time.Minute)})
		_, revoked := s.RevokesOwn(c)
		_, doubted := s.Compromised(c)
		return revoked || doubted
	}
	for _, a := range all {
		for _, b := range all {
			both := strictest(a, b)
			for _, begins := range []int{-10, 10, 40, 70} {
				for _, registered := range []int{-10, 10, 40, 70} {
					if !takes(both, begins, registered) && (takes(a, begins, registered) || takes(b, begins, registered)) {
						t.Fatalf("%+v and %+v make %+v, which spares one of %d registered at %d", a, b, both, begins, registered)
					}
				}
			}
		}
	}
}

// What is known from elsewhere does not narrow what is revoked here.
func TestUnionNarrowsNothing(t *testing.T) {
	l := governed(t, "n2")
	whole := armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/a"}
	l.must(l.by("ada", armor.Revoke{Selectors: []armor.Selector{whole}, Reason: armor.Superseded}))
	narrow, fresh := whole, armor.Selector{Kind: armor.SelectKey, Key: digest("k")}
	narrow.IssuedBefore = epoch
	r := l.alone("n1")
	for _, s := range []armor.Selector{narrow, fresh} {
		r.Revoke = append(r.Revoke, armor.Revocation{Selector: s, Reason: armor.Superseded, At: epoch, By: "bob"})
	}
	l.goOn(r)
	if now, _ := l.state().Revocations.Get(whole.SelectorKey()); now.Selector != whole || now.By != "ada" {
		t.Errorf("it became %+v", now)
	}
	if now, found := l.state().Revocations.Get(fresh.SelectorKey()); !found || now.By != "bob" || now.Revision != r.Revision {
		t.Errorf("what was known elsewhere: %+v", now)
	}
}

// TestAnyStateBecomesAnEra begins an era from what any commands have led to: what was revoked
// stays so, rows that give access are those that were there, and no budget is exceeded.
// It notices a removed node whose key stays good or may still speak, a share that is forgotten or given
// away, and a union that takes the other's revocation in the place of its own.
func TestAnyStateBecomesAnEra(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := governed(rt, "n2", "n3")
		l.must(l.by("ada", armor.Apply{
			Environments: []armor.Environment{{Name: "dev"}, {Name: "prod"}},
			Databases:    []armor.Database{database("dev", "app", "rw"), database("prod", "app", "rw")},
			Pools:        []armor.Pool{pool("dev", "app", "app", 12), pool("prod", "app", "app", 9)},
		}))
		d := draw{rt, l}
		for range rapid.IntRange(1, 30).Draw(rt, "commands") {
			l.now = l.now.Add(d.upTo("later", 20) * time.Second)
			l.apply(d.request())
		}
		before := l.state()
		r := l.alone(d.node())
		if d.number("new key", 0, 1) == 1 {
			r.Member.Certificate = l.leaf("anew", "peer", cluster.NodeIdentity(r.Member.ID))
		}
		for _, name := range []string{"a", "b"} {
			r.Revoke = append(r.Revoke, armor.Revocation{Selector: d.selector(name), Reason: armor.KeyCompromise, At: l.now})
		}
		s, err := l.machine.Snapshot().Refound(r)
		if errors.Is(err, armor.ErrRevoked) || errors.Is(err, armor.ErrConflict) {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		restored := New()
		restore(rt, restored, s)
		if s.Mark() != restored.Mark() {
			rt.Fatal("an era has another mark when it is restored")
		}
		if !bytes.Equal(bytesOf(rt, s), snapshotBytes(rt, restored)) {
			rt.Fatal("a restored era is another")
		}
		eraInvariants(l, before, s.State(), r)
	})
}

func bytesOf(t rapid.TB, s Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func eraInvariants(l *lab, before, after *armor.State, r Refounding) {
	l.t.Helper()
	for key, old := range before.Revocations.All() {
		now, found := after.Revocations.Get(key)
		if !found || wider(old.Selector, now.Selector) {
			l.t.Fatalf("%s is revoked less than it was", old.Selector)
		}
	}
	for _, known := range r.Revoke {
		if now, found := after.Revocations.Get(known.Selector.SelectorKey()); !found || wider(known.Selector, now.Selector) {
			l.t.Fatalf("%s is revoked less than it is known to be", known.Selector)
		}
	}
	for _, t := range []armor.AnyTable{
		armor.Environments, armor.Anchors, armor.Inventory, armor.Identities, armor.Databases, armor.Pools, armor.Operators,
	} {
		if !slices.EqualFunc(slices.Collect(t.Rows(before)), slices.Collect(t.Rows(after)), func(a, b armor.Row) bool { return same(a, b) }) {
			l.t.Fatalf("table %s is another", t.Name())
		}
	}
	for m := range before.Members.Values() {
		_, revoked := after.RevokesOwn(m.Certificate)
		if goesOn := m.Certificate.Key == r.Member.Certificate.Key; goesOn == revoked {
			l.t.Fatalf("node %s: goes on %v, revoked %v", m.ID, goesOn, revoked)
		}
	}
	for t := range after.Tombstones.Values() {
		if !t.FormerKey.IsZero() {
			l.t.Fatalf("removed node %s may say a last word", t.ID)
		}
	}
	for key := range pools(before, after) {
		p, _ := after.Pools.Get(key)
		was, is := granted(before.SharesOf(key)), granted(after.SharesOf(key))
		if is < was || is > p.Budget && is > was {
			l.t.Fatalf("pool %s: %d granted of %d, and it was %d", key, is, p.Budget, was)
		}
		for _, share := range after.SharesOf(key) {
			if share.Node != r.Member.ID && (share.Target != 0 || !after.Tombstones.Has(string(share.Node))) {
				l.t.Fatalf("a share of node %s: %+v", share.Node, share)
			}
		}
	}
}
