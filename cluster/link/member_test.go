package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// come connects to a link as whoever holds the certificate, and returns nil when it is
// refused: TLS 1.3 tells a client of that on its first read.
func come(t *testing.T, l *Link, certificate *tls.Certificate, alpn string) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{alpn}, Certificates: []tls.Certificate{*certificate},
	})
	if err != nil {
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// isCut reports whether the other side closes within a time that is more than enough.
func isCut(conn net.Conn, patience time.Duration) bool {
	conn.SetReadDeadline(time.Now().Add(patience))
	_, err := conn.Read(make([]byte, 1))
	var late net.Error
	return err != nil && !(errors.As(err, &late) && late.Timeout())
}

// oldKey tells whether the key that a node had before it was removed, and admitted
// again with another one, is still that node.
func oldKey(t *testing.T, wrong mistakes, patience time.Duration) (believed bool) {
	e := newEnds(t)
	server := e.link(t, "d", func(c *Config) { c.mistakes = wrong })
	old, now := e.ca.node(t, "c"), e.ca.node(t, "c")
	e.trust.change(func(s *armor.State) {
		s.Members = s.Members.With(armor.Member{ID: "c", Certificate: e.facts(now), PeerAddress: "127.0.0.1:1"})
	})
	accepted := accept(server, Raft)
	if conn := come(t, server, now, Raft); conn == nil {
		t.Fatal("the member itself is refused")
	}
	<-accepted
	accept(server, Raft)
	conn := come(t, server, old, Raft)
	return conn != nil && !isCut(conn, patience)
}

// TestOldKeyOfANameIsNotItsNode is GUARANTEES trap 41.
func TestOldKeyOfANameIsNotItsNode(t *testing.T) {
	if oldKey(t, mistakes{}, patient) {
		t.Error("the old key is the node again")
	}
	e := newEnds(t)
	impostor := e.link(t, "c", nil) // has a certificate of the name, and is not who was admitted
	e.trust.change(func(s *armor.State) {
		m := e.member(impostor)
		m.Certificate = e.facts(e.ca.node(t, "c"))
		s.Members = s.Members.With(m)
	})
	accept(impostor, API)
	if _, err := e.a.Dial(t.Context(), "c", API); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("it is believed when it is dialed: %v", err)
	}
	if !oldKey(t, mistakes{ignoreKeys: true}, 100*time.Millisecond) {
		t.Error("the mutant that ignores keys is not noticed")
	}
}

// TestRemovedNodeHasItsLastWordAndNoMore: it may reach the API, and is reached with Raft,
// until its tombstone is buried; its own Raft connections end at once.
func TestRemovedNodeHasItsLastWordAndNoMore(t *testing.T) {
	e := newEnds(t)
	c := e.link(t, "c", nil)
	certificate, _ := c.cfg.Certificate()
	member := e.member(c)
	e.trust.change(func(s *armor.State) { s.Members = s.Members.With(member) })
	accepted := accept(e.b, Raft)
	raft := come(t, e.b, certificate, Raft)
	<-accepted
	accepted = accept(e.b, API)
	api := come(t, e.b, certificate, API)
	<-accepted

	e.trust.change(func(s *armor.State) {
		s.Members = s.Members.Without("c")
		s.Tombstones = s.Tombstones.With(armor.Tombstone{ID: "c", FormerKey: member.Certificate.Key})
		s.Revocations = s.Revocations.With(armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: member.Certificate.Key}})
	})
	if !isCut(raft, patient) {
		t.Error("it goes on speaking Raft")
	}
	if isCut(api, 100*time.Millisecond) {
		t.Error("it cannot say that it has let go")
	}
	if conn := come(t, e.b, certificate, Raft); conn != nil && !isCut(conn, patient) {
		t.Error("it speaks Raft again")
	}
	reaching := e.link(t, "d", func(cfg *Config) {
		cfg.Hint = func(armor.NodeID) (string, bool) { return c.Addr().String(), true }
	})
	accept(c, Raft)
	if _, err := reaching.Dial(t.Context(), "c", Raft); err != nil {
		t.Errorf("it cannot be told of its removal: %v", err)
	}

	e.trust.change(func(s *armor.State) { s.Tombstones = s.Tombstones.Without("c") })
	if !isCut(api, patient) {
		t.Error("it stays when it has been forgotten")
	}
}

