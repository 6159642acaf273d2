package pki

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// The two kinds of identity below a cluster's own trust domain.
const (
	Node     = "node"
	Operator = "operator"
)

const clusterSuffix = ".armor.internal"

// ClusterDomain is the SPIFFE trust domain of a cluster's nodes and operators.
func ClusterDomain(cluster string) string { return armor.Cluster{Name: cluster}.TrustDomain() }

// NodeIdentity is the identity of a node of the cluster.
func NodeIdentity(cluster string, id armor.NodeID) armor.Identity {
	return armor.Cluster{Name: cluster}.NodeIdentity(id)
}

// OperatorIdentity is the identity of an operator of the cluster.
func OperatorIdentity(cluster, name string) armor.Identity {
	return armor.Cluster{Name: cluster}.OperatorIdentity(name)
}

// ParsePeerIdentity takes a node's or operator's identity apart. The cluster comes
// back in lower case, as the trust domain spells it; kind is Node or Operator.
func ParsePeerIdentity(id armor.Identity) (cluster, kind, name string, err error) {
	cluster, ok := strings.CutSuffix(id.TrustDomain(), clusterSuffix)
	parts := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	if !ok || cluster == "" || len(parts) != 2 {
		return "", "", "", fmt.Errorf("%w: %q is not the identity of a node or operator", armor.ErrInvalid, id)
	}
	kind, name = parts[0], parts[1]
	switch kind {
	case Node:
		_, err = armor.ParseNodeID(name)
	case Operator:
		err = armor.CheckName("operator", name)
	default:
		err = fmt.Errorf("%w: %q names neither a node nor an operator", armor.ErrInvalid, id)
	}
	if err != nil {
		return "", "", "", err
	}
	return cluster, kind, name, nil
}

// CheckPeerLeaf returns the first rule that a node's or operator's certificate
// breaks: nodes are both client and server, operators are clients only.
func CheckPeerLeaf(cert *x509.Certificate, kind string) error {
	broken := append(basics(cert), clientUsage(cert, kind == Node)...)
	if kind == Node && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		broken = append(broken, &Violation{Rule: RuleExtKeyUsage, What: "lacks the extended key usage serverAuth, which a node needs"})
	}
	broken = append(broken, identityRule(cert)...)
	return first(broken)
}

// Peer is who a chain under a peer CA says that its holder is.
type Peer struct {
	Kind  string // Node or Operator
	Name  string
	Leaf  armor.Certificate
	Above []armor.Certificate // the CAs that vouch for it, up to the peer CA
}

// VerifyPeer checks the chain that a node or operator presented, leaf first, against
// the cluster's peer CAs, and returns who it is. It is pure and may run before proof
// of possession.
func VerifyPeer(cas []*x509.Certificate, cluster string, chain []*x509.Certificate, now time.Time) (Peer, error) {
	if err := bounded(chain); err != nil {
		return Peer{}, err
	}
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates(chain), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Peer{}, fmt.Errorf("verify peer certificate: %w", err)
	}
	id, err := URIIdentity(chain[0])
	if err != nil {
		return Peer{}, fmt.Errorf("peer certificate: %w", err)
	}
	domain, kind, name, err := ParsePeerIdentity(id)
	if err != nil {
		return Peer{}, err
	}
	if domain != strings.ToLower(cluster) {
		return Peer{}, fmt.Errorf("%w: %q is of another cluster than %q", armor.ErrDenied, id, cluster)
	}
	if err := CheckPeerLeaf(chain[0], kind); err != nil {
		return Peer{}, err
	}
	return provenBy(shortest(chains), kind, name), nil
}

// shortest is the chain that says most directly who vouches for the leaf: a CA that is trusted by
// itself may be signed by another one, too.
func shortest(chains [][]*x509.Certificate) []*x509.Certificate {
	return slices.MinFunc(chains, func(a, b []*x509.Certificate) int { return cmp.Compare(len(a), len(b)) })
}

func provenBy(chain []*x509.Certificate, kind, name string) Peer {
	p := Peer{Kind: kind, Name: name}
	for i, c := range chain {
		issuer := SPKI(chain[min(i+1, len(chain)-1)]) // the last one is trusted by itself
		if i == 0 {
			p.Leaf = Facts(c, issuer)
		} else {
			p.Above = append(p.Above, Facts(c, issuer))
		}
	}
	return p
}

// VerifyKnownPeer is VerifyPeer for somebody who is known by the key: that the certificate, or its
// CA, has ended does not matter. All else does.
func VerifyKnownPeer(cas []*x509.Certificate, cluster string, chain []*x509.Certificate, now time.Time) (p Peer, err error) {
	if err := bounded(chain); err != nil {
		return Peer{}, err
	}
	err = fmt.Errorf("verify peer certificate: %w: there is no peer CA", armor.ErrInvalid)
	for _, ca := range cas {
		at := now
		for _, c := range []*x509.Certificate{chain[0], ca} {
			if c.NotAfter.Before(at) {
				at = c.NotAfter
			}
		}
		if p, err = VerifyPeer([]*x509.Certificate{ca}, cluster, chain, at); err == nil {
			return p, nil
		}
	}
	return p, err
}
