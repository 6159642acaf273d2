package fsm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

func manySelectors(n int) (all []armor.Selector) {
	for i := range n {
		all = append(all, armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{
			Issuer: digest("key", "old-ca"), Serial: fmt.Sprintf("%x", 1<<60+i),
		}})
	}
	return all
}

// revokedOf counts which of the selectors a state revokes.
func revokedOf(s *armor.State, selectors []armor.Selector) (n int) {
	for _, one := range selectors {
		if _, found := s.Revocations.Get(one.SelectorKey()); found {
			n++
		}
	}
	return n
}

func (l *lab) activate(batch armor.RequestID, parts int, all []armor.Selector) armor.RevokeStaged {
	return armor.RevokeStaged{
		Batch: batch, Parts: parts, Digest: armor.StagingDigest(all), Reason: armor.Superseded, Comment: "CHG-1",
	}
}

// staging reads a batch, part= and selectors as revoke does.
func (l *lab) staging(a *arguments) armor.Command {
	c := armor.StageRevocations{Batch: batchID(a.next()), Part: a.number("part=")}
	c.Selectors = l.revocation(a).(armor.Revoke).Selectors
	return c
}

// activation reads a batch, parts= and the selectors that they are said to hold.
func (l *lab) activation(a *arguments) armor.Command {
	c := armor.RevokeStaged{Batch: batchID(a.next()), Parts: a.number("parts=")}
	r := l.revocation(a).(armor.Revoke)
	c.Digest, c.Reason, c.Comment = armor.StagingDigest(r.Selectors), r.Reason, r.Comment
	return c
}

// Whatever comes in whatever order, each state revokes all of a batch or nothing of it,
// and in the end what one revocation of all would have.
func TestABatchIsAllOrNothingInEveryState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := governed(rt)
		all := rapid.Permutation(manySelectors(9)).Draw(rt, "selectors")
		cut := rapid.IntRange(1, 8).Draw(rt, "cut")
		parts := [][]armor.Selector{all[:cut], all[cut:]}
		for range rapid.IntRange(0, 12).Draw(rt, "commands") {
			l.now = l.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(rt, "minutes")) * time.Minute)
			switch i := rapid.IntRange(0, 3).Draw(rt, "what"); i {
			case 0, 1:
				l.apply(l.request("ada", armor.StageRevocations{Batch: batchID("a"), Part: i + 1, Selectors: parts[i]}))
			case 2:
				l.apply(l.request("ada", l.activate(batchID("a"), 2, all)))
			default:
				l.apply(l.request("node/n1", armor.PruneExpired{At: l.now}))
			}
			if n := revokedOf(l.state(), all); n != 0 && n != len(all) {
				rt.Fatalf("revision %d revokes %d of %d", l.state().Revision, n, len(all))
			}
		}
		plain := governed(rt)
		for i, part := range parts {
			l.must(l.by("ada", armor.StageRevocations{Batch: batchID("b"), Part: i + 1, Selectors: part}))
		}
		l.must(l.by("ada", l.activate(batchID("b"), 2, all)))
		plain.must(plain.by("ada", armor.Revoke{Selectors: all, Reason: armor.Superseded, Comment: "CHG-1"}))
		if got, want := meant(l.state()), meant(plain.state()); !slices.Equal(got, want) {
			rt.Fatalf("revoked\n%v\nand one command revokes\n%v", got, want)
		}
		replayTwice(rt, l)
	})
}

// meant are the revocations but for when they were made.
func meant(s *armor.State) (all []armor.Revocation) {
	for r := range s.Revocations.Values() {
		r.At, r.Revision = time.Time{}, 0
		all = append(all, r)
	}
	return all
}

func TestAHundredThousandSelectorsComeIntoForceAtOnce(t *testing.T) {
	l := governed(t)
	all := manySelectors(100_000)
	parts := armor.StagingParts(all)
	largest, sum := 0, 0
	for i, part := range parts {
		l.stageUnchecked(armor.StageRevocations{Batch: batchID("a"), Part: i + 1, Selectors: part})
		size := len(l.entries[len(l.entries)-1])
		largest, sum = max(largest, size), sum+size
		if n := l.state().Revocations.Len(); n != 0 {
			t.Fatalf("%d are revoked after part %d of %d", n, i+1, len(parts))
		}
	}
	began := time.Now()
	l.stageUnchecked(l.activate(batchID("a"), len(parts), all))
	t.Logf("%d parts, the largest of %d bytes, %d in all; activated in %s", len(parts), largest, sum, time.Since(began))
	if largest > MaxEntry {
		t.Errorf("a command has %d bytes", largest)
	}
	if n := revokedOf(l.state(), all); n != len(all) || l.state().Staged.Len() != 0 {
		t.Errorf("%d are revoked, and %d parts are left", n, l.state().Staged.Len())
	}
	for r := range l.state().Revocations.Values() {
		if r.Revision != l.index {
			t.Fatalf("%s was revoked by revision %d, not by %d", r.Selector, r.Revision, l.index)
		}
	}
}

// stageUnchecked applies a command that is too large to be judged twice for nothing.
func (l *lab) stageUnchecked(c armor.Command) {
	l.t.Helper()
	entry, err := Encode(l.request("ada", c), l.now)
	if err != nil {
		l.t.Fatal(err)
	}
	l.index++
	result, err := l.machine.Apply(l.index, l.term, entry)
	if err != nil || result.Err != nil {
		l.t.Fatal(err, result.Err)
	}
	l.entries = append(l.entries, entry)
}

func TestStagedPartsAreBounded(t *testing.T) {
	l := governed(t)
	one := manySelectors(1)
	for i := range armor.MaxStagedParts {
		l.must(l.by("ada", armor.StageRevocations{Batch: batchID(fmt.Sprint(i % 3)), Part: i/3 + 1, Selectors: one}))
	}
	more := armor.StageRevocations{Batch: batchID("more"), Part: 1, Selectors: one}
	if r := l.by("ada", more); !errors.Is(r.Err, armor.ErrExhausted) {
		t.Error(r.Err)
	}
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("0"), Part: 1, Selectors: one})) // it is there already
	l.now = l.now.Add(armor.StagedLife + time.Second)
	l.must(l.node("n1", armor.PruneExpired{At: l.now}))
	l.must(l.by("ada", more))

	large := manySelectors(3000)
	if r := l.by("ada", armor.StageRevocations{Batch: batchID("more"), Part: 2, Selectors: large}); !errors.Is(r.Err, armor.ErrInvalid) {
		t.Error("a part that is too large:", r.Err)
	}
	if r := l.by("ada", armor.StageRevocations{Batch: "spring", Part: 1, Selectors: one}); !errors.Is(r.Err, armor.ErrInvalid) {
		t.Error("a batch of no name:", r.Err)
	}
}
