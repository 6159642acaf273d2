package armor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Command is a change of the replicated state. The set is closed: each kind is a
// struct below, fsm gives it meaning, and fsm/fsmpb gives it a log encoding.
//
// Commands carry facts, not things to parse: whoever proposes one has already
// parsed and validated certificates, patterns and addresses.
type Command interface {
	// Kind is the command's stable name in logs, audit and signatures.
	Kind() string
	// Needs is the role an operator must hold. Empty: only the cluster itself
	// proposes this kind.
	Needs() OperatorRole
}

// Commands returns one zero value of each kind. A kind that is not among them cannot be
// encoded, and has no meaning.
func Commands() []Command {
	return []Command{
		Bootstrap{}, PutEnvironment{}, PutAnchor{}, RegisterCertificate{}, Revoke{}, Apply{}, PutOperator{},
		CreateJoinToken{}, RequestJoin{}, ApproveJoin{}, RemoveMember{}, SetMemberAddresses{}, SetShares{},
		BuryTombstones{}, PruneExpired{}, StageRevocations{}, RevokeStaged{}, MendTime{},
		PruneCertificates{}, ReplaceMember{}, RenewMember{}, RetireAnchor{},
		PutPeerCA{}, RetirePeerCA{}, RescueOperator{},
		StartRotation{}, MoveRotation{}, RecordUses{},
	}
}

// Bootstrap is the first command of a cluster's log.
type Bootstrap struct {
	Cluster  Cluster
	Member   Member
	Operator Operator
}

// PutEnvironment creates or changes an environment outside of Apply; it is what
// `armorctl ca init` does for an environment that is not there yet.
type PutEnvironment struct{ Environment Environment }

// PutAnchor adds a trust anchor.
type PutAnchor struct{ Anchor TrustAnchor }

// RetireAnchor retires a trust anchor (TrustAnchor.Retired), or with Undo takes it into use again.
type RetireAnchor struct {
	Anchor Digest // fingerprint of its certificate
	Undo   bool
}

// StartRotation begins to take an environment's clients from one trust anchor to another: see
// Rotation, whose fields of the same names are what is said here.
type StartRotation struct {
	Environment string
	Old, New    Digest // fingerprints
	Watch       time.Duration
	Spared      []Pattern
	// Compromised begins where others end: Old lets nobody in from now on, and never again.
	Compromised bool
	Drill       bool
}

// MoveRotation brings a rotation into another phase, forwards or back.
type MoveRotation struct {
	Environment string
	Revision    uint64 // that began the phase which it is in, as whoever moves it saw it
	To          RotationPhase
	Spared      []Pattern // beside those that are spared already
	// Force asks neither what depends on the old anchor nor whether every node answers.
	Force bool
}

// RecordUses remembers by which trust anchors identities were let in. The leader proposes it, of
// what nodes report.
type RecordUses struct{ Uses []Use }

// RegisterCertificate records an issued certificate in the inventory and binds its
// key to the environment. Replaces, when set, is the fingerprint it succeeds.
type RegisterCertificate struct {
	Record   CertRecord
	Replaces Digest
}

// Revoke takes access away for good. Several selectors are one commit.
type Revoke struct {
	Selectors []Selector
	Reason    RevocationReason
	Comment   string
}

// StageRevocations brings one part of a batch of selectors that is too large for one
// Revoke. It revokes nothing yet.
type StageRevocations struct {
	Batch     RequestID // the proposer's own name for the batch
	Part      int       // counts from 1
	Selectors []Selector
}

// RevokeStaged does for all selectors of a batch, in one step, what Revoke does.
type RevokeStaged struct {
	Batch   RequestID
	Parts   int    // how many there are
	Digest  Digest // StagingDigest of all selectors
	Reason  RevocationReason
	Comment string
}

// The kinds of object in the cluster configuration.
const (
	KindEnvironment = "Environment"
	KindDatabase    = "Database"
	KindPool        = "Pool"
	KindIdentity    = "Identity"
)

// ObjectRef names an object of the cluster configuration.
type ObjectRef struct {
	Kind        string
	Environment string
	Name        string
}

