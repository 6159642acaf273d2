package backend

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/pooler/pgtest"
	"github.com/armordb/armordb/pooler/pgwire"
)

// TestLoginHandsOverWhatFollowsReadyForQuery: pgconn may have a goroutine that reads
// ahead of what parses the messages.
func TestLoginHandsOverWhatFollowsReadyForQuery(t *testing.T) {
	login := append(pgtest.Encode('S', "a", "b"), pgtest.Encode('Z', byte('I'))...)
	notice := pgtest.Encode('N', "SNOTICE", byte(0))
	for _, ahead := range []int{0, len(login) - 2, len(login), len(login) + 3, len(login) + len(notice)} {
		ours, theirs := pgtest.Pipe(1 << 10)
		if _, err := theirs.Write(append(slices.Clone(login), notice...)); err != nil {
			t.Fatal(err)
		}
		early := make([]byte, ahead)
		if _, err := io.ReadFull(ours, early); err != nil {
			t.Fatal(err)
		}
		var below io.Reader
		parsed := exactly(func(r io.Reader, _ io.Writer) io.Reader { return r }, &below)(io.MultiReader(bytes.NewReader(early), ours), nil)
		if got, err := io.ReadAll(parsed); string(got) != string(login) || err != nil {
			t.Errorf("read %q, %v, want %q", got, err, login)
		}
		rest, err := takeOver(ours, below)
		left := make([]byte, len(notice)-len(rest))
		_ = ours.SetReadDeadline(time.Now().Add(10 * time.Second)) // what was lost does not come
		if _, readErr := io.ReadFull(ours, left); err != nil || readErr != nil || string(rest)+string(left) != string(notice) {
			t.Errorf("%d bytes early: handed over %q and left %q, %v, %v", ahead, rest, left, err, readErr)
		}
	}
}

// FuzzExact: whatever arrives, in whatever pieces, what parses the messages reads them up
// to ReadyForQuery, and what follows is left.
func FuzzExact(f *testing.F) {
	f.Add(append(pgtest.Encode('S', "a", "b"), pgtest.Encode('Z', byte('I'))...), []byte("behind"), uint8(3))
	f.Add([]byte{'R', 0, 0, 0, 3}, []byte{}, uint8(1))
	f.Add([]byte{'R', 255, 255, 255, 255}, []byte{1}, uint8(200))
	f.Fuzz(func(t *testing.T, said, behind []byte, piece uint8) {
		ready := pgtest.Encode('Z', byte('I'))
		all := slices.Concat(said, ready, behind)
		below := &pieces{bytes: all, size: int(piece%32) + 1}
		read, err := io.ReadAll(&exact{Reader: below})
		if !bytes.HasPrefix(all, read) {
			t.Fatalf("read %q of %q", read, all)
		}
		if want := wholeMessages(all); err == nil && want >= 0 && len(read) != want {
			t.Errorf("read %d bytes of %q, want %d", len(read), all, want)
		}
		if len(read) > len(all)-len(below.bytes) {
			t.Errorf("read %d bytes and took %d", len(read), len(all)-len(below.bytes))
		}
	})
}

// pieces gives at most size bytes at once.
type pieces struct {
	bytes []byte
	size  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.bytes) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.bytes[:min(p.size, len(p.bytes))])
	p.bytes = p.bytes[n:]
	return n, nil
}

// wholeMessages is the length of the messages up to ReadyForQuery; -1 if there is none.
func wholeMessages(b []byte) int {
	for n := 0; len(b)-n >= pgwire.HeaderSize; {
		h, err := pgwire.ServerHeader(b[n:])
		if err != nil || len(b)-n < h.Size() {
			return -1
		}
		if n += h.Size(); h.Type == pgwire.ReadyForQuery {
			return n
		}
	}
	return -1
}
