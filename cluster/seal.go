package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/hashicorp/raft"
)

// A log entry is stored, and sent, with a seal in its extensions: one byte that says how
// it was made, and a digest over all that the entry says. It tells damage, and is no
// signature. Builds before level 7 store entries without one, and keep ours.
const (
	sealFormat = 1
	sealLength = 16
)

var errUnsealed = errors.New("its checksum does not hold")

// seal is the seal of an entry.
func seal(entry *raft.Log) []byte {
	head := append([]byte("armor log entry\x00"), byte(entry.Type))
	head = binary.BigEndian.AppendUint64(head, entry.Index)
	head = binary.BigEndian.AppendUint64(head, entry.Term)
	digest := sha256.New()
	digest.Write(head)
	digest.Write(entry.Data)
	return append([]byte{sealFormat}, digest.Sum(nil)[:sealLength]...)
}

// sealed puts a seal on entries that are about to be stored.
func sealed(entries []*raft.Log) {
	for _, entry := range entries {
		entry.Extensions = seal(entry)
	}
}

// checkSeal returns an error when an entry is not what was sealed. One without a seal is
// of an earlier build.
func checkSeal(entry *raft.Log) error {
	if len(entry.Extensions) > 0 && !bytes.Equal(entry.Extensions, seal(entry)) {
		return errUnsealed
	}
	return nil
}