// String is such as pool production/orders.
func (r ObjectRef) String() string {
	if r.Kind == KindEnvironment {
		return "environment " + r.Name
	}
	return strings.ToLower(r.Kind) + " " + ObjectKey(r.Environment, r.Name)
}

// Apply changes the cluster configuration: all of it or nothing.
type Apply struct {
	// IfRevision refuses the change with ErrConflict when the state has moved on;
	// zero applies to whatever is there.
	IfRevision   uint64
	Environments []Environment
	Databases    []Database
	Pools        []Pool
	Identities   []IdentityConfig
	Delete       []ObjectRef
	// AddBudgets lets pools begin to lead to one role of one database on one host, where the
	// sum of their budgets is what PostgreSQL sees.
	AddBudgets bool
}

// PutOperator adds an operator or changes one's certificate or roles.
type PutOperator struct{ Operator Operator }

// RescueOperator does what PutOperator does where no operator is left who could: its request is signed
// by the peer CA's key, by PeerCAPrincipal.
type RescueOperator struct{ Operator Operator }

// PutPeerCA has a second CA sign nodes and operators, beside the one that does.
type PutPeerCA struct {
	Certificate Certificate
	DER         []byte
	Endorsement []byte // as in Cluster; nil: none
}

// RetirePeerCA ends one of two peer CAs, once no node and no operator depends on it.
type RetirePeerCA struct {
	Fingerprint Digest
	Key         Digest // SPKI: what certificates that it has signed name as their issuer
}

// CreateJoinToken lets one named node ask to be admitted.
type CreateJoinToken struct{ Token JoinToken }

// RequestJoin spends a token and files the node's certificate request.
type RequestJoin struct {
	Token   Digest
	Request JoinRequest
}

// ApproveJoin admits the node that asked, with the certificate an operator signed.
type ApproveJoin struct {
	Node        NodeID
	Certificate Certificate
	Chain       [][]byte
}

// RemoveMember takes a node out and leaves a tombstone.
type RemoveMember struct {
	Node NodeID
	// SharesSettled is the operator's word for Tombstone.SharesSettled; it can be given of a
	// node that was removed before, too.
	SharesSettled bool
	// Force insists where too few voters that answer would be left, which only the leader
	// knows: the machine has no use for it.
	Force bool
}

// RenewMember gives a node another certificate of the key that it has. The node takes it into use
// when it learns of it.
type RenewMember struct {
	Node        NodeID
	Certificate Certificate
	Chain       [][]byte // the certificate and its issuers, DER
}

// ReplaceMember takes a node out, as RemoveMember does, and makes the token by which another
// machine may ask to join under its name: a member is an id, and the name a label on it.
type ReplaceMember struct {
	Node          NodeID
	SharesSettled bool
	Force         bool
	Token         JoinToken // for the same name
}

// SetMemberAddresses is what a member says of itself when it starts elsewhere.
type SetMemberAddresses struct {
	Node                                   NodeID
	PeerAddress, ClientAddress, OpsAddress string
}

// SetShares moves shares of one pool. The machine refuses it when the pool's
// granted shares would exceed its budget.
type SetShares struct {
	Pool   string
	Shares []Share
}

// BuryTombstones forgets removed members whose leases and server connections are
// all over.
type BuryTombstones struct{ Nodes []NodeID }

// PruneExpired drops tokens, unanswered join requests and staged parts that ended before
// At.
type PruneExpired struct{ At time.Time }

// MendTime takes log time back to what the voters' clocks agree on, after an entry has
// carried it into the future. It is judged by the time at which it was proposed, since by
// log time every request is over.
type MendTime struct {
	// From is log time as the operator saw it. What is not as late any more was mended
	// meanwhile.
	From time.Time
}

// PruneCertificates takes certificates that have ended out of the inventory, those that ended
// first first and at most MaxPruned, and with each the revocation of that certificate alone:
// no clock lets it in any more. Revocations of keys, identities and issuers stay, since they
// may be about certificates that nobody has registered. It is an operator's act, so that a
// leader that dates its entries falsely can forget nothing.
type PruneCertificates struct {
	// EndedBefore is KeptAfterEnd before log time, or earlier.
	EndedBefore time.Time
}

