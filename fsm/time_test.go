package fsm

import (
	"errors"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// poisoned carries log time ahead, as an entry by a clock that is wrong can, does what is
// to be done in the wrong time, and puts the clock right.
func (l *lab) poisoned(by time.Duration, meanwhile func()) {
	l.t.Helper()
	l.now = l.now.Add(by)
	l.must(l.node("n1", armor.PruneExpired{At: l.now.Add(-by)}))
	meanwhile()
	l.now = l.now.Add(-by)
}

func nothing() {}

// year is longer than any certificate of the lab lives.
const year = 365 * 24 * time.Hour

func revocationOf(name string) armor.Revoke {
	return armor.Revoke{Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest(name)}}, Reason: armor.Superseded}
}

func (l *lab) expect(r armor.Result, kind error) {
	l.t.Helper()
	if !errors.Is(r.Err, kind) {
		l.t.Errorf("expected %v, got %v", kind, r.Err)
	}
}

func TestRevocationIsRefusedForNoTime(t *testing.T) {
	l := governed(t)
	early, late := l.request("ada", revocationOf("early")), l.request("ada", revocationOf("late"))
	early.Expires, late.Expires = l.now.Add(-time.Hour), l.now.Add(2*year)
	l.must(l.apply(l.sign(early)))
	l.must(l.apply(l.sign(late)))
	l.poisoned(20*year, nothing) // ada's certificate is over by then
	l.must(l.by("ada", revocationOf("poisoned")))
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("all"), Part: 1, Selectors: everySelector()[:1]}))
	l.must(l.by("ada", armor.RevokeStaged{
		Batch: batchID("all"), Parts: 1, Digest: armor.StagingDigest(everySelector()[:1]), Reason: armor.Superseded,
	}))
	l.expect(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "late"}}), armor.ErrExpired)
	l.expect(l.apply(forged(l.request("ada", revocationOf("forged")))), armor.ErrExpired)
	replayTwice(t, l)
}

func forged(r armor.Request) armor.Request {
	r.Signature[len(r.Signature)-1] ^= 1
	return r
}

// Members of an older release can apply a revocation that time is not in the way of.
func TestRevocationIsOfItsOldLevelWhileTimeIsRight(t *testing.T) {
	l := governed(t)
	entry, err := l.machine.Check(l.request("ada", revocationOf("a")), l.now)
	if err != nil {
		t.Fatal(err)
	}
	if kind, level := LevelOf(entry); kind != "revoke" || level != 1 {
		t.Errorf("it is %s of level %d", kind, level)
	}
	l.poisoned(time.Hour, nothing)
	if entry, err = l.machine.Check(l.request("ada", revocationOf("a")), l.now); err != nil {
		t.Fatal(err)
	}
	if _, level := LevelOf(entry); level != timelessLevel {
		t.Errorf("the one that time would refuse is of level %d", level)
	}
}

// An entry of an earlier level means what it meant: a revocation was over, too.
func TestOldEntryOfARevocationThatWasOverStaysRefused(t *testing.T) {
	l := governed(t)
	r := l.request("ada", revocationOf("a"))
	r.Expires = l.now.Add(-time.Hour)
	entry, err := Encode(l.sign(r), l.now)
	if err != nil {
		t.Fatal(err)
	}
	result, err := l.machine.Apply(l.index+1, l.term, entry)
	if err != nil || !errors.Is(result.Err, armor.ErrExpired) {
		t.Errorf("got %v, %v", result.Err, err)
	}
}

