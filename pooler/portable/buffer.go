package portable

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/armordb/armordb/pooler/core"
)

// How much is read at once, in bytes: of a client; of a server at most, and at least.
const (
	clientChunk    = 8 << 10
	serverChunk    = 64 << 10
	minServerChunk = 4 << 10
)

// buffer holds bytes that were read and not yet consumed.
type buffer struct {
	bytes []byte // bytes[from:] are not consumed
	from  int
}

// held returns the bytes that are not consumed.
func (b *buffer) held() []byte { return b.bytes[b.from:] }

// consume takes n bytes away. They stay where they are until the next room.
func (b *buffer) consume(n int) { b.from += n }

// prepend puts bytes in front of those that are held.
func (b *buffer) prepend(p []byte) { b.bytes, b.from = slices.Concat(p, b.held()), 0 }

// room returns free space of at least chunk bytes, or as much more as there must be
// for the held bytes to become need. What it returns is taken by filled.
func (b *buffer) room(chunk, need int) []byte {
	held := len(b.bytes) - b.from
	if held == 0 {
		b.bytes, b.from = b.bytes[:0], 0
	}
	size := max(chunk, need-held)
	if cap(b.bytes)-len(b.bytes) < size {
		b.move(held, size)
	}
	return b.bytes[len(b.bytes):cap(b.bytes)]
}

// move puts the held bytes at the beginning, of a larger array if it must be.
func (b *buffer) move(held, size int) {
	to := b.bytes[:0]
	if cap(b.bytes) < held+size || cap(b.bytes) > 4*(held+size) {
		to = make([]byte, 0, held+size)
	}
	b.bytes, b.from = append(to, b.bytes[b.from:]...), 0
}

// filled takes n bytes of the space that room returned.
func (b *buffer) filled(n int) { b.bytes = b.bytes[:len(b.bytes)+n] }

// serverBuffers are for connections while they are lent, so that idle sessions need
// none.
var serverBuffers = sync.Pool{New: func() any { return &buffer{bytes: make([]byte, 0, serverChunk)} }}

func takeServerBuffer() *buffer { return serverBuffers.Get().(*buffer) }

func putServerBuffer(b *buffer) {
	if cap(b.bytes) > serverChunk {
		return // it has met a large message
	}
	b.bytes, b.from = b.bytes[:0], 0
	serverBuffers.Put(b)
}

// joined bounds how many bytes are copied to be written at once.
const joined = 16 << 10

// write writes all parts, in few system calls and TLS records.
func write(c net.Conn, b *core.Bytes, scratch *[]byte) error {
	parts := b.Parts()
	switch {
	case len(parts) == 0:
		return nil
	case len(parts) == 1:
		_, err := c.Write(parts[0])
		return err
	case b.Len() <= joined:
		*scratch = b.AppendTo((*scratch)[:0])
		_, err := c.Write(*scratch)
		return err
	}
	for _, part := range parts {
		if _, err := c.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