const (
	// KeptAfterEnd is how long a certificate stays in the inventory after its end at least. No
	// node's idea of the time is as far behind the others'.
	KeptAfterEnd = 72 * time.Hour
	// MaxPruned is how many certificates one PruneCertificates takes out, so that what comes
	// behind it in the log need not wait for long.
	MaxPruned = 250
)

// Kind is the stable name of each command: see Command.
func (Bootstrap) Kind() string           { return "bootstrap" }
func (PutEnvironment) Kind() string      { return "put-environment" }
func (PutAnchor) Kind() string           { return "put-anchor" }
func (RegisterCertificate) Kind() string { return "register-certificate" }
func (Revoke) Kind() string              { return "revoke" }
func (Apply) Kind() string               { return "apply" }
func (PutOperator) Kind() string         { return "put-operator" }
func (CreateJoinToken) Kind() string     { return "create-join-token" }
func (RequestJoin) Kind() string         { return "request-join" }
func (ApproveJoin) Kind() string         { return "approve-join" }
func (RemoveMember) Kind() string        { return "remove-member" }
func (ReplaceMember) Kind() string       { return "replace-member" }
func (RenewMember) Kind() string         { return "renew-member" }
func (RescueOperator) Kind() string      { return "rescue-operator" }
func (PutPeerCA) Kind() string           { return "put-peer-ca" }
func (RetirePeerCA) Kind() string        { return "retire-peer-ca" }
func (SetMemberAddresses) Kind() string  { return "set-member-addresses" }
func (SetShares) Kind() string           { return "set-shares" }
func (BuryTombstones) Kind() string      { return "bury-tombstones" }
func (PruneExpired) Kind() string        { return "prune-expired" }
func (StageRevocations) Kind() string    { return "stage-revocations" }
func (RevokeStaged) Kind() string        { return "revoke-staged" }
func (MendTime) Kind() string            { return "mend-time" }
func (PruneCertificates) Kind() string   { return "prune-certificates" }
func (RetireAnchor) Kind() string        { return "retire-anchor" }
func (StartRotation) Kind() string       { return "start-rotation" }
func (MoveRotation) Kind() string        { return "move-rotation" }
func (RecordUses) Kind() string          { return "record-uses" }

// Needs is the role that each asks of an operator: see Command.
func (Bootstrap) Needs() OperatorRole           { return "" }
func (PutEnvironment) Needs() OperatorRole      { return CAAdmin }
func (PutAnchor) Needs() OperatorRole           { return CAAdmin }
func (RegisterCertificate) Needs() OperatorRole { return Issuer }
func (Revoke) Needs() OperatorRole              { return Revoker }
func (Apply) Needs() OperatorRole               { return PolicyAdmin }
func (PutOperator) Needs() OperatorRole         { return CAAdmin }
func (CreateJoinToken) Needs() OperatorRole     { return NodeAdmin }
func (RequestJoin) Needs() OperatorRole         { return "" }
func (ApproveJoin) Needs() OperatorRole         { return NodeAdmin }
func (RemoveMember) Needs() OperatorRole        { return NodeAdmin }
func (ReplaceMember) Needs() OperatorRole       { return NodeAdmin }
func (RenewMember) Needs() OperatorRole         { return NodeAdmin }
func (RescueOperator) Needs() OperatorRole      { return CAAdmin }
func (PutPeerCA) Needs() OperatorRole           { return CAAdmin }
func (RetirePeerCA) Needs() OperatorRole        { return CAAdmin }
func (SetMemberAddresses) Needs() OperatorRole  { return "" }
func (SetShares) Needs() OperatorRole           { return "" }
func (BuryTombstones) Needs() OperatorRole      { return "" }
func (PruneExpired) Needs() OperatorRole        { return "" }
func (StageRevocations) Needs() OperatorRole    { return Revoker }
func (RevokeStaged) Needs() OperatorRole        { return Revoker }
func (MendTime) Needs() OperatorRole            { return CAAdmin }
func (PruneCertificates) Needs() OperatorRole   { return CAAdmin }
func (RetireAnchor) Needs() OperatorRole        { return CAAdmin }
func (StartRotation) Needs() OperatorRole       { return CAAdmin }
func (MoveRotation) Needs() OperatorRole        { return CAAdmin }
func (RecordUses) Needs() OperatorRole          { return "" }

