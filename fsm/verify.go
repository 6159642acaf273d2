package fsm

import (
	"errors"
	"fmt"
	"io"

	"github.com/armordb/armordb/armor"
)

// Verify computes the digest of the state in force anew, from all of its rows, and returns
// an error when it is not the one that was kept up with each change. It takes as long and
// as much memory as a snapshot and its restoration, and may run beside Apply.
func (m *Machine) Verify() error {
	s := m.Snapshot()
	if s.Revision() == 0 {
		return nil
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		_, err := s.WriteTo(w)
		written <- errors.Join(err, w.CloseWithError(err))
	}()
	mark, _, err := Examine(r)
	r.Close() // the writer ends with it
	if failed := <-written; err == nil {
		err = failed
	}
	if err == nil && mark != s.version.mark() {
		err = fmt.Errorf("the rows give state %s, and %s was computed with each change", mark.State, s.version.digest)
	}
	if err != nil {
		return fmt.Errorf("revision %d: %w", s.Revision(), err)
	}
	return nil
}

// Follows reports whether one command's entry leads from one mark to the next.
func Follows(before, after armor.Mark, term uint64, entry []byte) bool {
	return link(before.Chain, after.Revision, term, entry) == after.Chain
}
