package cluster

import (
	"encoding/binary"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// meta is what a node says of itself in gossip. Whoever has the gossip key can say
// anything, so it is a hint and nothing more.
type meta struct {
	Cluster     string
	Epoch       uint64
	PeerAddress string
	Version     string
}

const (
	metaFormat = 1
	maxMeta    = 512 // memberlist.MetaMaxSize
)

// The bounds of each field; together they stay below maxMeta.
const (
	maxMetaCluster = 64
	maxMetaAddress = 255
	maxMetaVersion = 64
)

func (m meta) encode() ([]byte, error) {
	b := binary.BigEndian.AppendUint64([]byte{metaFormat}, m.Epoch)
	for _, f := range m.fields() {
		if len(*f.value) > f.limit {
			return nil, fmt.Errorf("%w: gossip field of %d bytes, more than %d", armor.ErrInvalid, len(*f.value), f.limit)
		}
		b = append(append(b, byte(len(*f.value))), *f.value...)
	}
	return b, nil
}

type metaField struct {
	value *string
	limit int
}

func (m *meta) fields() []metaField {
	return []metaField{{&m.Cluster, maxMetaCluster}, {&m.PeerAddress, maxMetaAddress}, {&m.Version, maxMetaVersion}}
}

// decodeMeta reads what another node says. Bytes after the known fields are ignored:
// a later version may say more.
func decodeMeta(b []byte) (meta, error) {
	var m meta
	if len(b) > maxMeta || len(b) < 9 || b[0] != metaFormat {
		return m, fmt.Errorf("%w: gossip metadata of %d bytes", armor.ErrInvalid, len(b))
	}
	m.Epoch = binary.BigEndian.Uint64(b[1:9])
	b = b[9:]
	for _, f := range m.fields() {
		if len(b) == 0 || int(b[0]) > f.limit || len(b) < 1+int(b[0]) {
			return meta{}, fmt.Errorf("%w: gossip metadata is cut short", armor.ErrInvalid)
		}
		*f.value, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	return m, nil
}
