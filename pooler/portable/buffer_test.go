package portable

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestBufferKeepsWhatIsNotConsumed reads and consumes in random amounts, with needs
// of all sizes, and compares with a plain slice.
func TestBufferKeepsWhatIsNotConsumed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var b buffer
	var want []byte
	next := byte(0)
	for range 20000 {
		need := random.IntN(3) * random.IntN(40000)
		room := b.room(1+random.IntN(100), need)
		if len(room)+len(want) < need {
			t.Fatalf("room for %d with %d held, %d needed", len(room), len(want), need)
		}
		n := random.IntN(len(room) + 1)
		for i := range n {
			room[i] = next
			want = append(want, next)
			next++
		}
		b.filled(n)
		if !bytes.Equal(b.held(), want) {
			t.Fatalf("holds %d bytes, want %d", len(b.held()), len(want))
		}
		n = random.IntN(len(want) + 1)
		b.consume(n)
		want = want[n:]
	}
	if cap(b.bytes) > 1<<20 {
		t.Errorf("the buffer has grown to %d bytes", cap(b.bytes))
	}
}
