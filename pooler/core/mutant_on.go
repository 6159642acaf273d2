//go:build mutant

package core

var mutant Mutant

// Plant plants a fault, or none if it is empty. No session may run meanwhile.
func Plant(m Mutant) { mutant = m }