// TestNodeThatIsNoMemberReachesTheAPIAlone, but where its Raft is known to be in order.
func TestNodeThatIsNoMemberReachesTheAPIAlone(t *testing.T) {
	e := newEnds(t)
	vouching := e.link(t, "d", func(c *Config) { c.MaySpeak = func(n armor.NodeID) bool { return n == "c" } })
	certificate, other := e.ca.node(t, "c"), e.ca.node(t, "x")
	for _, c := range []struct {
		to   *Link
		who  *tls.Certificate
		alpn string
		want bool
	}{{e.b, certificate, API, true}, {e.b, certificate, Raft, false}, {vouching, certificate, Raft, true}, {vouching, other, Raft, false}} {
		accepted := accept(c.to, c.alpn)
		conn := come(t, c.to, c.who, c.alpn)
		if !c.want {
			if conn != nil && !isCut(conn, patient) {
				t.Errorf("%s is let in", c.alpn)
			}
			continue
		}
		select {
		case <-accepted:
		case <-time.After(patient):
			t.Errorf("%s is refused", c.alpn)
		}
	}
}

// revokedMeanwhile tells whether a peer whose certificate is revoked during its handshake,
// after the state was looked at there, is cut.
func revokedMeanwhile(t *testing.T, wrong mistakes, patience time.Duration) (cut bool) {
	e := newEnds(t)
	certificate := e.ca.node(t, "c")
	revoke := sync.OnceFunc(func() {
		e.trust.change(func(s *armor.State) {
			s.Revocations = s.Revocations.With(armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: e.facts(certificate).Key}})
		})
		time.Sleep(100 * time.Millisecond) // the scan for this revision finds nobody
	})
	server := e.link(t, "d", func(c *Config) {
		c.mistakes = wrong
		c.MaySpeak = func(armor.NodeID) bool { revoke(); return true } // asked after the state was loaded
	})
	accepted := accept(server, API)
	come(t, server, e.ca.node(t, "x"), API)
	<-accepted // so the link runs, and waits for the next revision
	accept(server, Raft)
	conn := come(t, server, certificate, Raft)
	return conn == nil || isCut(conn, patience)
}

func TestPeerThatIsRevokedDuringItsHandshakeIsCut(t *testing.T) {
	if !revokedMeanwhile(t, mistakes{}, patient) {
		t.Error("it stays")
	}
	if revokedMeanwhile(t, mistakes{verifyOnce: true}, 200*time.Millisecond) {
		t.Error("the mutant that judges before it registers, and never again, is not noticed")
	}
}

