package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// TestACopyOfADataDirectoryIsToldSo, by the leader, while the node itself goes on.
func TestACopyOfADataDirectoryIsToldSo(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, node := l.leader(), l.follower()
		told := time.Duration(0)
		for began := time.Now(); told == 0 && time.Since(began) < time.Minute; time.Sleep(500 * time.Millisecond) {
			answer, err := leader.Answer(t.Context(), armor.Renewal{Node: node.cfg.Node, Epoch: 4711, PeerAddress: "elsewhere:7432"})
			switch {
			case err == nil && !answer.Copy:
				t.Fatal("a copy was granted a lease")
			case err == nil:
				told = time.Since(began)
			}
		}
		if told < copyProof {
			t.Errorf("told after %s", told)
		}
		if err := node.KeepLive("prod"); err != nil {
			t.Errorf("the node itself: %v", err)
		}
		time.Sleep(5 * time.Second)
		state, _ := leader.Current()
		if m, _ := state.Members.Get(string(node.cfg.Node)); m.PeerAddress == "elsewhere:7432" {
			t.Error("the copy's address was taken for the node's")
		}
	})
}

// TestASuccessorOfADeadLifeIsNoCopy: the dead one reports no more.
func TestASuccessorOfADeadLifeIsNoCopy(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, node := l.leader(), l.follower()
		l.crash(node)
		granted := false
		for began := time.Now(); !granted && time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
			answer, err := leader.Answer(t.Context(), armor.Renewal{Node: node.cfg.Node, Epoch: 4711})
			if answer.Copy {
				t.Fatalf("after %s it was told to be a copy", time.Since(began))
			}
			granted = err == nil
		}
		if !granted {
			t.Error("it was never granted a lease")
		}
	})
}

func TestANodeEndsAsACopyOnlyByTheElectedLeadersWord(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		leader, node := l.leader(), l.follower()
		term := leader.raft.Load().CurrentTerm()
		liar := armor.NodeID("n2")
		if node.cfg.Node == liar || leader.cfg.Node == liar {
			liar = "n3"
		}
		if liar == node.cfg.Node {
			liar = "n1"
		}
		for _, term := range []uint64{term - 1, term, term + 1} {
			if err := node.isCopy(t.Context(), liar, term); err == nil || errors.Is(err, ErrCopy) {
				t.Errorf("by the word of %s for term %d: %v", liar, term, err)
			}
		}
		if node.failed.cause() != nil {
			t.Fatalf("it ends by a liar's word: %v", node.failed.cause())
		}
		if err := node.isCopy(t.Context(), leader.cfg.Node, term); !errors.Is(err, ErrCopy) {
			t.Fatalf("by the leader's word: %v", err)
		}
		<-node.done
		if !errors.Is(node.err, ErrCopy) || !strings.Contains(node.err.Error(), "armorctl node replace") {
			t.Errorf("Run = %v", node.err)
		}
	})
}

// TestANameIsUsedAgain by another disk, while and after the former node is waited for.
func TestANameIsUsedAgain(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		pool := putPool(l, 12)
		l.eventually("the budget is in use", func() bool { return heldBy(l.all(), pool) == 12 })
		lost := l.follower()
		id := lost.cfg.Node
		l.crash(lost)
		hash := l.digest("token", "again")
		l.do(armor.ReplaceMember{Node: id, Token: armor.JoinToken{Hash: hash, Node: id, Voter: true, Expires: time.Now().Add(time.Hour)}})
		l.own(armor.RequestJoin{Token: hash, Request: armor.JoinRequest{
			Node: id, CSR: []byte("CSR"), PeerAddress: string(id) + ":7432", ClientAddress: string(id) + ":6432", OpsAddress: string(id) + ":9432",
		}})
		c := l.certificate(string(id)+" again", labName.NodeIdentity(id))
		approve := armor.ApproveJoin{Node: id, Certificate: c, Chain: [][]byte{[]byte("DER of " + string(id) + " again"), labName.PeerCA}}
		if err := l.leader().Validate(l.request(approve)); !errors.Is(err, armor.ErrConflict) {
			t.Errorf("while the former node may serve: %v", err)
		}
		l.eventually("nothing is left of the former node", func() bool { return l.leader().Validate(l.request(approve)) == nil })
		l.do(approve)
		l.net.Heal()
		l.start(id, newDisk(), nil)
		l.settle()
		l.eventually("the budget is in use again", func() bool { return heldBy(l.all(), pool) == 12 && l.get(id).holder.count(pool) == 4 })
	})
}
