package tlsedge

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

func TestWhateverTakesAccessAwayEndsLiveSessions(t *testing.T) {
	required := func(s *armor.State) {
		s.Environments = s.Environments.With(armor.Environment{Name: "production", Inventory: armor.InventoryRequired})
	}
	granted := func(change func(*armor.Grant)) func(*armor.State) {
		g := ordersGrant()
		change(&g)
		return testca.Granted("production", "spiffe://production.test"+appID, g)
	}
	for _, c := range []struct {
		name   string
		reason armor.Reason
		change func(r *rig, cert tls.Certificate) func(*armor.State)
	}{
		{"certificate revoked", armor.ReasonRevoked, func(r *rig, cert tls.Certificate) func(*armor.State) {
			return testca.Revoked(armor.Selector{Kind: armor.SelectCertificate, Certificate: r.ca.Facts(cert).ID})
		}},
		{"key revoked", armor.ReasonRevoked, func(r *rig, cert tls.Certificate) func(*armor.State) {
			return testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(cert).Key})
		}},
		{"identity revoked", armor.ReasonRevoked, func(*rig, tls.Certificate) func(*armor.State) {
			return testca.Revoked(armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.test/*"})
		}},
		{"issuer revoked", armor.ReasonRevoked, func(r *rig, cert tls.Certificate) func(*armor.State) {
			return testca.Revoked(armor.Selector{Kind: armor.SelectIssuer, Issuer: r.ca.Facts(cert).ID.Issuer})
		}},
		{"grant removed", armor.ReasonDatabase, func(*rig, tls.Certificate) func(*armor.State) {
			return testca.Granted("production", "spiffe://production.test"+appID)
		}},
		{"role taken away", armor.ReasonRole, func(*rig, tls.Certificate) func(*armor.State) {
			return granted(func(g *armor.Grant) { g.Roles = []string{"checkout_ro"} })
		}},
		{"network narrowed", armor.ReasonAddress, func(*rig, tls.Certificate) func(*armor.State) {
			return granted(func(g *armor.Grant) { g.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
		}},
		{"second factor added", armor.ReasonSecondFactor, func(*rig, tls.Certificate) func(*armor.State) {
			return granted(func(g *armor.Grant) { g.SecondFactor = armor.SCRAM })
		}},
		{"pool changed", armor.ReasonDraining, func(*rig, tls.Certificate) func(*armor.State) {
			return granted(func(g *armor.Grant) { g.Pool = "reports" })
		}},
		{"identity deleted", armor.ReasonDatabase, func(*rig, tls.Certificate) func(*armor.State) {
			return func(s *armor.State) {
				s.Grants = s.Grants.Without(armor.ObjectKey("production", "spiffe://production.test"+appID))
			}
		}},
		{"anchor removed", armor.ReasonUntrusted, func(r *rig, _ tls.Certificate) func(*armor.State) {
			return func(s *armor.State) { s.Anchors = s.Anchors.Without(r.ca.Anchor().Certificate.Fingerprint.String()) }
		}},
		{"anchor rebound", armor.ReasonEnvironment, func(r *rig, _ tls.Certificate) func(*armor.State) {
			a := r.ca.Anchor()
			a.Environment = "staging"
			return func(s *armor.State) {
				testca.Anchored(a)(s)
				testca.Granted("staging", "spiffe://production.test"+appID, ordersGrant())(s)
			}
		}},
		{"inventory demanded", armor.ReasonUnregistered, func(*rig, tls.Certificate) func(*armor.State) { return required }},
		{"lifetime limited", armor.ReasonLifetime, func(*rig, tls.Certificate) func(*armor.State) {
			return func(s *armor.State) {
				s.Environments = s.Environments.With(armor.Environment{Name: "production", MaxLeafLifetime: time.Minute})
			}
		}},
		{"key bound elsewhere", armor.ReasonKeyReuse, func(r *rig, cert tls.Certificate) func(*armor.State) {
			return func(s *armor.State) {
				s.KeyEnvironments = s.KeyEnvironments.With(r.ca.Facts(cert).Key.String(), "staging")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.trust.Publish(testca.Granted("production", "spiffe://production.test/app/other", ordersGrant()), granted(func(*armor.Grant) {}))
			cert := r.ca.Leaf(t, appID)
			conn := r.live(t, cert)
			revision := r.trust.Publish(c.change(r, cert))
			if record := r.fatalOf(t, conn); record.Denial.Reason != c.reason || record.Revision != revision {
				t.Fatalf("%+v", record)
			}
			r.seen.await(t, revision)
			if _, closed, _ := r.seen.get(); closed != 1 {
				t.Fatalf("%d sessions were reported closed", closed)
			}
		})
	}
}

func TestOthersGoOn(t *testing.T) {
	r := newRig(t)
	mine, other := r.ca.Leaf(t, appID), r.ca.Leaf(t, appID)
	conn, bystander := r.live(t, mine), r.live(t, other)
	revision := r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectCertificate, Certificate: r.ca.Facts(mine).ID}))
	r.seen.await(t, revision)
	r.fatalOf(t, conn)
	answers(t, bystander)
}

// answers fails unless the session sends back what it gets.
func answers(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestRevisionIsReportedOnlyWhenEveryDriverHasConfirmed(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, func(c *Config) { c.Handler.(*echo).hold = hold })
	cert := r.ca.Leaf(t, appID)
	conn := r.live(t, cert)
	revision := r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(cert).Key}))
	r.readFatal(t, conn)
	if at, _, _ := r.seen.get(); at >= revision {
		t.Fatal("reported before the driver confirmed")
	}
	close(hold)
	r.seen.await(t, revision)
}

// readFatal reads the FATAL of a session whose handler does not end yet.
func (r *rig) readFatal(t *testing.T, conn net.Conn) {
	t.Helper()
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if parseFatal(b[:n])['M'] == "" {
		t.Fatalf("%q, %v", b[:n], err)
	}
}

func TestSlowDriverDoesNotDelayTheNextCut(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, func(c *Config) { c.Handler.(*echo).hold = hold })
	slow, next := r.ca.Leaf(t, appID), r.ca.Leaf(t, appID)
	slowConn, nextConn := r.live(t, slow), r.live(t, next)
	r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(slow).Key}))
	r.readFatal(t, slowConn)
	revision := r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(next).Key}))
	r.readFatal(t, nextConn)
	close(hold)
	r.seen.await(t, revision)
	if _, closed, _ := r.seen.get(); closed != 2 {
		t.Fatalf("%d closed", closed)
	}
}

// TestNoSessionSlipsThroughBetweenProofAndService stops a client at each step before
// its hand-over, revokes it there, and sees that it is not served.
func TestNoSessionSlipsThroughBetweenProofAndService(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	serving := make(chan *Session)
	goOn := make(chan struct{})
	r.echo.onServe = func(_ net.Conn, s *Session) {
		serving <- s
		<-goOn
	}
	c, err := upgrade(r.dial(t), r.clientConfig(&cert))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(startup("orders", "checkout_rw")); err != nil {
		t.Fatal(err)
	}
	s := <-serving
	revision := r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(cert).Key}))
	r.seen.await(t, revision) // nothing was forwarded, so nobody needs to confirm
	if _, err := s.Admit("orders", "checkout_rw", armor.NoReplication); err == nil {
		t.Error("admitted after it was cut")
	}
	if s.HandOver(func(error, func()) {}) == nil {
		t.Error("handed over after it was cut")
	}
	close(goOn)
	if record := r.fatalOf(t, c); record.Denial.Reason != armor.ReasonRevoked {
		t.Fatalf("%+v", record)
	}
}

func TestExpiryEndsALiveSession(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	conn := r.live(t, cert)
	r.lease.Advance(time.Until(r.ca.Facts(cert).NotAfter) + time.Second)
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonExpired {
		t.Fatalf("%+v", record)
	}
}

func TestStaleNodeRefusesNewSessionsFirstAndThenEndsLiveOnes(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	conn := r.live(t, cert)
	r.lease.SetStale(true, false)
	_, answer, err := r.login(t, &cert, "orders", "checkout_rw")
	if f := parseFatal(answer); f['M'] == "" {
		t.Fatalf("a new session was admitted: %q, %v", answer, err)
	}
	answers(t, conn)
	r.lease.SetStale(true, true)
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonStale {
		t.Fatalf("%+v", record)
	}
}

func TestStaleNodeForwardsNothingBeforeItsNextSweep(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Sweep = time.Hour })
	conn := r.live(t, r.ca.Leaf(t, appID))
	r.lease.SetStale(true, true)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonStale {
		t.Fatalf("%+v", record)
	}
}

func TestPreviewNamesWhomARevocationWouldCut(t *testing.T) {
	r := newRig(t)
	cert := r.ca.Leaf(t, appID)
	r.live(t, cert)
	r.live(t, r.ca.Leaf(t, appID))
	key := armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(cert).Key}
	if got := r.edge.Preview([]armor.Selector{key}); len(got) != 1 || got[0].Certificate.Key != key.Key {
		t.Fatalf("%+v", got)
	}
	everybody := armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.test/*"}
	if got := r.edge.Preview([]armor.Selector{key, everybody}); len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	before := everybody
	before.IssuedBefore = time.Now().Add(-24 * time.Hour)
	if got := r.edge.Preview([]armor.Selector{before}); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	if r.edge.Count() != 2 {
		t.Fatal("a preview cut somebody")
	}
}

func awaitClosed(t *testing.T, address string) {
	t.Helper()
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

func TestEndingEdgeGivesGraceAndEnforcesUntilTheLastSessionIsGone(t *testing.T) {
	r := unstarted(t, func(c *Config) { c.Grace = patient })
	cert, other := r.ca.Leaf(t, appID), r.ca.Leaf(t, appID)
	done, stop := r.start(t)
	conn, stays := r.live(t, cert), r.live(t, other)
	stop()
	awaitClosed(t, r.addr)
	answers(t, stays)
	revision := r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: r.ca.Facts(cert).Key}))
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonRevoked {
		t.Fatalf("%+v", record)
	}
	r.seen.await(t, revision)
	stays.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func readsOK(c net.Conn, answer []byte) bool {
	_, err := io.ReadFull(c, answer)
	return err == nil && string(answer) == "ok"
}

func TestClientInItsHandshakeWhenTheEdgeEndsIsServed(t *testing.T) {
	r := unstarted(t, func(c *Config) { c.Grace = patient })
	done, stop := r.start(t)
	cert := r.ca.Leaf(t, appID)
	conn := r.dial(t)
	if _, err := conn.Write(eight(codeTLS)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop()
	awaitClosed(t, r.addr)
	c := tls.Client(conn, r.clientConfig(&cert))
	if _, err := c.Write(startup("orders", "checkout_rw")); err != nil {
		t.Fatal(err)
	}
	if answer := make([]byte, 2); !readsOK(c, answer) {
		t.Fatalf("not served: %q", answer)
	}
	answers(t, c)
	c.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSilentConnectionsDoNotHoldUpTheEnd(t *testing.T) {
	r := unstarted(t, func(c *Config) { c.HandshakeTimeout, c.FirstByte = time.Hour, time.Hour })
	done, stop := r.start(t)
	conn := r.dial(t)
	eventually(t, "it was accepted", func() bool { return r.edge.Unproven().Open == 1 })
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patient):
		t.Fatal("the edge waits for a client that says nothing")
	}
	conn.Close()
}

func TestEndingEdgeCutsWhoIsLeft(t *testing.T) {
	r := unstarted(t)
	done, stop := r.start(t)
	conn := r.live(t, r.ca.Leaf(t, appID))
	stop()
	if record := r.fatalOf(t, conn); record.Denial.Reason != armor.ReasonShutdown {
		t.Fatalf("%+v", record)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	panics := make(chan struct{}, 1)
	r := newRig(t, func(c *Config) { c.Hooks.Panicked = func() { panics <- struct{}{} } })
	stays := r.live(t, r.ca.Leaf(t, appID))
	r.echo.onServe = func(net.Conn, *Session) { panic("a bug") }
	cert := r.ca.Leaf(t, appID)
	if _, answer, err := r.login(t, &cert, "orders", "checkout_rw"); err == nil {
		t.Fatalf("served: %q", answer)
	}
	<-panics
	eventually(t, "the session is forgotten", func() bool { return r.edge.Count() == 1 })
	answers(t, stays)
	revision := r.trust.Publish()
	r.seen.await(t, revision)
}

func TestARevisionConcernsOnlyWhomItCouldDecideAbout(t *testing.T) {
	r := newRig(t)
	cert, other := r.ca.Leaf(t, appID), r.ca.Leaf(t, appID)
	r.live(t, cert)
	r.live(t, other)
	key := func(c tls.Certificate) armor.Digest { return r.ca.Facts(c).Key }
	for _, c := range []struct {
		name   string
		change func(*armor.State)
		want   []armor.Digest
	}{
		{"a share that moves", func(s *armor.State) {
			armor.Shares.Put(s, armor.Share{Pool: "production/orders", Node: "n1", Target: 3})
		}, nil},
		{"a node that joins", func(s *armor.State) { armor.Members.Put(s, armor.Member{ID: "n9"}) }, nil},
		{"a stranger's revocation", testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{9}}), nil},
		{"a certificate's registration", func(s *armor.State) {
			armor.Inventory.Put(s, armor.CertRecord{Certificate: r.ca.Facts(other), Environment: "staging"})
		}, []armor.Digest{key(other)}},
		{"a revocation", testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: key(cert)}), []armor.Digest{key(cert)}},
		{"a grant", testca.Granted("production", "spiffe://production.test/app/else"), []armor.Digest{key(cert), key(other)}},
	} {
		before, _ := r.trust.Current()
		after := *before
		after.Revision++
		c.change(&after)
		var got []armor.Digest
		for _, s := range r.edge.concerned(before, &after) {
			got = append(got, s.peer.Leaf.Key)
		}
		byBytes := func(a, b armor.Digest) int { return bytes.Compare(a[:], b[:]) }
		slices.SortFunc(got, byBytes)
		slices.SortFunc(c.want, byBytes)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s concerns %d sessions, not %d", c.name, len(got), len(c.want))
		}
	}
}
