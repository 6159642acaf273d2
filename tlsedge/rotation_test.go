package tlsedge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

// rotationRig is an edge of an environment that is rotated from its CA to another of the same name.
type rotationRig struct {
	*rig
	next     *testca.CA
	rotation armor.Rotation
}

func newRotationRig(t testing.TB) *rotationRig {
	t.Helper()
	r := &rotationRig{rig: newRig(t), next: testca.New(t, "production", "production.test")}
	successor := r.next.Anchor()
	successor.Name = "next-ca"
	r.trust.Publish(testca.Anchored(successor))
	r.rotation = armor.Rotation{
		Environment: "production", Old: r.ca.Anchor().Certificate.Fingerprint, New: successor.Certificate.Fingerprint,
	}
	return r
}

// enter publishes a phase, and waits until it is in force.
func (r *rotationRig) enter(t testing.TB, phase armor.RotationPhase, rolledBack bool) {
	t.Helper()
	r.rotation.Phase, r.rotation.RolledBack, r.rotation.Since = phase, rolledBack, time.Now()
	r.seen.await(t, r.trust.Publish(testca.Rotating(r.rotation)))
}

// served reports whether a client gets in, and else why not.
func (r *rotationRig) served(t testing.TB, cert tls.Certificate) (armor.Reason, bool) {
	t.Helper()
	c, answer, err := r.login(t, &cert, "orders", "checkout_rw")
	if err != nil {
		return armor.Reason("TLS: " + err.Error()), false
	}
	defer c.Close()
	if string(answer) == "ok" {
		return "", true
	}
	record, _ := r.edge.Denial(parseFatal(answer).denialID())
	return record.Denial.Reason, false
}

func with(cert tls.Certificate, more ...*x509.Certificate) tls.Certificate {
	for _, c := range more {
		cert.Certificate = append(slices.Clip(cert.Certificate), c.Raw)
	}
	return cert
}