// TestOneKeyHoldsABoundedNumberOfConnections, the latest ones.
func TestOneKeyHoldsABoundedNumberOfConnections(t *testing.T) {
	e := newEnds(t)
	certificate := e.ca.node(t, "c")
	listener := e.b.Route(API)
	var all []net.Conn
	for range maxPerKey + 1 {
		all = append(all, come(t, e.b, certificate, API))
		if _, err := listener.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if !isCut(all[0], patient) || isCut(all[1], 50*time.Millisecond) || isCut(all[maxPerKey], 50*time.Millisecond) {
		t.Error("not the oldest goes")
	}
}

// endedMember tells whether a node is believed whose certificate has ended: a member, by the state or
// by what was written down of it.
func endedMember(t *testing.T, wrong mistakes, prepare func(e *ends, c *Config, certificate *tls.Certificate)) (believed bool) {
	t.Helper()
	e := newEnds(t)
	certificate := e.ca.node(t, "c")
	server := e.link(t, "d", func(c *Config) {
		c.Now = func() time.Time { return e.ca.cert.NotAfter.Add(time.Hour) }
		c.mistakes = wrong
		prepare(e, c, certificate)
	})
	hold(t, server, API)
	return greeted(come(t, server, certificate, API))
}

// greeted reports whether the other side takes a connection.
func greeted(conn net.Conn) bool {
	if conn == nil {
		return false
	}
	conn.SetReadDeadline(time.Now().Add(patient))
	_, err := io.ReadFull(conn, make([]byte, 2))
	return err == nil
}

// TestTheEndOfACertificateDoesNotCutAMember is GUARANTEES trap 49. Who is no member, or has another
// key, has ended with the certificate.
func TestTheEndOfACertificateDoesNotCutAMember(t *testing.T) {
	member := func(e *ends, _ *Config, own *tls.Certificate) {
		e.trust.change(func(s *armor.State) {
			s.Cluster = armor.Cluster{ID: "c", PeerCA: e.ca.cert.Raw}
			s.Members = s.Members.With(armor.Member{ID: "c", Certificate: e.facts(own)})
		})
	}
	pinned := func(e *ends, c *Config, own *tls.Certificate) {
		c.Pins = func() map[armor.NodeID]armor.Digest { return map[armor.NodeID]armor.Digest{"c": pki.SPKI(own.Leaf)} }
	}
	for name, c := range map[string]struct {
		prepare func(*ends, *Config, *tls.Certificate)
		want    bool
	}{
		"a member":                 {member, true},
		"before there is a state":  {pinned, true},
		"a stranger":               {func(*ends, *Config, *tls.Certificate) {}, false},
		"a member with other keys": {func(e *ends, c *Config, _ *tls.Certificate) { member(e, c, e.ca.node(t, "c")) }, false},
		"a former member": {func(e *ends, c *Config, own *tls.Certificate) {
			e.trust.change(func(s *armor.State) { s.Cluster = armor.Cluster{ID: "c", PeerCA: e.ca.cert.Raw} })
		}, false},
		"while the state lags behind": {func(e *ends, c *Config, own *tls.Certificate) {
			pinned(e, c, own)
			e.trust.change(func(s *armor.State) { s.Cluster = armor.Cluster{ID: "c", PeerCA: e.ca.cert.Raw} })
		}, true},
		"a member whose former key is pinned": {func(e *ends, c *Config, own *tls.Certificate) {
			member(e, c, e.ca.node(t, "c"))
			pinned(e, c, own)
		}, false},
		"a revoked member": {func(e *ends, c *Config, own *tls.Certificate) {
			member(e, c, own)
			e.trust.change(func(s *armor.State) {
				s.Revocations = s.Revocations.With(armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: pki.SPKI(own.Leaf)}})
			})
		}, false},
	} {
		if endedMember(t, mistakes{}, c.prepare) != c.want {
			t.Errorf("%s is believed: %t", name, !c.want)
		}
	}
	if endedMember(t, mistakes{endsCut: true}, member) {
		t.Error("the mutant that cuts a member off is not noticed")
	}
}

// TestEachPeerCAOfTheStateIsBelieved, and one that was retired is not, at once.
func TestEachPeerCAOfTheStateIsBelieved(t *testing.T) {
	e := newEnds(t)
	server := e.link(t, "d", func(c *Config) { c.PeerCAs = func() []*x509.Certificate { return nil } })
	next := newPeerCA(t, "Acme")
	certificate := next.node(t, "c")
	believe := func(signs, other *peerCA) {
		e.trust.change(func(s *armor.State) {
			s.Cluster = armor.Cluster{ID: "c", PeerCA: signs.cert.Raw}
			if other != nil {
				s.Cluster.NextPeerCA = other.cert.Raw
			}
			s.Members = s.Members.With(armor.Member{ID: "c", Certificate: pki.Facts(certificate.Leaf, pki.SPKI(next.cert))})
		})
	}
	hold(t, server, API)
	believe(e.ca, nil)
	if greeted(come(t, server, certificate, API)) {
		t.Error("a CA is believed that the state does not name")
	}
	believe(e.ca, next)
	conn := come(t, server, certificate, API)
	if !greeted(conn) {
		t.Fatal("the next CA is not believed")
	}
	operator := come(t, server, next.issue(t, pki.OperatorIdentity("Acme", "ada"), false), API)
	if !greeted(operator) {
		t.Fatal("an operator of the next CA is not believed")
	}
	believe(e.ca, nil)
	if !isCut(operator, patient) {
		t.Error("an operator's connection outlives the CA behind it")
	}
	if isCut(conn, 100*time.Millisecond) {
		t.Error("the connection of a member, who is known by the key, ends with the CA behind its former certificate")
	}
	if greeted(come(t, server, certificate, API)) {
		t.Error("a CA is believed that was taken back")
	}
}
