package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

func TestANodeRenewsForItselfOnly(t *testing.T) {
	l := newLab(t, 2)
	peers := l.nodes["n2"].peers
	q := filled[armor.Renewal]()
	q.Node = "n2"
	answer, err := peers.Renew(t.Context(), "n1", q)
	if err != nil || answer != (armor.Freshness{Term: 3, Index: q.Applied, Bound: time.Second}) {
		t.Fatalf("%+v, %v", answer, err)
	}
	if asked := l.nodes["n1"].asked; len(asked) != 1 || fmt.Sprint(asked[0]) != fmt.Sprint(q) {
		t.Errorf("asked %+v, want %+v", asked, q)
	}
	q.Node = "n1"
	if _, err := peers.Renew(t.Context(), "n1", q); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("in another's name: %v", err)
	}
}

func TestANodeAttestsToMembers(t *testing.T) {
	l := newLab(t, 2)
	a, err := l.nodes["n2"].peers.Attest(t.Context(), "n1", 9)
	if err != nil || a.Mark != (armor.Mark{Revision: 9, Chain: armor.Digest{1}}) || a.LastIndex != 12 || a.LastTerm != 3 {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestTheLeadersRefusalOfARenewalKeepsItsKind(t *testing.T) {
	l := newLab(t, 2)
	l.nodes["n1"].answer = func(context.Context, armor.Renewal) (armor.Freshness, error) {
		return armor.Freshness{}, &armor.NotLeaderError{Leader: "n7"}
	}
	_, err := l.nodes["n2"].peers.Renew(t.Context(), "n1", armor.Renewal{Node: "n2"})
	moved, ok := errors.AsType[*armor.NotLeaderError](err)
	if !ok || moved.Leader != "n7" {
		t.Errorf("%v", err)
	}
}

func TestARestartedPeerIsReachedByTheNextCall(t *testing.T) {
	l := newLab(t, 2)
	n1, peers := l.nodes["n1"], l.nodes["n2"].peers
	for range 3 {
		if _, err := peers.Renew(t.Context(), "n1", armor.Renewal{Node: "n2"}); err != nil {
			t.Fatal(err)
		}
		address := n1.address
		n1.kill()
		if _, err := peers.Renew(t.Context(), "n1", armor.Renewal{Node: "n2"}); !errors.Is(err, armor.ErrUnavailable) {
			t.Fatalf("a dead peer answered: %v", err)
		}
		n1.listen(address)
		if _, err := peers.Renew(t.Context(), "n1", armor.Renewal{Node: "n2"}); err != nil {
			t.Fatalf("after a restart: %v", err)
		}
	}
}

func TestACancelIsAnsweredByTheNodeWhoseKeyItIs(t *testing.T) {
	l := newLab(t, 2)
	for pid, want := range map[uint32]bool{7: true, 8: false} {
		for _, plaintext := range []bool{false, true} { // it arrives as it was sent
			key := armor.CancelKey{PID: pid}
			if plaintext {
				key.Long[0] = 1
			}
			if found, err := l.nodes["n2"].peers.Cancel(t.Context(), "n1", key, plaintext); err != nil || found != want {
				t.Errorf("pid %d, plaintext %t: %v, %v", pid, plaintext, found, err)
			}
		}
	}
}

func TestOneNodeDoesNotGuessCancelKeysWithoutEnd(t *testing.T) {
	l := newLab(t, 3)
	for range cancelBurst {
		l.nodes["n1"].server.cancels.admit("n2")
	}
	var err error
	for range cancelBurst { // some come back meanwhile
		if _, err = l.nodes["n2"].peers.Cancel(t.Context(), "n1", armor.CancelKey{PID: 8}, true); err != nil {
			break
		}
	}
	if !errors.Is(err, armor.ErrExhausted) {
		t.Errorf("%v", err)
	}
	if found, err := l.nodes["n3"].peers.Cancel(t.Context(), "n1", armor.CancelKey{PID: 7}, false); err != nil || !found {
		t.Errorf("another node pays for it: %v", err)
	}
}

func TestANodeTellsWhatItsOwnClockShows(t *testing.T) {
	l := newLab(t, 2)
	l.nodes["n1"].clockAhead = -time.Hour
	began := time.Now()
	shown, err := l.nodes["n2"].peers.Clock(t.Context(), "n1")
	if off := shown.Add(time.Hour).Sub(began); err != nil || off < 0 || off > time.Since(began) {
		t.Errorf("%s, %v", shown, err)
	}
}

func TestAMuteConnectionIsGivenUpForRenewals(t *testing.T) {
	l := newLab(t, 2)
	peers := l.nodes["n2"].peers
	l.nodes["n1"].answer = func(context.Context, armor.Renewal) (armor.Freshness, error) {
		<-t.Context().Done() // and not the call's: its deadline would be an answer, now and then in time
		return armor.Freshness{}, t.Context().Err()
	}
	var seen []*strand
	for range maxMute + 1 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // enough to connect, on a busy machine too
		if _, err := peers.Renew(ctx, "n1", armor.Renewal{Node: "n2"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
		n := peers.nodes["n1"]
		n.renewals.mu.Lock()
		seen = append(seen, n.renewals.current)
		n.renewals.mu.Unlock()
	}
	if seen[0] == nil || seen[maxMute-1] != nil || seen[maxMute] == nil {
		t.Errorf("connections after each silence: %v", seen)
	}
}

func TestClosedPeersRefuseCalls(t *testing.T) {
	l := newLab(t, 1)
	peers := NewPeers(l.nodes["n1"])
	peers.Close()
	if _, err := peers.Renew(t.Context(), "n1", armor.Renewal{}); !errors.Is(err, armor.ErrShuttingDown) {
		t.Error(err)
	}
}

func session(node armor.NodeID, id uint64, identity armor.Identity) armor.SessionInfo {
	return armor.SessionInfo{ID: id, Node: node, Certificate: armor.Certificate{Identity: identity}, State: "idle"}
}

func TestSurveysNameTheNodesThatDidNotAnswer(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("vic", armor.Viewer), "n1")
	l.nodes["n1"].sessions = []armor.SessionInfo{session("n1", 2, "spiffe://td/a"), session("n1", 1, "spiffe://td/b")}
	l.nodes["n2"].sessions = []armor.SessionInfo{session("n2", 1, "spiffe://td/a")}
	l.nodes["n3"].kill()
	all, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := labels(all); got != "n1/1 n1/2 n2/1 silent n3" {
		t.Errorf("sessions: %s", got)
	}
	cut, err := c.Preview(t.Context(), []armor.Selector{{Kind: armor.SelectIdentity, Identity: "spiffe://td/a"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := labels(cut); got != "n1/2 n2/1 silent n3" {
		t.Errorf("preview: %s", got)
	}
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 3 {
		t.Fatalf("%+v, %v", nodes, err)
	}
	for i, n := range nodes {
		dead := i == 2
		if n.Node != armor.NodeID(fmt.Sprintf("n%d", i+1)) || (n.Unreachable != "") != dead ||
			(n.Version == "") != dead || dead && n.PeerAddress != l.nodes["n3"].address {
			t.Errorf("%+v", n)
		}
	}
}

func labels(s SessionSurvey) string {
	var all []string
	for _, x := range s.Sessions {
		all = append(all, fmt.Sprintf("%s/%d", x.Node, x.ID))
	}
	for _, x := range s.Silent {
		all = append(all, "silent "+string(x.Node))
	}
	return strings.Join(all, " ")
}

func TestPreviewNeedsSelectorsThatMeanSomething(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("vic", armor.Viewer), "n1")
	for _, selectors := range [][]armor.Selector{nil, {{Kind: armor.SelectIdentity}}, {{Kind: "x"}}} {
		if _, err := c.Preview(t.Context(), selectors); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%v: %v", selectors, err)
		}
	}
}

func TestDenialsAreFoundWhereverTheyAreRemembered(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("vic", armor.Viewer), "n1")
	record := filled[armor.DenialRecord]()
	l.nodes["n1"].denials["here"], l.nodes["n3"].denials["there"] = record, record
	l.nodes["n2"].kill()
	for _, id := range []string{"here", "there"} {
		got, err := c.Denial(t.Context(), id)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(record) {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	_, err := c.Denial(t.Context(), "nowhere")
	if !errors.Is(err, armor.ErrNotFound) || !strings.Contains(err.Error(), "node n2 did not answer") {
		t.Errorf("nowhere: %v", err)
	}
}

func TestRefusalsOfASourceComeFromEveryNodeAndNoMoreThanAsked(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("vic", armor.Viewer), "n1")
	record, claim := filled[armor.DenialRecord](), filled[armor.Unproven]()
	source := claim.Source.Addr()
	record.Facts.Peer.Source = claim.Source
	l.nodes["n1"].denials["here"], l.nodes["n3"].denials["there"] = record, record
	l.nodes["n3"].unproven = []armor.Unproven{claim, claim, claim}
	l.nodes["n2"].kill()
	got, err := c.Refusals(t.Context(), source, 2)
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, want := range []armor.SourceRefusals{
		{Node: "n1", Denials: []armor.DenialRecord{record}},
		{Node: "n2", Unreachable: got[1].Unreachable},
		{Node: "n3", Denials: []armor.DenialRecord{record}, Unproven: []armor.Unproven{claim, claim}},
	} {
		if fmt.Sprint(got[i]) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", got[i], want)
		}
	}
	if got[1].Unreachable == "" {
		t.Error("nobody says that n2 did not answer")
	}
	for _, most := range []int{0, -1, armor.MaxRefusals + 1} {
		if _, err := c.Refusals(t.Context(), source, most); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%d: %v", most, err)
		}
	}
	if _, err := c.Refusals(t.Context(), netip.Addr{}, 1); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no address: %v", err)
	}
}

