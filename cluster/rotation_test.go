package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// anchor has the cluster trust a CA, and returns its fingerprint.
func (l *lab) anchor(name string) armor.Digest {
	l.t.Helper()
	der := []byte("DER of CA " + name)
	key := l.digest("key of CA", name)
	c := armor.Certificate{
		ID: armor.CertID{Issuer: key, Serial: "1"}, Fingerprint: sha256.Sum256(der), Key: key,
		NotBefore: l.began.Add(-time.Hour), NotAfter: l.began.Add(365 * 24 * time.Hour),
	}
	l.do(armor.PutAnchor{Anchor: armor.TrustAnchor{Name: name, Environment: "prod", Prefix: "spiffe://prod.acme/*", Certificate: c, DER: der}})
	return c.Fingerprint
}

func (l *lab) rotation() armor.Rotation {
	state, _ := l.leader().Current()
	r, _ := state.Rotations.Get("prod")
	return r
}

func (l *lab) next() armor.MoveRotation {
	r := l.rotation()
	return armor.MoveRotation{Environment: "prod", Revision: r.Revision, To: r.Phase.Next()}
}

// rotatedAhead starts a rotation while the edge of one node is stuck, and reports whether it can be
// moved on then.
func rotatedAhead(t *testing.T, wrong mistakes) (moved bool) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 3, func(t *testing.T, l *lab) {
		start := armor.StartRotation{Environment: "prod", Old: l.anchor("old"), New: l.anchor("new")}
		slow := l.follower()
		slow.stuck.Store(true)
		l.do(start)
		move := l.next()
		_, err := l.leader().Propose(t.Context(), l.request(move))
		if moved = err == nil; moved {
			return
		}
		if !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "node "+string(slow.cfg.Node)) {
			t.Errorf("while a node does not have it in force: %v", err)
		}
		forced := armor.MoveRotation{Environment: "prod", Revision: move.Revision, To: armor.RotationDistrusted, Force: true}
		back := armor.MoveRotation{Environment: "prod", Revision: move.Revision, To: armor.RotationStandby}
		for what, c := range map[string]armor.Command{"forced": forced, "back": back} {
			if err := l.leader().Validate(l.request(c)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		slow.stuck.Store(false)
		l.do(move)
		if phase := l.rotation().Phase; phase != armor.RotationIssuing {
			t.Errorf("once it has: phase %s", phase)
		}
		dead := l.follower()
		l.crash(dead)
		time.Sleep(2 * reportAge)
		if _, err := l.leader().Propose(t.Context(), l.request(l.next())); !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), string(dead.cfg.Node)) {
			t.Errorf("with a node that is gone: %v", err)
		}
		l.do(armor.RemoveMember{Node: dead.cfg.Node})
		l.do(l.next())
	})
	return moved
}

func TestARotationWaitsUntilItIsInForceEverywhere(t *testing.T) {
	if rotatedAhead(t, mistakes{}) {
		t.Error("it was moved on while a node did not have its phase in force")
	}
}

func TestARotationThatGoesAheadIsNoticed(t *testing.T) {
	if !rotatedAhead(t, mistakes{rotateAhead: true}) {
		t.Error("the test above would not notice the mistake")
	}
}

// labDoor is an edge that has let identities in.
type labDoor struct {
	anchor, newer armor.Digest
	identities    int
	asked         atomic.Int64
}

func (d *labDoor) Uses(s *armor.State) (wanted []armor.Use) {
	d.asked.Add(1)
	for i := range d.identities {
		for _, a := range []armor.Digest{d.anchor, d.newer} {
			u := armor.Use{Anchor: a, Identity: armor.Identity(fmt.Sprintf("spiffe://prod.acme/app%d", i)), Seen: time.Now()}
			if s.WantsUse(u) && len(wanted) < armor.MaxUsesAtOnce {
				wanted = append(wanted, u)
			}
		}
	}
	return wanted
}

// Uses come into the state with renewals, in entries of bounded size, and before the first rotation
// not at all: a release that knows none could not apply them.
func TestUsesTravelWithRenewals(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		start := armor.StartRotation{Environment: "prod", Old: l.anchor("old"), New: l.anchor("new")}
		id := l.follower().cfg.Node
		door := &labDoor{anchor: start.Old, newer: start.New, identities: armor.MaxUsesAtOnce}
		l.restart(id, func(c *Config) { c.Doorkeeper = door })
		l.settle()
		time.Sleep(time.Minute)
		if n := door.asked.Load(); n != 0 {
			t.Errorf("asked %d times before there was a rotation", n)
		}
		l.do(start)
		l.eventually("all uses are recorded", func() bool {
			state, _ := l.leader().Current()
			return state.Uses.Len() == 2*armor.MaxUsesAtOnce
		})
		before, _ := l.leader().Current()
		time.Sleep(10 * time.Minute)
		after, _ := l.leader().Current()
		if after.Revision != before.Revision {
			t.Errorf("%d entries in ten minutes in which there was no news", after.Revision-before.Revision)
		}
		l.do(l.next())
		r := l.rotation()
		l.eventually("they are recorded anew for the new phase", func() bool {
			state, _ := l.leader().Current()
			for u := range state.Uses.Values() {
				if !u.Seen.After(r.Since) {
					return false
				}
			}
			return true
		})
	})
}

func TestARenewalBringsNoMoreUsesThanItMay(t *testing.T) {
	q := armor.Renewal{Node: "n1", Epoch: 1, Uses: make([]armor.Use, armor.MaxUsesAtOnce+1)}
	if err := checkRenewal(q); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	q.Uses = []armor.Use{{Identity: "web"}}
	if err := checkRenewal(q); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
	q.Uses[0].Identity = "spiffe://prod.acme/web"
	if err := checkRenewal(q); err != nil {
		t.Errorf("one: %v", err)
	}
}
