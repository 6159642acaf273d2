package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// question is what explain is asked about a client that need not exist.
type question struct {
	identity, serial, file, environment string
	database, role, source              string
	replication                         string
}

// about is what of the state answers the question.
func (q question) about(now time.Time) (armor.Question, error) {
	switch {
	case q.file != "":
		certs, err := issue.Certificates(q.file)
		return armor.Question{Leaves: leavesOf(certs)}, err
	case q.serial != "":
		digits, err := digitsOf(q.serial)
		return armor.Question{Certificates: []string{digits}}, err
	default:
		return armor.Question{Identities: []string{q.identity}, Each: 1, ValidAt: now}, nil
	}
}

// leavesOf are certificates as a question names those that need not be registered. Who
// signed them they do not say.
func leavesOf(certs []*x509.Certificate) (leaves []armor.Certificate) {
	for _, c := range certs {
		leaves = append(leaves, pki.Facts(c, armor.Digest{}))
	}
	return leaves
}

// certificatesOf are all that a peer showed.
func certificatesOf(p armor.Peer) []armor.Certificate {
	return append([]armor.Certificate{p.Leaf}, slices.Concat(p.Chains...)...)
}

// onlySource reports whether nothing is asked but what was refused from an address.
func (q question) onlySource() bool { return q == question{source: q.source} && q.source != "" }

func (q question) asked() bool { return q.identity != "" || q.serial != "" || q.file != "" }

// facts makes what the judge is asked, and says which certificate is supposed.
func (q question) facts(s *armor.State, now time.Time) (armor.Facts, string, error) {
	f := armor.Facts{Database: q.database, Role: q.role, Replication: armor.Replication(q.replication)}
	if q.database == "" || q.role == "" {
		return f, "", &fault.Usage{Err: errors.New("explain needs --database and --role beside the client")}
	}
	if q.replication != "" {
		if err := oneOf("--replication", q.replication, string(armor.PhysicalReplication), string(armor.LogicalReplication)); err != nil {
			return f, "", err
		}
	}
	if q.source != "" {
		address, err := netip.ParseAddr(q.source)
		if err != nil {
			return f, "", &fault.Usage{Err: fmt.Errorf("--source %q is not an IP address", q.source)}
		}
		f.Peer.Source = netip.AddrPortFrom(address, 0)
	}
	p, supposed, err := q.peer(s, now)
	p.Source = f.Peer.Source
	f.Peer = p
	return f, supposed, err
}

// peer is the client with the chains to trust anchors that its certificate has, and
// where the certificate was taken from.
func (q question) peer(s *armor.State, now time.Time) (armor.Peer, string, error) {
	switch {
	case q.file != "":
		return q.peerOfFile(s, now)
	case q.serial != "":
		r, err := findRecord(s, q.serial)
		if err != nil {
			return armor.Peer{}, "", err
		}
		return registeredPeer(s, r), "judging certificate " + r.Certificate.ID.Serial + ", as registered", nil
	}
	id, err := q.resolve(s)
	if err != nil {
		return armor.Peer{}, "", err
	}
	if r, found := longestLived(s, id, now); found {
		return registeredPeer(s, r), "supposing certificate " + r.Certificate.ID.Serial + ", which is registered", nil
	}
	p, from := supposedPeer(s, id, now)
	return p, from, nil
}

func registeredPeer(s *armor.State, r armor.CertRecord) armor.Peer {
	return armor.Peer{Leaf: r.Certificate, Chains: chainsOf(s, r.Certificate)}
}

// supposedPeer has a certificate that nobody has issued, of a CA that could.
func supposedPeer(s *armor.State, id armor.Identity, now time.Time) (armor.Peer, string) {
	p := armor.Peer{Leaf: armor.Certificate{Identity: id, NotBefore: now, NotAfter: now.Add(time.Hour)}}
	retired := ""
	for anchor := range s.Anchors.Values() {
		switch {
		case !anchor.Prefix.Matches(id):
		case anchor.Retired:
			retired = anchor.Name
		default:
			p.Leaf.ID.Issuer = anchor.Certificate.Key
			p.Chains = [][]armor.Certificate{{anchor.Certificate}}
			return p, "supposing a new certificate of trust anchor " + anchor.Name + ": none is registered"
		}
	}
	if retired != "" {
		return p, "supposing a certificate of a CA that the cluster does not know: trust anchor " + retired + " is retired, and signs no new ones"
	}
	return p, "supposing a certificate of a CA that the cluster does not know: no trust anchor may vouch for this identity"
}

// peerOfFile builds chains as the edge does.
func (q question) peerOfFile(s *armor.State, now time.Time) (armor.Peer, string, error) {
	certs, err := issue.Certificates(q.file)
	if err != nil {
		return armor.Peer{}, "", err
	}
	verifier, err := pki.NewVerifier(slices.Collect(s.Anchors.Values()))
	if err != nil {
		return armor.Peer{}, "", err
	}
	from := "judging the certificate in " + q.file
	chains, err := verifier.Verify(certs, now)
	if err != nil {
		from += "; its handshake ends with a TLS alert: " + err.Error()
	}
	issuer := armor.Digest{}
	if len(chains) > 0 {
		issuer = chains[0][0].Key
	}
	return armor.Peer{Leaf: pki.Facts(certs[0], issuer), Chains: chains, ServerAuth: pki.ServesToo(certs[0])}, from, nil
}

func (q question) resolve(s *armor.State) (armor.Identity, error) {
	if q.environment != "" {
		return issue.ResolveIdentity(s, q.environment, q.identity)
	}
	if id, err := armor.ParseIdentity(q.identity); err == nil {
		return id, nil
	}
	object, err := findIdentity(s, q.identity, "")
	if err != nil {
		return "", err
	}
	return issue.ResolveIdentity(s, object.Environment, object.Name)
}

// longestLived is the registered certificate of an identity that is valid and ends
// last.
func longestLived(s *armor.State, id armor.Identity, now time.Time) (armor.CertRecord, bool) {
	var best armor.CertRecord
	for r := range s.Inventory.Values() {
		_, revoked := s.RevocationOf(r.Certificate)
		if r.Certificate.Identity == id && stateWord(revoked, r.Certificate, now) == "valid" &&
			r.Certificate.NotAfter.After(best.Certificate.NotAfter) {
			best = r
		}
	}
	return best, !best.Certificate.Fingerprint.IsZero()
}

// chainsOf are the chains of a registered certificate that trust anchors make: those
// whose key signed it.
func chainsOf(s *armor.State, c armor.Certificate) [][]armor.Certificate {
	var chains [][]armor.Certificate
	for anchor := range s.Anchors.Values() {
		if anchor.Certificate.Key == c.ID.Issuer {
			chains = append(chains, []armor.Certificate{anchor.Certificate})
		}
	}
	return chains
}
