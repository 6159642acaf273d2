package armor

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// CancelKey is what a client sends to cancel a query: BackendKeyData's process id
// and secret (PostgreSQL, "Canceling Requests in Progress"). The node that made it
// is in it.
type CancelKey struct {
	PID    uint32
	Secret uint32     // of protocol 3.0; 0 when Long is set
	Long   LongSecret // of protocol 3.2; zero in a key of 3.0
}

// LongSecret is the secret of a key of protocol 3.2:
//
//	0       2            16           32
//	| node  | random     | MAC        |
//
// The MAC is over the process id and what stands before it. It is made with a key that
// all nodes share, so that each can tell a key that a node has made from a guess.
type LongSecret [32]byte

const (
	longRandom = 2 // where the random bytes begin
	longMAC    = 16
)

// Session mode puts the node into the secret's top bits and keeps PostgreSQL's own
// process id; transaction mode puts it into the process id. nodeBits bounds
// Member.Index.
const nodeBits = 10

// MaxNodeIndex is the largest Member.Index.
const MaxNodeIndex = 1<<nodeBits - 1

// NewTransactionKey makes a key whose process id names the node; random's bits fill
// the rest. The process id is never zero or negative as an int32.
func NewTransactionKey(node uint16, random uint64) CancelKey {
	pid := uint32(node)<<(31-nodeBits) | uint32(random>>32)&(1<<(31-nodeBits)-1)
	return CancelKey{PID: pid, Secret: uint32(random)}
}

// NewSessionKey makes a key that keeps PostgreSQL's process id.
func NewSessionKey(node uint16, pid uint32, random uint64) CancelKey {
	return CancelKey{PID: pid, Secret: uint32(node)<<(32-nodeBits) | uint32(random)&(1<<(32-nodeBits)-1)}
}

// Lengthen makes a key of protocol 3.2 with the same process id. random is fresh for
// each; signer is the key that all nodes share.
func (k CancelKey) Lengthen(node uint16, random [longMAC - longRandom]byte, signer []byte) CancelKey {
	long := CancelKey{PID: k.PID}
	binary.BigEndian.PutUint16(long.Long[:], node)
	copy(long.Long[longRandom:], random[:])
	copy(long.Long[longMAC:], long.mac(signer))
	return long
}

func (k CancelKey) mac(signer []byte) []byte {
	h := hmac.New(sha256.New, signer)
	h.Write(binary.BigEndian.AppendUint32(nil, k.PID))
	h.Write(k.Long[:longMAC])
	return h.Sum(nil)[:len(k.Long)-longMAC]
}

// IsLong reports whether the key is one of protocol 3.2.
func (k CancelKey) IsLong() bool { return k.Long != LongSecret{} }

// Genuine reports whether a node may have made the key: of one of protocol 3.2 whether
// one has. A key of 3.0 has no room for a proof.
func (k CancelKey) Genuine(signer []byte) bool {
	return !k.IsLong() || hmac.Equal(k.Long[longMAC:], k.mac(signer))
}

// Equal compares the secrets in a time that does not depend on them.
func (k CancelKey) Equal(o CancelKey) bool {
	return k.PID == o.PID && subtle.ConstantTimeEq(int32(k.Secret), int32(o.Secret))&subtle.ConstantTimeCompare(k.Long[:], o.Long[:]) == 1
}

// Nodes returns the two node indexes that a key may name; only the node that made it
// knows which of them is meant, so a cancel is asked of both. A key of protocol 3.2
// names one, twice.
func (k CancelKey) Nodes() (transaction, session uint16) {
	if k.IsLong() {
		node := binary.BigEndian.Uint16(k.Long[:])
		return node, node
	}
	return uint16(k.PID >> (31 - nodeBits) & MaxNodeIndex), uint16(k.Secret >> (32 - nodeBits))
}

// The lengths of a CancelRequest's content behind its code: a process id and the secret.
const (
	cancelShort = 8
	cancelLong  = 4 + len(LongSecret{})
)

// IsCancelLength reports whether a CancelRequest may have a key of n bytes, the process
// id included. PostgreSQL allows other lengths; no node makes such keys.
func IsCancelLength(n int) bool { return n == cancelShort || n == cancelLong }

// ParseCancelKey reads the process id and the secret of a CancelRequest. It reports
// false for a length that no node's key has.
func ParseCancelKey(b []byte) (CancelKey, bool) {
	if !IsCancelLength(len(b)) {
		return CancelKey{}, false
	}
	k := CancelKey{PID: binary.BigEndian.Uint32(b)}
	if len(b) == cancelShort {
		k.Secret = binary.BigEndian.Uint32(b[4:])
	} else {
		copy(k.Long[:], b[4:])
	}
	return k, true
}

// Append appends the key as BackendKeyData and CancelRequest have it.
func (k CancelKey) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, k.PID)
	if k.IsLong() {
		return append(dst, k.Long[:]...)
	}
	return binary.BigEndian.AppendUint32(dst, k.Secret)
}
