package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestSeverityIsByTheShareOfItsLifeThatIsLeft(t *testing.T) {
	rule := horizon{now: noon, until: noon.Add(expirySoon), onlyDue: true}
	all := horizon{now: noon, until: noon.Add(400 * day)}
	for _, c := range []struct {
		life, left time.Duration
		rule, all  string
	}{
		{365 * day, -time.Second, wrongNow, wrongNow},
		{365 * day, 29 * day, dueSoon, dueSoon},
		{365 * day, 60 * day, "", dueLater},
		{30 * day, 29 * day, "", dueLater},
		{24 * time.Hour, 7 * time.Hour, dueSoon, dueSoon},
		{4000 * day, 500 * day, "", ""},
	} {
		ends := noon.Add(c.left)
		if got := rule.severityOf(ends.Add(-c.life), ends); got != c.rule {
			t.Errorf("%s left of %s: %q by the rule", c.left, c.life, got)
		}
		if got := all.severityOf(ends.Add(-c.life), ends); got != c.all {
			t.Errorf("%s left of %s: %q of all", c.left, c.life, got)
		}
	}
}

// answering answers questions from a state, as a node does.
type answering struct {
	state *armor.State
	asked int
}

func (a *answering) Ask(_ context.Context, q armor.Question, _ ...rpc.Table) (*armor.State, string, error) {
	a.asked++
	return a.state.Excerpt(q)
}

// hold registers a certificate of an identity that ends in so long.
func (a *answering) hold(identity, serial string, in time.Duration) armor.Certificate {
	c := armor.Certificate{
		ID: armor.CertID{Issuer: sha256.Sum256([]byte("ca")), Serial: serial}, Identity: armor.Identity("spiffe://acme/" + identity),
		Fingerprint: sha256.Sum256([]byte(identity + serial)), NotBefore: noon.Add(-day), NotAfter: noon.Add(in),
	}
	armor.Inventory.Put(a.state, armor.CertRecord{Certificate: c, Environment: "dev", Owner: "team"})
	return c
}

// Planted mistakes that this catches: a certificate with a later one of its identity named, be it
// on another page or beyond the horizon; and an inventory that is looked through as a whole.
func TestOnlyTheLastGoodCertificateOfAnIdentityIsNews(t *testing.T) {
	cluster := &answering{state: &armor.State{Revision: 1}}
	for i := range pageSize + 200 {
		cluster.hold("crowd", fmt.Sprintf("a%d", i), time.Duration(i+1)*time.Minute)
	}
	cluster.hold("alone", "b1", 2*time.Minute)
	cluster.hold("renewed", "b2", 3*time.Minute)
	cluster.hold("renewed", "b3", 900*day)
	revoked := cluster.hold("undone", "b5", 900*day)
	cluster.hold("undone", "b4", 4*time.Minute)
	cluster.state.Revocations = cluster.state.Revocations.With(armor.Revocation{
		Selector: armor.Selector{Kind: armor.SelectCertificate, Certificate: revoked.ID}, Reason: armor.Superseded})
	found, err := lookForLastGood(t.Context(), cluster, armor.CertificatePage{Until: noon.Add(30 * day)}, noon)
	if err != nil || found.more {
		t.Fatal(found.more, err)
	}
	var serials []string
	for _, r := range found.certs {
		serials = append(serials, r.Certificate.ID.Serial)
	}
	if got := strings.Join(serials, " "); got != fmt.Sprintf("b1 b4 a%d", pageSize+199) {
		t.Errorf("named: %s", got)
	}

	crowded := &answering{state: &armor.State{Revision: 1}}
	for i := range (lookedPages + 2) * pageSize {
		crowded.hold(fmt.Sprint("c", i), fmt.Sprintf("c%d", i), time.Duration(i+1)*time.Second)
	}
	found, err = lookForLastGood(t.Context(), crowded, armor.CertificatePage{}, noon)
	if err != nil || !found.more || len(found.certs) != lookedPages*pageSize || crowded.asked > 2*lookedPages {
		t.Errorf("%d certificates by %d questions, more %t, %v", len(found.certs), crowded.asked, found.more, err)
	}
	// A node of an earlier release does not know of issuers, and sends all.
	other := armor.CertificatePage{Issuer: sha256.Sum256([]byte("another"))}
	if rows := chosen(cluster.state, other, noon); len(rows) != 0 {
		t.Errorf("%d of an issuer that has signed none", len(rows))
	}
}

