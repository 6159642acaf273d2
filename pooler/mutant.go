package pooler

// Mutant names a fault that can be planted in a build with the tag mutant, to see that the
// tests find it.
type Mutant string

// What can be planted.
const (
	sound           Mutant = ""
	RecordForgotten Mutant = "what a former life has left open holds no place"
	LookSkipped     Mutant = "what a former life has left open counts as ended before anybody has looked"
	UnsentKept      Mutant = "what a revoked session has left in the kernel is delivered when the network heals"
)
