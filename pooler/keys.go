package pooler

import (
	"crypto/rand"
	"encoding/binary"
	"sync"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// keys are the cancel keys of the live sessions.
type keys struct {
	node   uint16 // this member's index
	signer []byte // see Config.CancelSigner

	mu    sync.Mutex // guards below
	byPID map[uint32][]*client
}

func newKeys(node uint16, signer []byte) *keys {
	return &keys{node: node, signer: signer, byPID: map[uint32][]*client{}}
}

// give gives a client a key that no other has, as long as the protocol asks for that
// is spoken with it; pid is PostgreSQL's in session mode.
func (k *keys) give(c *client, s pgwire.Startup, pid uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c.key.PID == 0 || k.holderLocked(c.key) != nil {
		c.key = k.make(c.mode, pid)
		if s.LongKeys() {
			c.key = k.lengthen(c.key)
		}
	}
	k.byPID[c.key.PID] = append(k.byPID[c.key.PID], c)
}

func (k *keys) make(mode armor.PoolMode, pid uint32) armor.CancelKey {
	if mode == armor.SessionMode {
		return armor.NewSessionKey(k.node, pid, random())
	}
	return armor.NewTransactionKey(k.node, random())
}

func (k *keys) lengthen(key armor.CancelKey) armor.CancelKey {
	var b [14]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	return key.Lengthen(k.node, b, k.signer)
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	return binary.BigEndian.Uint64(b[:])
}

func (k *keys) remove(c *client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var rest []*client
	for _, other := range k.byPID[c.key.PID] {
		if other != c {
			rest = append(rest, other)
		}
	}
	if k.byPID[c.key.PID] = rest; len(rest) == 0 {
		delete(k.byPID, c.key.PID)
	}
}

func (k *keys) holder(key armor.CancelKey) *client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holderLocked(key)
}

func (k *keys) holderLocked(key armor.CancelKey) (found *client) {
	for _, c := range k.byPID[key.PID] {
		if c.key.Equal(key) {
			found = c
		}
	}
	return found
}
