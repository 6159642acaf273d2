// Package fault is what an error says to the one who typed the command: that the command
// line was wrong, and what can be done about it.
//
// It knows nothing of exit codes and of how errors are shown; armorctl's failure.go does.
//
// Invariant: neither changes an error's text nor what errors.Is finds in it.
package fault

import "fmt"

// Usage is a mistake in the command line: nothing was begun.
type Usage struct{ Err error }

// Error is the mistake's own text.
func (u *Usage) Error() string { return u.Err.Error() }

// Unwrap returns the mistake.
func (u *Usage) Unwrap() error { return u.Err }

// Hint is an error with what the user can do about it.
type Hint struct {
	Err  error
	Text string
}

// Error is the error's own text, without the hint.
func (h *Hint) Error() string { return h.Err.Error() }

// Unwrap returns the error.
func (h *Hint) Unwrap() error { return h.Err }

// Hinted adds a hint to an error, unless it is nil.
func Hinted(err error, text string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Hint{Err: err, Text: fmt.Sprintf(text, args...)}
}
