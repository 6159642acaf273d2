package armor

import (
	"slices"
	"strings"
	"time"
)

// Cluster is what says which cluster this is.
type Cluster struct {
	ID        string // random, 32 hex digits; every signature and gossip packet is bound to it
	Name      string
	PeerCA    []byte // DER certificate that signs nodes and operators
	CreatedAt time.Time
	// NextPeerCA signs nodes and operators as well, until PeerCA is retired and it takes its place;
	// nil: there is none.
	NextPeerCA []byte
	// Endorsement is the signature of PeerCA's key over SuccessionText of NextPeerCA, by which who knows
	// the one comes to know the other; nil: it has not signed.
	Endorsement []byte
}

// SuccessionText is what a peer CA's key signs of the CA that shall take its place.
func SuccessionText(cluster string, next []byte) []byte {
	return Canonical(struct {
		Purpose, Cluster string
		Next             []byte
	}{"armor peer CA succession v1", cluster, next})
}

// PeerCAs are the CAs of nodes and operators, DER.
func (c Cluster) PeerCAs() [][]byte {
	all := [][]byte{c.PeerCA}
	if len(c.NextPeerCA) > 0 {
		all = append(all, c.NextPeerCA)
	}
	return all
}

// SetPeerCAs changes the CAs of nodes and operators in a state that nobody else has seen.
func (s *State) SetPeerCAs(signs, next, endorsement []byte) {
	s.Cluster.PeerCA, s.Cluster.NextPeerCA, s.Cluster.Endorsement = signs, next, endorsement
	s.Changed.at[Joining] = s.Revision
}

// TrustDomain is the SPIFFE trust domain of the cluster's own nodes and operators.
func (c Cluster) TrustDomain() string { return strings.ToLower(c.Name) + ".armor.internal" }

// NodeIdentity is the identity that a node's certificate must carry.
func (c Cluster) NodeIdentity(n NodeID) Identity {
	return Identity(spiffeScheme + c.TrustDomain() + "/node/" + string(n))
}

// OperatorIdentity is the identity that an operator's certificate must carry.
func (c Cluster) OperatorIdentity(name string) Identity {
	return Identity(spiffeScheme + c.TrustDomain() + "/operator/" + name)
}

// Member is a node that was admitted.
type Member struct {
	ID          NodeID
	Index       uint16 // 1 to 1023, never reused; goes into cancel keys
	Certificate Certificate
	// PeerAddress is where other nodes dial it (Raft, gRPC); ClientAddress and
	// OpsAddress are shown to people. Each is host:port.
	PeerAddress   string
	ClientAddress string
	OpsAddress    string
	Voter         bool // whether it was admitted to vote; Raft's configuration says whether it does yet
	AdmittedAt    time.Time
	// Chain is the certificate and its issuers, DER, once it was renewed: the node takes it from here.
	Chain [][]byte
}

// Key is the member's key in State.Members.
func (m Member) Key() string { return string(m.ID) }

// Tombstone remembers a removed member until no lease of its can still be running
// and no server connection of its can still be open.
type Tombstone struct {
	ID        NodeID
	RemovedAt time.Time
	// FormerKey is the key that the node had, which its removal has revoked: with it the node may
	// still say that it has let go, and nothing else. Zero: it may not (it was revoked
	// before), or a level below 7 removed it.
	FormerKey Digest
	// SharesSettled is an operator's word that PostgreSQL has none of its server connections
	// any more, so that nobody has to look once its lease is over.
	SharesSettled bool
}

// Key is the tombstone's key in State.Tombstones.
func (t Tombstone) Key() string { return string(t.ID) }

// JoinToken lets one node ask to be admitted, once.
type JoinToken struct {
	Hash    Digest // SHA-256 of the token
	Node    NodeID // who may use it
	Voter   bool
	Expires time.Time
	By      string
}

// Key is the token's key in State.Tokens.
func (t JoinToken) Key() string { return t.Hash.String() }

// JoinRequest is a node that has spent its token and waits for an operator to sign
// its certificate.
type JoinRequest struct {
	Node          NodeID
	CSR           []byte // PKCS #10, DER
	Voter         bool
	PeerAddress   string
	ClientAddress string
	OpsAddress    string
	At            time.Time
	// Chain is set once approved: the node's certificate and its issuers, DER.
	Chain [][]byte
}

// Key is the request's key in State.Joins.
func (r JoinRequest) Key() string { return string(r.Node) }

// OperatorRole is what an operator may do. Roles do not include one another.
type OperatorRole string

const (
	Viewer      OperatorRole = "viewer"       // read everything
	Revoker     OperatorRole = "revoker"      // take access away, never give it
	Issuer      OperatorRole = "issuer"       // register certificates
	PolicyAdmin OperatorRole = "policy-admin" // databases, pools, identities, grants
	CAAdmin     OperatorRole = "ca-admin"     // trust anchors, environments and operators
	NodeAdmin   OperatorRole = "node-admin"   // admit and remove nodes
)

// OperatorRoles are all of them.
func OperatorRoles() []OperatorRole {
	return []OperatorRole{Viewer, Revoker, Issuer, PolicyAdmin, CAAdmin, NodeAdmin}
}

// Operator is a person or program that may change the cluster. Its requests are
// signed with the key of its certificate.
type Operator struct {
	Name        string
	Certificate Certificate
	PublicKey   []byte // P-256 point, uncompressed, 65 bytes (SEC 1 §2.3.3)
	Roles       []OperatorRole
}

// Key is the operator's key in State.Operators.
func (o Operator) Key() string { return o.Name }

// Has reports whether the operator holds the role.
func (o Operator) Has(r OperatorRole) bool { return slices.Contains(o.Roles, r) }