// noTable is none of armor.Tables.
type noTable struct{}

func (noTable) Name() string { return "passwords" }

func TestStateArrivesWholeAndInSmallChunks(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("vic", armor.Viewer), "n1")
	var f filler
	l.change(func(s *armor.State) {
		var inventory []armor.CertRecord
		for i := range 8000 {
			f.n++
			r := filled[armor.CertRecord]()
			r.Certificate.Fingerprint, r.Certificate.Key = hashSecret(fmt.Append(nil, i)), hashSecret(fmt.Append(nil, "k", i))
			inventory = append(inventory, r)
		}
		armor.Inventory.Put(s, inventory...)
		i := filled[armor.IdentityConfig]()
		s.Identities = s.Identities.With(i)
		t := filled[armor.JoinToken]()
		s.Tokens = s.Tokens.With(t)
		s.NextIndex = 5
	})
	want, _ := l.nodes["n1"].Current()
	largest, chunks := 0, 0
	err := sendState(want, armor.Tables(), "", func(chunk *armorpb.StateChunk) error {
		largest, chunks = max(largest, proto.Size(chunk)), chunks+1
		return nil
	})
	if err != nil || chunks < 2 || largest >= 1<<20 {
		t.Errorf("%d chunks of up to %d bytes, %v", chunks, largest, err)
	}
	got, err := c.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Revision != want.Revision || got.NextIndex != 5 ||
		!got.Time.Equal(want.Time) || fmt.Sprint(got.Cluster) != fmt.Sprint(want.Cluster) {
		t.Errorf("head %d %d %s", got.Revision, got.NextIndex, got.Time)
	}
	for _, table := range armor.Tables() {
		if fmt.Sprint(slices.Collect(table.Rows(got))) != fmt.Sprint(slices.Collect(table.Rows(want))) {
			t.Errorf("table %s differs", table.Name())
		}
	}
	i := filled[armor.IdentityConfig]()
	if named, ok := got.Grants.Get(armor.ObjectKey(i.Environment, string(i.ID))); !ok || named != i.Name || got.KeyEnvironments.Len() != 8000 {
		t.Error("the indexes were not made")
	}
	some, err := c.State(t.Context(), armor.Tokens)
	if err != nil || some.Tokens.Len() != 1 || some.Inventory.Len()+some.Operators.Len() != 0 {
		t.Errorf("one table: %v", err)
	}
	if _, err := c.State(t.Context(), noTable{}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no such table: %v", err)
	}
}

