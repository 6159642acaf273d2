package armor

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// StagedRevocations is one part of a batch of selectors that one command will revoke
// together, or none will: what is staged is not in force. Parts let a batch be larger
// than a log entry.
type StagedRevocations struct {
	Batch     RequestID
	Part      int // counts from 1
	Selectors []Selector
	By        string    // the operator
	At        time.Time // log time of the command
}

const (
	// MaxStagedParts bounds the parts of all batches together, so that nobody can fill
	// the state: with MaxStagedPart they come to 64 MiB.
	MaxStagedParts = 256
	// MaxStagedPart bounds the selectors of one part, in bytes of their Canonical. It is
	// far below what a log entry holds.
	MaxStagedPart = 256 << 10
	// StagedLife is how long a part waits for its batch to be revoked.
	StagedLife = time.Hour
)

// StagedBatch begins the keys of a batch's parts.
func StagedBatch(batch RequestID) string { return string(batch) + " " }

// Key is the part's key: those of a batch stand together, in their order.
func (p StagedRevocations) Key() string { return StagedBatch(p.Batch) + fmt.Sprintf("%06d", p.Part) }

// listHead is what Canonical puts before the elements of a list.
func listHead(length int) []byte { return binary.BigEndian.AppendUint32([]byte{'l'}, uint32(length)) }

// StagingParts cuts selectors into parts of at most MaxStagedPart, in their order.
func StagingParts(selectors []Selector) (parts [][]Selector) {
	first, size := 0, len(listHead(0))
	for i, s := range selectors {
		bytes := len(Canonical(s))
		if i > first && size+bytes > MaxStagedPart {
			parts = append(parts, selectors[first:i])
			first, size = i, len(listHead(0))
		}
		size += bytes
	}
	if first < len(selectors) {
		parts = append(parts, selectors[first:])
	}
	return parts
}

// StagingDigest identifies the selectors of a batch, all parts in their order: it is the
// SHA-256 of their Canonical, which is never held as a whole.
func StagingDigest(selectors []Selector) Digest {
	h := sha256.New()
	h.Write(listHead(len(selectors)))
	for _, s := range selectors {
		h.Write(Canonical(s))
	}
	return Digest(h.Sum(nil))
}
