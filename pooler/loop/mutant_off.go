//go:build linux && !mutant

package loop

// mutantSwap does not exist in a sound build; see mutant_on.go.
var mutantSwap func(v *server, b []byte) (kept bool)
