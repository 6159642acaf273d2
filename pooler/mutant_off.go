//go:build !mutant

package pooler

// resetQuery is what a server connection is asked between two clients; see mutant_on.go.
const resetQuery = "DISCARD ALL"