func TestMendingTakesLogTimeBackOnce(t *testing.T) {
	l := governed(t)
	l.expect(l.by("ada", armor.MendTime{From: l.state().Time}), armor.ErrConflict) // nothing to mend
	l.poisoned(20*year, nothing)
	wrong := l.state().Time
	l.expect(l.by("ada", armor.MendTime{From: wrong.Add(time.Second)}), armor.ErrConflict)
	mend := l.request("ada", armor.MendTime{From: wrong})
	result := l.must(l.apply(mend))
	if got := l.state().Time; !got.Equal(l.now.Add(armor.RequestWindow)) || !result.Time.Equal(got) {
		t.Errorf("log time is %s, and the clocks agree on %s", got, l.now)
	}
	l.expect(l.by("ada", armor.MendTime{From: wrong}), armor.ErrConflict)
	l.now = l.now.Add(21 * year)
	l.must(l.node("n1", armor.PruneExpired{At: l.now}))
	if again := l.apply(mend); !again.Repeated || l.state().Time.Before(l.now) {
		t.Errorf("what was signed once took log time back again, to %s: %+v", l.state().Time, again)
	}
	replayTwice(t, l)
	snapshotAtEveryPrefix(t, l)
}

func TestMendingNeedsARequestOfNowByACAAdmin(t *testing.T) {
	l := governed(t)
	l.must(l.by("ada", armor.PutOperator{Operator: l.operator("bob", armor.Revoker)}))
	old := l.request("ada", armor.MendTime{})
	l.poisoned(year, nothing)
	l.expect(l.by("bob", armor.MendTime{}), armor.ErrDenied)
	l.expect(l.node("n1", armor.MendTime{}), armor.ErrDenied)
	l.now = l.now.Add(time.Hour)
	l.expect(l.apply(old), armor.ErrExpired)
	if !l.state().Time.After(l.now.Add(time.Hour)) {
		t.Error("log time was taken back")
	}
}

// runsTwice has a request run, carries log time ahead so that its outcome is forgotten,
// mends log time, and reports whether the same request runs again.
func runsTwice(t *testing.T, mend func(*lab)) bool {
	l := governed(t)
	first := l.request("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "a"}})
	l.must(l.apply(first))
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "a", Cancel: armor.CancelTLSOnly}}))
	l.poisoned(time.Hour, nothing)
	mend(l)
	l.now = l.now.Add(time.Minute)
	return l.apply(first).Err == nil
}

func TestMendedLogRunsNothingTwice(t *testing.T) {
	if runsTwice(t, func(l *lab) { l.must(l.by("ada", armor.MendTime{From: l.state().Time})) }) {
		t.Fatal("a request ran a second time")
	}
}

func TestMendingToTheVeryTimeIsNoticed(t *testing.T) {
	mend := func(l *lab) { // a planted mistake: log time is taken back to now, and no further
		v := l.machine.current.Load()
		d := v.world.edit()
		d.Time = l.now
		l.machine.publish(v, &version{world: d.finish(), chain: v.chain})
	}
	if !runsTwice(t, mend) {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestWhatWasMadeInTheWrongTimeDoesNotOutliveItsMending(t *testing.T) {
	l := governed(t)
	l.must(l.by("ada", l.token("n2", time.Hour)))
	l.poisoned(year, func() {
		l.must(l.by("ada", l.token("n3", time.Hour)))
		l.must(l.by("ada", l.token("n4", time.Hour)))
		l.must(l.node("n1", l.join("n4")))
		l.must(l.by("ada", armor.StageRevocations{Batch: batchID("late"), Part: 1, Selectors: everySelector()[:1]}))
	})
	l.must(l.by("ada", armor.MendTime{From: l.state().Time}))
	s := l.state()
	for token := range s.Tokens.Values() {
		if token.Node != "n2" {
			t.Errorf("the token for %s is good until %s", token.Node, token.Expires)
		}
	}
	for j := range s.Joins.Values() {
		if j.At.After(s.Time) {
			t.Errorf("the request of %s was made at %s", j.Node, j.At)
		}
	}
	for p := range s.Staged.Values() {
		if p.At.After(s.Time) {
			t.Errorf("a part was staged at %s", p.At)
		}
	}
	if n := l.machine.current.Load().world.liveRequests("node/n1"); n > 0 {
		t.Errorf("%d requests of the cluster's own are remembered until then", n)
	}
	if s.Tokens.Len() != 1 {
		t.Errorf("%d tokens are left, and one was made in the right time", s.Tokens.Len())
	}
}