// byHints is a client that shows a certificate only of a CA that the server names, as pgjdbc's key
// manager does.
func (r *rotationRig) byHints(t testing.TB, certs ...tls.Certificate) bool {
	t.Helper()
	cfg := r.clientConfig(nil)
	cfg.GetClientCertificate = func(q *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		for _, c := range certs {
			if q.SupportsCertificate(&c) == nil {
				return &c, nil
			}
		}
		return nil, errors.New("none of the client's certificates is of a CA that the server names")
	}
	c, err := upgrade(r.dial(t), cfg)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// TestNoPhaseOfARotationShutsOutWhoMustGetIn holds each phase that a node may be in against each
// certificate that a client may have: one that was issued in any phase before, made at any time
// with whatever chain. A node that joins, or lags, is in one of these phases, too.
//
// Planted mistakes that this catches: a CA that is distrusted a phase too early, hints that name
// one of the two only, and a cross certificate that brings the old CA back.
func TestNoPhaseOfARotationShutsOutWhoMustGetIn(t *testing.T) {
	r := newRotationRig(t)
	intermediate := r.ca.Intermediate(t)
	old, successor := r.ca.Leaf(t, appID), r.next.Leaf(t, appID)
	clients := []struct {
		name  string
		cert  tls.Certificate
		ofOld bool
	}{
		{"of the old CA", old, true},
		{"of a CA below the old one", intermediate.Below(intermediate.Leaf(t, appID)), true},
		{"of the old CA, for whose key the new one has signed", with(old, r.next.Cross(t, r.ca)), true},
		{"of the new CA", successor, false},
		{"of the new CA, for whose key the old one has signed", with(successor, r.ca.Cross(t, r.next)), false},
	}
	type step struct {
		phase      armor.RotationPhase
		rolledBack bool
	}
	steps := []step{{"", false}}
	for _, phase := range armor.RotationPhases()[1:5] { // from each of which it may be rolled back
		steps = append(steps, step{phase, false}, step{armor.RotationStandby, true})
	}
	steps = append(steps, step{armor.RotationDistrusted, false}, step{armor.RotationShadow, false},
		step{armor.RotationDistrusted, false}, step{armor.RotationStandby, false})
	for _, s := range steps {
		if s.phase != "" {
			r.enter(t, s.phase, s.rolledBack)
		}
		over := s.phase == armor.RotationDistrusted || s.phase == armor.RotationStandby && !s.rolledBack
		for _, c := range clients {
			reason, served := r.served(t, c.cert)
			told := reason == armor.ReasonDistrusted || s.phase == armor.RotationStandby && reason == armor.ReasonRevoked
			if want := !c.ofOld || !over; served != want || !served && !told {
				t.Errorf("in phase %q (rolled back: %t) a client %s is served: %t, %s", s.phase, s.rolledBack, c.name, served, reason)
			}
		}
		// Both CAs have one name, so that who goes by names finds either.
		if !r.byHints(t, old) && !over || !r.byHints(t, successor) {
			t.Errorf("in phase %q (rolled back: %t) a client that goes by the CAs that are named finds none", s.phase, s.rolledBack)
		}
	}
}

// A session of the old CA lives through all phases until it is distrusted, and is cut then.
func TestALiveSessionOfTheOldCAIsCutWhenItIsDistrusted(t *testing.T) {
	r := newRotationRig(t)
	old, successor := r.live(t, r.ca.Leaf(t, appID)), r.live(t, r.next.Leaf(t, appID))
	for _, phase := range armor.RotationPhases()[1:5] {
		r.enter(t, phase, false)
		answers(t, old)
		answers(t, successor)
	}
	r.enter(t, armor.RotationDistrusted, false)
	if record := r.fatalOf(t, old); record.Denial.Reason != armor.ReasonDistrusted {
		t.Errorf("cut for %s", record.Denial.Reason)
	}
	answers(t, successor)
}

func (r *rotationRig) recorded() map[armor.Digest]armor.Use {
	state, _ := r.trust.Current()
	all := map[armor.Digest]armor.Use{}
	for _, u := range r.edge.Uses(state) {
		all[u.Anchor] = u
	}
	return all
}

// Planted mistakes that this catches: a session that goes on and counts for the time of its login
// only, a certificate of the new CA that counts for the old one by a cross certificate, and one that
// was refused and counts.
func TestUsesAreOfWhoIsLetIn(t *testing.T) {
	r := newRotationRig(t)
	r.enter(t, armor.RotationTaint, false)
	cross := with(r.next.Leaf(t, appID), r.ca.Cross(t, r.next))
	r.live(t, cross).Close()
	if _, served := r.served(t, r.ca.Leaf(t, "/app/stranger")); served {
		t.Fatal("who is granted nothing is served")
	}
	used := r.recorded()
	if u := used[r.rotation.New]; len(used) != 1 || u.Identity != "spiffe://production.test"+appID || u.Seen.IsZero() {
		t.Fatalf("uses: %v", used)
	}
	record := func() {
		uses := r.recorded()
		r.trust.Publish(func(s *armor.State) {
			for _, u := range uses {
				armor.Uses.Put(s, u)
			}
		})
	}
	live := r.live(t, r.ca.Leaf(t, appID))
	record()
	if again := r.recorded(); len(again) != 0 {
		t.Errorf("recorded, and reported again: %v", again)
	}
	r.enter(t, armor.RotationShadow, false)
	if again := r.recorded(); !again[r.rotation.Old].Seen.After(r.rotation.Since) {
		t.Errorf("a session that lives on does not count for the new phase: %v", again)
	}
	record()
	live.Close()
	eventually(t, "the session is gone", func() bool { return len(r.edge.registry.all()) == 0 })
	r.lease.Advance(2 * armor.UseGrain)
	if again := r.recorded(); len(again) != 0 {
		t.Errorf("who has left is reported as seen: %v", again)
	}
}
