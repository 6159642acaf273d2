package main

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// What a finding is about.
const (
	kindNode     = "node certificate"
	kindOperator = "operator certificate"
	kindPeerCA   = "peer CA"
	kindAnchor   = "trust anchor"
	kindClient   = "client certificate"
	kindServer   = "server certificate"
	kindSecret   = "secret certificate"
	kindSecretCA = "secret CA"
	kindPool     = "pool"
	kindShare    = "withheld share"
	kindClock    = "clock"
	kindMember   = "node"
	kindCluster  = "cluster"
)

// ownCertificates are those of nodes and operators, and of the CA that signs both.
func (h horizon) ownCertificates(s *armor.State) (found []finding) {
	add := func(f finding, begins, ends time.Time) {
		if f, news := h.ending(f, begins, ends); news {
			found = append(found, f)
		}
	}
	for _, ca := range parsed(s.Cluster.PeerCAs()) {
		f := finding{Kind: kindPeerCA, Name: ca.Subject.CommonName, Stops: "operators with certificates of it are refused, and it admits and renews nobody",
			Mend: "armorctl peer-ca add --out NEW --peer-ca DIR, then renew operators and nodes by it: docs/operate.md"}
		if len(s.Cluster.PeerCAs()) > 1 {
			f.Mend = "renew operators and nodes by the other one, then armorctl peer-ca retire: docs/operate.md"
		}
		add(f, ca.NotBefore, ca.NotAfter)
	}
	for m := range s.Members.Values() {
		add(finding{Kind: kindNode, Name: string(m.ID), Stops: "members go on, knowing it by its key; an armorctl that has never reached the cluster does not believe it",
			Mend: fmt.Sprintf("armorctl node renew %s --peer-ca DIR", m.ID)}, m.Certificate.NotBefore, m.Certificate.NotAfter)
	}
	for o := range s.Operators.Values() {
		if _, revoked := s.RevokesOwn(o.Certificate); revoked {
			continue
		}
		stops, mend := "the operator is refused by all nodes", fmt.Sprintf("armorctl operator renew %s --peer-ca DIR", o.Name)
		if last, role := lastWithRole(s, o); last {
			stops += fmt.Sprintf(", and nobody is left with role %s", role)
			if h.now.After(o.Certificate.NotAfter) {
				mend = fmt.Sprintf("another operator with role %s renews it; if none is left: armorctl operator rescue %s --peer-ca DIR --out DIR",
					armor.CAAdmin, o.Name)
			}
		}
		add(finding{Kind: kindOperator, Name: o.Name, Stops: stops, Mend: mend}, o.Certificate.NotBefore, o.Certificate.NotAfter)
	}
	return found
}

// parsed are certificates that were parsed before the cluster took them.
func parsed(ders [][]byte) (all []*x509.Certificate) {
	for _, der := range ders {
		if c, err := x509.ParseCertificate(der); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// lastWithRole reports whether an operator has a role that nobody has whose certificate ends later.
func lastWithRole(s *armor.State, o armor.Operator) (bool, armor.OperatorRole) {
	for _, role := range o.Roles {
		others := false
		for p := range s.Operators.Values() {
			_, revoked := s.RevokesOwn(p.Certificate)
			others = others || p.Name != o.Name && !revoked && p.Has(role) && p.Certificate.NotAfter.After(o.Certificate.NotAfter)
		}
		if !others {
			return true, role
		}
	}
	return false, ""
}

// anchors are the CAs of clients. One that is retired, distrusted or revoked is missed by nobody, and so is one
// whose key has a certificate that lasts longer.
func (h horizon) anchors(s *armor.State) (found []finding) {
	for _, a := range sortedAnchors(s) {
		if a.Retired || a.Distrusted || anchorRevoked(s, a) || outlived(s, a) {
			continue
		}
		f := finding{Kind: kindAnchor, Name: a.Name, Environment: a.Environment, Stops: "clients with certificates of it are refused",
			Mend: fmt.Sprintf("armorctl ca init --environment %s --out DIR, then armorctl ca rotate start --environment %s --from %s --to NEW",
				a.Environment, a.Environment, a.Name)}
		fault := anchorFault(a, h.now)
		f, news := h.ending(f, a.Certificate.NotBefore, a.Certificate.NotAfter)
		switch {
		case f.Severity == wrongNow:
			f.Mend = fmt.Sprintf("armorctl ca retire %s if nobody needs it; else armorctl ca init or ca import another", a.Name)
		case fault != "":
			f.Severity, f.Stops, news = wrongNow, "it vouches for nobody: it "+fault, true
		}
		if news {
			found = append(found, f)
		}
	}
	return found
}

func outlived(s *armor.State, a armor.TrustAnchor) bool {
	for b := range s.Anchors.Values() {
		if b.Environment == a.Environment && b.Certificate.Key == a.Certificate.Key && b.Certificate.NotAfter.After(a.Certificate.NotAfter) &&
			!anchorRevoked(s, b) {
			return true
		}
	}
	return false
}

// clients are the last good certificates of identities.
func (h horizon) clients(certs []armor.CertRecord) (found []finding) {
	for _, r := range certs {
		c := r.Certificate
		f := finding{Kind: kindClient, Name: string(c.Identity), Environment: r.Environment, Owner: r.Owner,
			Stops: "it is refused; it has no later certificate",
			Mend:  fmt.Sprintf("armorctl cert issue %s --environment %s --ca DIR --replaces %s", c.Identity, r.Environment, shortSerial(c.ID.Serial))}
		if f, news := h.ending(f, c.NotBefore, c.NotAfter); news {
			found = append(found, f)
		}
	}
	return found
}
