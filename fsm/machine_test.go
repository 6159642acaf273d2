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

func TestSignatureOfADryRunMovesNothing(t *testing.T) {
	l := governed(t, "n2")
	question := l.request("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "prod"}})
	question.DryRun = true
	question = l.sign(question)
	entry, err := l.machine.Check(question, l.now)
	if err != nil {
		t.Fatal("the question:", err)
	}
	if result, err := l.machine.Apply(l.index+1, l.term, entry); err != nil || !errors.Is(result.Err, armor.ErrDenied) {
		t.Fatalf("its entry: %v, %v", result.Err, err)
	}
	l.index++
	if _, err := Encode(question, l.now); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("as an entry: %v", err)
	}
	question.DryRun = false
	if result := l.apply(question); !errors.Is(result.Err, armor.ErrDenied) {
		t.Errorf("carried out: %v", result.Err)
	}
	question.DryRun = true
	question.Signature = l.sign(armor.Request{ID: question.ID, Principal: "ada", Expires: question.Expires, Command: question.Command}).Signature
	if _, err := l.machine.Check(question, l.now); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("an order as a question: %v", err)
	}
}

// removal is a cluster of three without n3, which an entry of a level has removed.
func removal(t *testing.T, level uint32) *lab {
	t.Helper()
	l := governed(t, "n2", "n3")
	r := l.request("ada", armor.RemoveMember{Node: "n3"})
	w := l.machine.current.Load().world
	w, result := w.step(w.state.Revision+1, l.term, entry{request: r, proposedAt: l.now, level: level})
	l.must(result)
	old := l.machine.current.Load()
	l.machine.publish(old, &version{world: w, chain: old.chain})
	l.index = w.state.Revision
	return l
}

// TestRemovalRevokesTheKeyOfTheNode, and a new key comes in under the old name.
func TestRemovalRevokesTheKeyOfTheNode(t *testing.T) {
	l := removal(t, Level)
	key := l.nodeCert("n3").Key
	r, found := l.state().Revokes(l.nodeCert("n3"), nil)
	if !found || r.Selector.Key != key || r.Reason != armor.CessationOfOperation || r.By != "ada" {
		t.Fatalf("%+v, %v", r, found)
	}
	if tomb, _ := l.state().Tombstones.Get("n3"); tomb.FormerKey != key {
		t.Fatalf("%+v", tomb)
	}
	l.must(l.node("n1", armor.BuryTombstones{Nodes: []armor.NodeID{"n3"}}))
	l.must(l.by("ada", l.token("n3", time.Hour)))
	l.must(l.node("n1", l.join("n3")))
	if result := l.by("ada", l.approve("n3")); !errors.Is(result.Err, armor.ErrRevoked) {
		t.Fatalf("the old key is admitted again: %v", result.Err)
	}
	anew := l.approve("n3")
	anew.Certificate.Key = digest("a new key")
	l.must(l.by("ada", anew))
}

// TestRemovalOfAnOldLogMeansWhatItMeant.
func TestRemovalOfAnOldLogMeansWhatItMeant(t *testing.T) {
	l := removal(t, 6)
	if _, found := l.state().Revokes(l.nodeCert("n3"), nil); found {
		t.Fatal("it revokes")
	}
	if tomb, _ := l.state().Tombstones.Get("n3"); !tomb.FormerKey.IsZero() {
		t.Fatalf("%+v", tomb)
	}
}

// TestRevokedNodeHasNoLastWord when it is removed.
func TestRevokedNodeHasNoLastWord(t *testing.T) {
	l := governed(t, "n2", "n3")
	key := armor.Selector{Kind: armor.SelectKey, Key: l.nodeCert("n3").Key}
	l.must(l.by("ada", armor.Revoke{Selectors: []armor.Selector{key}, Reason: armor.KeyCompromise}))
	l.must(l.by("ada", armor.RemoveMember{Node: "n3"}))
	if tomb, found := l.state().Tombstones.Get("n3"); !found || !tomb.FormerKey.IsZero() {
		t.Fatalf("%+v", tomb)
	}
	if r, _ := l.state().Revokes(l.nodeCert("n3"), nil); r.Reason != armor.KeyCompromise {
		t.Fatalf("%+v", r)
	}
}
