package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestCurrentIsSupersededByApplyRestoreAndRefusal(t *testing.T) {
	l := governed(t)
	expect := func(what string, act func()) {
		t.Helper()
		before, superseded := l.machine.Current()
		act()
		select {
		case <-superseded:
		default:
			t.Fatalf("%s: superseded is still open", what)
		}
		if after, _ := l.machine.Current(); after == before {
			t.Fatalf("%s: the same state is in force", what)
		}
	}
	expect("apply", func() { l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}})) })
	expect("refusal", func() { l.by("eve", armor.PutEnvironment{}) })
	if got, _ := l.machine.Current(); got.Revision != l.index || l.machine.LastCommand() != l.index {
		t.Fatalf("a refused entry left revision %d, not %d", got.Revision, l.index)
	}
	// Trap: a revocation may arrive inside a snapshot, without any Apply.
	other := governed(t)
	expect("a snapshot of an earlier revision is refused", func() {
		before := l.machine.Mark()
		if err := l.machine.Restore(bytes.NewReader(snapshotBytes(t, other.machine))); err == nil || l.machine.Mark() != before {
			t.Fatalf("restored: %v", err)
		}
		l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}))
	})
	for other.index < l.index {
		other.must(other.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}))
	}
	other.must(other.by("ada",
		armor.Revoke{Reason: armor.KeyCompromise, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest("stolen")}}}))
	snapshot := other.machine.Snapshot()
	expect("restore", func() { restore(t, l.machine, snapshot) })
	if l.state().Revocations.Len() != 1 {
		t.Fatal("the revocation of the snapshot is not in force")
	}
}

func TestFollowersEndOnTheLastState(t *testing.T) {
	l := governed(t)
	const last = 40
	target := l.index + last
	var followers sync.WaitGroup
	for range 4 {
		followers.Go(func() {
			for seen := uint64(0); ; {
				s, superseded := l.machine.Current()
				if s.Revision < seen {
					t.Errorf("revision fell from %d to %d", seen, s.Revision)
				}
				if seen = s.Revision; seen == target {
					return
				}
				l.machine.Mark()
				<-superseded
			}
		})
	}
	for i := range last {
		l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: fmt.Sprint("e", i)}}))
	}
	followers.Wait()
}

func TestTimeOfTheLogNeverGoesBack(t *testing.T) {
	l := governed(t)
	l.now = l.now.Add(-time.Hour)
	r := l.request("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}})
	r.Expires = epoch.Add(time.Minute)
	result := l.must(l.apply(l.sign(r)))
	if !result.Time.Equal(epoch) || !l.state().Time.Equal(epoch) {
		t.Fatalf("log time is %s", l.state().Time)
	}
}

func TestExpiredOperatorCannotAct(t *testing.T) {
	l := governed(t)
	l.now = l.operator("ada").Certificate.NotAfter.Add(time.Second)
	if err := l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}).Err; !errors.Is(err, armor.ErrDenied) {
		t.Fatal(err)
	}
}

func TestOperatorKeyIsTheKeyOfItsCertificate(t *testing.T) {
	l := governed(t)
	mallory := l.operator("mallory", armor.Viewer)
	mallory.Certificate.Key = digest("another key")
	if err := l.by("ada", armor.PutOperator{Operator: mallory}).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Fatal(err)
	}
	twin := l.operator("twin")
	twin.PublicKey, twin.Certificate.Key = l.operator("ada").PublicKey, l.operator("ada").Certificate.Key
	if err := l.by("ada", armor.PutOperator{Operator: twin}).Err; !errors.Is(err, armor.ErrConflict) {
		t.Fatal(err)
	}
}

func TestOnePrincipalCannotFillTheMemoryOfRequests(t *testing.T) {
	l := governed(t)
	d := l.machine.current.Load().world.edit()
	for i := range maxLiveRequests {
		d.remember(outcome{
			Principal: "ada", Request: armor.RequestID(fmt.Sprintf("e%031x", i)), Expires: l.now.Add(time.Minute),
			Revision: 1, Term: 1, Time: epoch,
		})
	}
	l.machine.publish(l.machine.current.Load(), &version{world: d.finish()})
	dev := armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}
	if err := l.by("ada", dev).Err; !errors.Is(err, armor.ErrExhausted) {
		t.Fatal(err)
	}
	l.must(l.node("n1", armor.PruneExpired{})) // others go on
	l.now = l.now.Add(2 * time.Minute)
	l.must(l.by("ada", dev))
	if left := l.machine.current.Load().world.requests.Len(); left > 10 {
		t.Fatalf("%d requests are remembered after their end", left)
	}
}

func TestRevokingManyIsOneCommand(t *testing.T) {
	l := governed(t)
	c := armor.Revoke{Reason: armor.CACompromise}
	for i := range 10_000 {
		c.Selectors = append(c.Selectors,
			armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: digest("ca"), Serial: fmt.Sprintf("f%x", i)}})
	}
	l.must(l.by("ada", c))
	if n := l.state().Revocations.Len(); n != len(c.Selectors) {
		t.Fatal(n)
	}
	replayTwice(t, l)
}

func TestPublishedStatesAreNeverTouchedAgain(t *testing.T) {
	l := governed(t, "n2")
	l.must(l.by("ada", armor.Apply{
		Environments: []armor.Environment{{Name: "dev"}}, Databases: []armor.Database{database("dev", "app", "rw")},
		Pools: []armor.Pool{pool("dev", "app", "app", 10)},
	}))
	s := l.state()
	before := l.machine.current.Load().world.hash()
	held := l.machine.current.Load().world
	l.must(l.by("ada", armor.Apply{Pools: []armor.Pool{pool("dev", "app", "app", 4)}}))
	l.must(l.by("ada", armor.RemoveMember{Node: "n2"}))
	if held.hash() != before || held.state != s || s.Members.Len() != 2 {
		t.Fatal("an older state changed")
	}
}
