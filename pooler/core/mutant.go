package core

// Mutant names a fault that can be planted in a build with the tag mutant, to see that
// the tests against PostgreSQL find it.
type Mutant string

// What can be planted.
const (
	sound          Mutant = ""
	RepliesSwapped Mutant = "a Parse is answered before what was asked earlier"
	ReparseSkipped Mutant = "a statement is bound on a server connection that lacks it"
	UndoForgotten  Mutant = "what PostgreSQL has skipped is taken to be done"
	NoticeLost     Mutant = "notices are not forwarded"
	ResetOff       Mutant = "a server connection is lent again as it is"
)
