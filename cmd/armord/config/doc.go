// Package config is a node's configuration file: what it may say, what is wrong with it
// and what it leaves to defaults.
//
// It knows nothing of what a node does with it; `armord run` reads such files, and
// `armord dev` writes them for the nodes that it makes.
//
// Invariant: what Load returns is complete and was checked; nobody looks for defaults
// after it.
package config

// Mistake is a mistake in the command line or in the configuration file: nothing has been
// started.
type Mistake struct{ Err error }

// Error is the mistake's own text.
func (m *Mistake) Error() string { return m.Err.Error() }

// Unwrap returns the mistake.
func (m *Mistake) Unwrap() error { return m.Err }