func TestAStateThatWasCutShortIsNotTaken(t *testing.T) {
	l := newLab(t, 1)
	state, _ := l.nodes["n1"].Current()
	var chunks []*armorpb.StateChunk
	if err := sendState(state, armor.Tables(), "", func(c *armorpb.StateChunk) error { chunks = append(chunks, c); return nil }); err != nil {
		t.Fatal(err)
	}
	chunks[len(chunks)-1].Last = false
	_, _, err := receiveState(func() (*armorpb.StateChunk, error) {
		if len(chunks) == 0 {
			return nil, context.DeadlineExceeded
		}
		next := chunks[0]
		chunks = chunks[1:]
		return next, nil
	})
	if err == nil {
		t.Error("taken")
	}
}

func TestOrderReachesEveryNodeAndNamesThoseThatFail(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("nora", armor.NodeAdmin), "n2")
	order := armor.PoolOrder{Verb: armor.PausePool, Environment: "production", Pool: "orders"}
	results, err := c.Order(t.Context(), order)
	if err != nil || len(results) != 3 {
		t.Fatalf("%+v, %v", results, err)
	}
	for i, r := range results {
		if want := armor.NodeID([]string{"n1", "n2", "n3"}[i]); r.Node != want ||
			r.Failure != "" || !r.Pool.Paused || r.Pool.Pool != "production/orders" {
			t.Errorf("%+v", r)
		}
		if got := l.nodes[r.Node].orders; len(got) != 1 || got[0] != order {
			t.Errorf("node %s was ordered %v", r.Node, got)
		}
	}
	l.nodes["n3"].stop()
	order.Pool = "nowhere"
	results, err = c.Order(t.Context(), order)
	if err != nil || len(results) != 3 {
		t.Fatalf("%+v, %v", results, err)
	}
	for _, r := range results {
		if r.Failure == "" {
			t.Errorf("node %s did what it could not: %+v", r.Node, r)
		}
	}
	if _, err := c.Order(t.Context(),
		armor.PoolOrder{Verb: "burn", Environment: "production", Pool: "orders"}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a verb that there is not: %v", err)
	}
}