func TestNodesThatHaveTheSameAreOneAndWhoDoesNotAnswerIsNamed(t *testing.T) {
	h := horizon{now: noon, until: noon.Add(400 * day)}
	secret := armor.HeldCertificate{Kind: armor.HeldClient, Name: "pg", NotBefore: noon.Add(-9 * day), NotAfter: noon.Add(day), Pools: []string{"dev/orders"}}
	server := armor.HeldCertificate{Kind: armor.HeldServer, NotBefore: noon.Add(-day), NotAfter: noon.Add(500 * day)}
	own := secret
	own.NotBefore, own.NotAfter = noon.Add(-day), noon.Add(2*day)
	nodes := []armor.NodeStatus{
		{Node: "n1", Certificates: []armor.HeldCertificate{server, secret}, Version: "1", Role: "leader", Term: 2,
			Withheld: []armor.Withheld{{Pool: "dev/orders", Node: "n9", Count: 4, Why: "it was removed"}}},
		{Node: "n2", Certificates: []armor.HeldCertificate{server, secret}, FreshAge: -1},
		{Node: "n3", Certificates: []armor.HeldCertificate{server, own}, MoreCertificates: 7},
		{Node: "n4", Version: "old"},
		{Node: "n5", Unreachable: "connection refused"},
	}
	var lines []string
	state := &armor.State{Time: noon.Add(day)}
	armor.Pools.Put(state, armor.Pool{Name: "orders", Environment: "dev"})
	for i, n := range nodes {
		armor.Members.Put(state, armor.Member{ID: n.Node, Voter: i > 2})
	}
	for _, f := range append(h.heldByNodes(nodes), h.wrongNow(state, nodes)...) {
		lines = append(lines, fmt.Sprintf("%s | %s | %s | %s", f.Severity, f.Kind, f.whose(), f.Stops))
	}
	want := []string{
		"soon | secret certificate | pg on n1, n2 | PostgreSQL refuses the logins of pools dev/orders",
		"later | secret certificate | pg on n3 | PostgreSQL refuses the logins of pools dev/orders",
		"unasked | secret certificate | n3 | 7 more secrets end later than those that it tells of",
		"unasked | server certificate | n4 | it does not tell when its certificates end: it runs old",
		"wrong | node | n2 | it cannot prove that its trust state is fresh, and serves nobody",
		"unasked | node | n5 | not asked: connection refused",
		"wrong | withheld share | dev/orders | 4 server connections are kept for node n9: it was removed",
		"wrong | cluster |  | no quorum: 1 of 2 voters answer; nothing can be changed, and soon nobody is served",
		"wrong | cluster |  | log time is in the future, so that changes are refused: 2026-01-02T12:00:00Z",
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("found:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestAnAnchorThatAnotherStandsInForIsNoNews(t *testing.T) {
	h := horizon{now: noon, until: noon.Add(400 * day)}
	s := &armor.State{}
	put := func(name string, key byte, ends time.Duration, retired bool) {
		armor.Anchors.Put(s, armor.TrustAnchor{Name: name, Environment: "dev", Prefix: "spiffe://acme/*", Retired: retired, Certificate: armor.Certificate{
			Fingerprint: sha256.Sum256([]byte(name)), Key: armor.Digest{key}, NotBefore: noon.Add(-day), NotAfter: noon.Add(ends)}})
	}
	put("renewed", 1, 10*day, false)
	put("renewal", 1, 900*day, true)
	put("dying", 2, 20*day, true)
	put("revoked", 3, 20*day, false)
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: armor.Selector{Kind: armor.SelectIssuer, Issuer: armor.Digest{3}}})
	if found := h.anchors(s); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	put("alone", 4, 20*day, false)
	put("over", 5, -day, false)
	names := map[string]string{}
	for _, f := range h.anchors(s) {
		names[f.Name] = f.Severity + ": " + f.Mend
	}
	if len(names) != 2 || !strings.HasPrefix(names["over"], "wrong: armorctl ca retire over") {
		t.Errorf("%q", names)
	}
}
