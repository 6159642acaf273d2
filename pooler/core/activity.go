package core

// Phase is whose turn it is in a session.
type Phase uint8

const (
	// Between: the client is between transactions.
	Between Phase = iota
	// Waiting: a server connection was asked for.
	Waiting
	// Holding: a server connection is lent, and it is the client's turn.
	Holding
	// Running: it is PostgreSQL's turn.
	Running
)

// Activity is what a session is doing. If two looks at a session find equal Activities,
// the same thing has been going on all the while: had it ended and begun anew in between,
// the counts would differ. So whoever looks now and then knows how long it has gone on,
// and nobody reads a clock when it begins.
type Activity struct {
	Phase Phase
	// Turn numbers the phases.
	Turn uint64
	// Transaction numbers the transactions; Open says that one is going on.
	Transaction uint64
	Open        bool
}

// Activity returns what the session is doing.
func (s *Session) Activity() Activity {
	a := Activity{Turn: s.heard, Transaction: s.stats.Transactions}
	switch {
	case s.waiting:
		a.Phase = Waiting
	case s.Idle():
		return a
	case s.sv == nil || s.sv.owed.empty():
		a.Phase = Holding
	default:
		a.Phase, a.Turn = Running, s.settled
	}
	a.Open = s.sv != nil
	return a
}