func TestDrainReachesTheNodeThatIsNamedAlone(t *testing.T) {
	l := newLab(t, 3)
	c := l.client(l.enrol("nora", armor.NodeAdmin), "n2")
	for _, node := range []armor.NodeID{"n2", "n3"} { // the one that is asked, and another
		if err := c.Drain(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	for node, want := range map[armor.NodeID]int{"n1": 0, "n2": 1, "n3": 1} {
		if got := l.nodes[node].drained; got != want {
			t.Errorf("node %s was drained %d times, want %d", node, got, want)
		}
	}
	if err := c.Drain(t.Context(), "n9"); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("a node that there is not: %v", err)
	}
	viewer := l.client(l.enrol("vic", armor.Viewer), "n1")
	if err := viewer.Drain(t.Context(), "n1"); !errors.Is(err, armor.ErrDenied) || l.nodes["n1"].drained > 0 {
		t.Errorf("a viewer: %v", err)
	}
}

func TestOrderNeedsTheRole(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("vic", armor.Viewer, armor.PolicyAdmin), "n1")
	_, err := c.Order(t.Context(), armor.PoolOrder{Verb: armor.KillPool, Environment: "production", Pool: "orders"})
	if !errors.Is(err, armor.ErrDenied) || len(l.nodes["n1"].orders) > 0 {
		t.Errorf("%v; the node was ordered %v", err, l.nodes["n1"].orders)
	}
}

func TestAQuestionIsAnsweredWithItsRowsAlone(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("ada", armor.Revoker), "n1")
	l.change(func(s *armor.State) {
		for i := range 50 {
			r := filled[armor.CertRecord]()
			r.Certificate.Fingerprint = armor.Digest{byte(i), 1}
			r.Certificate.NotAfter = time.Unix(2_000_000_000+int64(i), 0).UTC()
			armor.Inventory.Put(s, r)
			gone := armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{byte(i), 2}}
			armor.Revoked.Put(s, armor.Revocation{Selector: gone, Revision: s.Revision})
		}
	})
	word := armor.Digest{7, 1}.String()
	s, next, err := c.Ask(t.Context(), armor.Question{Certificates: []string{word}}, armor.Inventory, armor.Revoked, armor.Operators)
	if err != nil || s.Inventory.Len() != 1 || !s.Inventory.Has(word) || s.Revocations.Len() != 0 || s.Operators.Len() != 1 || next != "" {
		t.Errorf("%d certificates, %d revocations, next %q, %v", s.Inventory.Len(), s.Revocations.Len(), next, err)
	}
	page := armor.CertificatePage{Limit: 20}
	var found int
	for range 3 {
		if s, next, err = c.Ask(t.Context(), armor.Question{CertificatePage: page}, armor.Inventory); err != nil {
			t.Fatal(err)
		}
		found, page.After = found+s.Inventory.Len(), next
	}
	if found != 50 || next != "" {
		t.Errorf("three pages of 20 have %d of 50 and go on at %q", found, next)
	}
	if _, _, err := c.Ask(t.Context(), armor.Question{Certificates: []string{"4f"}}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a question that means too much: %v", err)
	}
}
