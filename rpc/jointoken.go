package rpc

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

const (
	joinTokenPrefix = "armor-join.v1."
	maxJoinToken    = 1024 // characters
)

// JoinToken lets one named node ask to be admitted to one cluster. Whoever holds its
// text may ask in the node's name, until the token is spent or expires.
//
//	armor-join.v1.CLUSTER~NODE.PIN.SECRET
//
// CLUSTER~NODE, PIN and SECRET are base64url without padding.
type JoinToken struct {
	Cluster string // name
	Node    armor.NodeID
	// Pin is the SPKI of the peer CA: the joiner tells its secret to nobody whose
	// certificate that CA did not sign.
	Pin    armor.Digest
	Secret [32]byte
}

// NewJoinToken makes a token with a random secret.
func NewJoinToken(cluster string, node armor.NodeID, peerCA *x509.Certificate) JoinToken {
	t := JoinToken{Cluster: cluster, Node: node, Pin: pki.SPKI(peerCA)}
	rand.Read(t.Secret[:])
	return t
}

// Hash is what the cluster keeps of the token (armor.JoinToken.Hash).
func (t JoinToken) Hash() armor.Digest { return hashSecret(t.Secret[:]) }

func hashSecret(secret []byte) armor.Digest { return sha256.Sum256(secret) }

// Text is the token as operators hand it on. It is a secret.
func (t JoinToken) Text() string {
	encode := base64.RawURLEncoding.EncodeToString
	return joinTokenPrefix + encode([]byte(t.Cluster+"~"+string(t.Node))) + "." + encode(t.Pin[:]) + "." + encode(t.Secret[:])
}

// String hides the secret, for error texts and logs.
func (t JoinToken) String() string {
	return fmt.Sprintf("join token for node %s of cluster %s", t.Node, t.Cluster)
}

// GoString hides the secret from %#v too.
func (t JoinToken) GoString() string { return t.String() }

// LogValue hides the secret.
func (t JoinToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// ParseJoinToken reads Text's form; surrounding white space is ignored. Its errors,
// ErrInvalid, never repeat what was read.
func ParseJoinToken(text string) (JoinToken, error) {
	if len(text) > maxJoinToken {
		return JoinToken{}, fmt.Errorf("%w: a join token has at most %d characters", armor.ErrInvalid, maxJoinToken)
	}
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, joinTokenPrefix)
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 {
		return JoinToken{}, fmt.Errorf("%w: not a join token: it begins with %s and has three more parts", armor.ErrInvalid, joinTokenPrefix)
	}
	t, err := decodeJoinToken(parts)
	if err != nil {
		return JoinToken{}, err
	}
	if t.Text() != text { // base64 passes over line breaks
		return JoinToken{}, fmt.Errorf("%w: the join token is damaged", armor.ErrInvalid)
	}
	return t, nil
}

func decodeJoinToken(parts []string) (JoinToken, error) {
	var fields [3][]byte
	for i, part := range parts {
		field, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return JoinToken{}, fmt.Errorf("%w: part %d of the join token is damaged", armor.ErrInvalid, i+1)
		}
		fields[i] = field
	}
	var t JoinToken
	if len(fields[1]) != len(t.Pin) || len(fields[2]) != len(t.Secret) {
		return t, fmt.Errorf("%w: the join token is cut short or damaged", armor.ErrInvalid)
	}
	copy(t.Pin[:], fields[1])
	copy(t.Secret[:], fields[2])
	cluster, node, _ := strings.Cut(string(fields[0]), "~")
	if armor.CheckName("cluster", cluster) != nil {
		return t, fmt.Errorf("%w: the join token names no cluster", armor.ErrInvalid)
	}
	id, err := armor.ParseNodeID(node)
	if err != nil {
		return t, fmt.Errorf("%w: the join token names no node", armor.ErrInvalid)
	}
	t.Cluster, t.Node = cluster, id
	return t, nil
}