// RequestWindow is the longest life of a request. Within it a retry with the same
// id returns the first outcome; after it the request is refused, never run again.
const RequestWindow = 15 * time.Minute

// RequestID makes retries safe. It is random: 16 bytes, hex.
type RequestID string

// ParseRequestID checks that s is 32 lower-case hex digits.
func ParseRequestID(s string) (RequestID, error) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 16 {
		return "", fmt.Errorf("%w: request id %q is not 32 hex digits", ErrInvalid, clip(s))
	}
	return RequestID(s), nil
}

// Request is a command as somebody asked for it.
type Request struct {
	ID        RequestID
	Principal string    // operator name, "node/" and a node id for the cluster's own commands, or PeerCAPrincipal
	Expires   time.Time // at most RequestWindow after it was made
	Command   Command
	// Signature is the operator's, over SigningDigest: ECDSA P-256, ASN.1. The
	// cluster's own commands have none.
	Signature []byte
	// DryRun marks a question, whether the change would be accepted. It is signed for that
	// purpose only, so that whoever gets hold of it cannot have it carried out.
	DryRun bool
}

// PeerCAPrincipal is the principal of requests that the peer CA's key signs.
const PeerCAPrincipal = "ca/peer"

// NodePrincipal is the principal of commands that a node proposes by itself.
func NodePrincipal(n NodeID) string { return "node/" + string(n) }

// Digest identifies what is asked, whoever asks and whenever: the deduplication
// table refuses one request id with two payloads.
func (r Request) Digest() Digest {
	return sha256.Sum256(Canonical(struct {
		Kind    string
		Command Command
	}{r.Command.Kind(), r.Command}))
}

// SigningDigest is what the operator signs: the command, bound to one cluster, one
// request id, one principal and one deadline, so that no node can replay, reuse or
// change it.
func (r Request) SigningDigest(clusterID string) Digest {
	payload := r.Digest()
	purpose := "armor request v1"
	if r.DryRun {
		purpose = "armor dry run v1"
	}
	return sha256.Sum256(Canonical(struct {
		Purpose, Cluster, ID, Principal, Kind string
		Expires                               time.Time
		Payload                               Digest
	}{purpose, clusterID, string(r.ID), r.Principal, r.Command.Kind(), r.Expires, payload}))
}

// Verify checks the signature against an operator's public key (a 65-byte
// uncompressed P-256 point). It returns ErrDenied when it does not hold.
func (r Request) Verify(clusterID string, publicKey []byte) error {
	signed, err := signedBy(publicKey, r.SigningDigest(clusterID), r.Signature)
	switch {
	case err != nil:
		return fmt.Errorf("%w: public key of operator %q: %v", ErrDenied, r.Principal, err)
	case !signed:
		return fmt.Errorf("%w: signature of operator %q does not match the request", ErrDenied, r.Principal)
	}
	return nil
}

// signedBy reports whether a signature (ECDSA P-256, ASN.1) is that of a public key, a 65-byte
// uncompressed point; the error is of the key.
func signedBy(publicKey []byte, digest Digest, signature []byte) (bool, error) {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), publicKey)
	return err == nil && ecdsa.VerifyASN1(key, digest[:], signature), err
}

// Result is what applying a request came to, the same on every node.
type Result struct {
	Revision uint64 // index of the entry, also when it was refused
	Term     uint64
	Time     time.Time // log time of the command
	Err      error     // one of the sentinels, wrapped with what was wrong
	// Repeated is true when the request id had been applied before: this is the
	// first outcome, and nothing was changed again.
	Repeated bool
}
