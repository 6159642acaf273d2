//go:build !mutant

package pooler

// mutant is the fault that is planted: none in a sound build; see mutant_on.go.
const mutant = sound
