package rpc

import (
	"errors"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// stolenOrders has n2 order and drain n1 by its own key, with every warrant that it could
// come by, and returns what n1 did.
func stolenOrders(t *testing.T, mistake func(*mistakes)) (done []string) {
	t.Helper()
	l := newLab(t, 2)
	victim, thief := l.nodes["n1"], l.nodes["n2"].peers
	mistake(&victim.server.cfg.mistakes)
	admin := l.client(l.enrol("nora", armor.NodeAdmin), "n2")
	viewer := l.client(l.enrol("vic", armor.Viewer), "n2")
	eve := l.client(l.enrol("eve", armor.NodeAdmin), "n2")
	kill := armor.PoolOrder{Verb: armor.KillPool, Environment: "production", Pool: "orders"}
	signed := func(c *Client, words []string) *armorpb.Warrant {
		w, err := c.warrant(t.Context(), words)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	inNoraName := signed(eve, armor.OrderWords(kill))
	inNoraName.Principal = "nora"
	gone := signed(eve, armor.OrderWords(kill))
	l.change(func(s *armor.State) { s.Operators = s.Operators.Without("eve") })
	ofRevoked, ofEnded := l.signedByOver(armor.OrderWords(kill))
	resume := kill
	resume.Verb = armor.ResumePool
	for name, w := range map[string]*armorpb.Warrant{
		"none":             nil,
		"of a viewer":      signed(viewer, armor.OrderWords(kill)),
		"for another verb": signed(admin, armor.OrderWords(resume)),
		"for a drain":      signed(admin, armor.DrainWords("n1")),
		"in a false name":  inNoraName,
		"of who was one":   gone,
		"of one revoked":   ofRevoked,
		"of one too old":   ofEnded,
	} {
		q := toMessage[armorpb.PoolOrder](kill)
		q.Warrant = w
		if _, err := thief.order(t.Context(), "n1", q); err == nil {
			done = append(done, "order with a warrant "+name)
		}
	}
	for name, w := range map[string]*armorpb.Warrant{"none": nil, "for another node": signed(admin, armor.DrainWords("n2"))} {
		if err := thief.drain(t.Context(), &armorpb.DrainRequest{Node: "n1", Warrant: w}); err == nil {
			done = append(done, "drain with a warrant "+name)
		}
	}
	if len(done) == 0 && (victim.drained > 0 || len(victim.orders) > 0) {
		t.Error("it was refused, and done")
	}
	return done
}

// signedByOver returns what two operators have signed before the certificate of one was revoked,
// and that of the other ended.
func (l *lab) signedByOver(words []string) (revoked, ended *armorpb.Warrant) {
	l.t.Helper()
	var signed []*armorpb.Warrant
	for _, name := range []string{"rex", "ned"} {
		w, err := l.client(l.enrol(name, armor.NodeAdmin), "n2").warrant(l.t.Context(), words)
		if err != nil {
			l.t.Fatal(err)
		}
		signed = append(signed, w)
	}
	l.change(func(s *armor.State) {
		rex, _ := s.Operators.Get("rex")
		s.Revocations = s.Revocations.With(armor.Revocation{
			Selector: armor.Selector{Kind: armor.SelectCertificate, Certificate: rex.Certificate.ID}, Reason: armor.Superseded,
		})
		ned, _ := s.Operators.Get("ned")
		ned.Certificate.NotAfter = time.Now().Add(-time.Second)
		s.Operators = s.Operators.With(ned)
	})
	return signed[0], signed[1]
}

func TestNodeCannotOrderAnother(t *testing.T) {
	if done := stolenOrders(t, func(*mistakes) {}); len(done) != 0 {
		t.Fatalf("done: %q", done)
	}
}

func TestBelievingNodesIsNoticed(t *testing.T) {
	if done := stolenOrders(t, func(m *mistakes) { m.believeNodes = true }); len(done) == 0 {
		t.Fatal("the test above would not notice the mistake")
	}
}

func TestWarrantIsActedOnOnce(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(id armor.RequestID, signed time.Duration) armor.Warrant {
		return armor.Warrant{ID: id, Expires: start.Add(signed + armor.WarrantLife)}
	}
	s := newWarrants(start)
	for _, step := range []struct {
		what string
		w    armor.Warrant
		now  time.Duration
		want error
	}{
		{"the first time", at("a", time.Minute), time.Minute, nil},
		{"again", at("a", time.Minute), time.Minute, armor.ErrConflict},
		{"again when it has just expired", at("a", time.Minute), 3*time.Minute + 1, armor.ErrConflict},
		{"long after", at("a", time.Minute), time.Hour, armor.ErrExpired},
		{"another too late", at("b", time.Minute), time.Hour, armor.ErrExpired},
		{"far ahead of its time", at("c", 2*time.Hour), time.Hour, armor.ErrExpired},
		{"from before the process began", at("d", -time.Second), time.Second, armor.ErrExpired},
	} {
		if err := s.take(step.w, start.Add(step.now)); !errors.Is(err, step.want) {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	if len(s.done) > 1 {
		t.Errorf("%d are remembered", len(s.done))
	}
}

func TestOrdersEndAtABound(t *testing.T) {
	now := time.Now()
	s := newWarrants(now)
	var err error
	for range maxWarrants + 1 {
		err = s.take(armor.Warrant{ID: NewRequestID(), Expires: now.Add(armor.WarrantLife)}, now)
	}
	if !errors.Is(err, armor.ErrExhausted) {
		t.Fatal(err)
	}
}

// ownCommand has n2 propose to the leader, n1, what only a leader does by itself, in n2's name and in the leader's.
func ownCommand(t *testing.T, mistake func(*mistakes)) (proposed int) {
	t.Helper()
	l := newLab(t, 2)
	mistake(&l.nodes["n1"].server.cfg.mistakes)
	for _, as := range []armor.NodeID{"n1", "n2"} {
		q, err := requestMessage(armor.Request{
			ID: NewRequestID(), Principal: armor.NodePrincipal(as), Expires: time.Now().Add(time.Minute),
			Command: armor.SetMemberAddresses{Node: "n1", PeerAddress: "127.0.0.1:1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, begin := range []bool{false, true} {
			_, err := l.nodes["n2"].peers.propose(t.Context(), "n1", q, begin)
			if err == nil {
				proposed++
			} else if !errors.Is(err, armor.ErrDenied) {
				t.Logf("as %s: %v", as, err)
			}
		}
	}
	return proposed + len(l.proposals())
}

func TestNodeCannotProposeTheClustersOwnCommands(t *testing.T) {
	if proposed := ownCommand(t, func(*mistakes) {}); proposed != 0 {
		t.Fatalf("%d were proposed", proposed)
	}
}

func TestProposingForNodesIsNoticed(t *testing.T) {
	if proposed := ownCommand(t, func(m *mistakes) { m.believeNodes = true }); proposed == 0 {
		t.Fatal("the test above would not notice the mistake")
	}
}
