package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/armordb/armordb/armor"
)

// sum is the order-free digest of a set of table entries: the sum, modulo 2^256, of
// their SHA-256 hashes. A change of one entry is one subtraction and one addition, so
// the state's hash costs the same however large the state is. It detects divergence
// and damage; it is no commitment against somebody who chooses the entries.
type sum [4]uint64

func (s *sum) add(d armor.Digest) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(d[8*i:]), carry)
	}
}

// merge adds another sum.
func (s *sum) merge(other sum) { s.add(other.digest()) }

func (s *sum) subtract(d armor.Digest) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(d[8*i:]), borrow)
	}
}

func (s sum) digest() armor.Digest {
	var d armor.Digest
	for i, limb := range s {
		binary.LittleEndian.PutUint64(d[8*i:], limb)
	}
	return d
}

// entryHash is the hash of one table entry.
func entryHash(table, key string, value any) armor.Digest {
	return sha256.Sum256(armor.Canonical(struct {
		Table, Key string
		Value      any
	}{table, key, value}))
}

// hash is the hash of all that a world holds.
func (w *world) hash() armor.Digest {
	return sha256.Sum256(armor.Canonical(struct {
		Format     string
		Revision   uint64
		Time       time.Time
		Cluster    armor.Cluster
		NextIndex  uint16
		Configured uint64
		Entries    armor.Digest
	}{"armor state v1", w.state.Revision, w.state.Time, w.state.Cluster, w.state.NextIndex, w.configured, w.entries.digest()}))
}

// link extends the chain that proves one history.
func link(chain armor.Digest, index, term uint64, entry []byte) armor.Digest {
	b := binary.BigEndian.AppendUint64(chain[:], index)
	b = binary.BigEndian.AppendUint64(b, term)
	return sha256.Sum256(append(b, entry...))
}
