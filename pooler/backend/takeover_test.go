package backend

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/pooler/pgtest"
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
