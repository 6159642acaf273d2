//go:build !mutant

package backend

// ResetQuery is what a server connection is asked between two clients; see mutant_on.go.
const ResetQuery = "DISCARD ALL"
