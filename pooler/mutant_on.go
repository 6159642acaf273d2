//go:build mutant

package pooler

var mutant Mutant

// Plant plants a fault, or none if it is empty. No pooler may run meanwhile.
func Plant(m Mutant) { mutant = m }
