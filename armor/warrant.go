package armor

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// WarrantLife is how long a warrant may be acted on after it was signed.
const WarrantLife = 2 * time.Minute

// Warrant is an operator's signature under an act on nodes that changes no state: an order
// to a pool, or a drain. It travels with the act to each node that shall do it, so that
// no node can have another act by its own key.
type Warrant struct {
	ID        RequestID // once for each node
	Principal string    // operator
	Expires   time.Time // WarrantLife after it was signed
	Signature []byte    // ECDSA P-256 over SigningDigest, ASN.1
}

// OrderWords is what a warrant says of an order to a pool.
func OrderWords(o PoolOrder) []string {
	return []string{"order", string(o.Verb), o.Environment, o.Pool}
}

// DrainWords is what a warrant says of a node that shall end.
func DrainWords(n NodeID) []string { return []string{"drain", string(n)} }

// SigningDigest is what the operator signs: words, bound to one cluster, one id and one
// deadline. No request and no dry run has the same.
func (w Warrant) SigningDigest(clusterID string, words []string) Digest {
	return sha256.Sum256(Canonical(struct {
		Purpose, Cluster, ID, Principal string
		Expires                         time.Time
		Words                           []string
	}{"armor warrant v1", clusterID, string(w.ID), w.Principal, w.Expires, words}))
}

// Verify returns ErrDenied unless the operator has signed words for this cluster.
func (w Warrant) Verify(clusterID string, words []string, by Operator) error {
	signed, err := signedBy(by.PublicKey, w.SigningDigest(clusterID, words), w.Signature)
	switch {
	case err != nil:
		return fmt.Errorf("%w: public key of operator %q: %v", ErrDenied, by.Name, err)
	case !signed:
		return fmt.Errorf("%w: signature of operator %q does not match what the node is told to do", ErrDenied, by.Name)
	}
	return nil
}
