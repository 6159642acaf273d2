package core

// Mutant names a fault that can be planted in a build with the tag mutant, to see that
// the tests against PostgreSQL find it.
type Mutant string

// What can be planted.
const (
	sound                Mutant = ""
	RepliesSwapped       Mutant = "a Parse is answered before what was asked earlier"
	DescriptionForgotten Mutant = "what a client was told of a statement is forgotten"
	ReparseSkipped       Mutant = "a statement is bound on a server connection that lacks it"
	UndoForgotten        Mutant = "what PostgreSQL has skipped is taken to be done"
	NoticeLost           Mutant = "notices are not forwarded"
	IsolationOff         Mutant = "a server connection goes from one identity to another as it is"
	SettingsUnread       Mutant = "a statement's key leaves the settings out"
	NamesGuessable       Mutant = "a statement's name follows from its text"
	ResetOff             Mutant = "a server connection is lent again as it is"
	AskingOff            Mutant = "PostgreSQL is not asked what a text has changed"
	PinsUnbound          Mutant = "as many clients as want to keep a server connection"
	RoomLost             Mutant = "the room of a client that keeps nothing any more is not given back"
)
