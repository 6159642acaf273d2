package core

// opKind is a message that was sent to PostgreSQL, or answered in its place, and
// whose reply is due.
type opKind uint8

const (
	opQuery    opKind = iota // ends with ReadyForQuery
	opFunction               // ends with ReadyForQuery
	opReplay                 // our own query; its reply is swallowed
	opSync                   // ReadyForQuery
	opParse
	opBind
	opDescribe
	opExecute
	opClosePortal
	opParseAhead // our own Parse; its reply is swallowed
	opCloseAhead // our own Close of the oldest statement; its reply is swallowed
	opParsed     // a Parse that was not sent, since the server has the statement
	opClosed     // a Close that was not sent, since statements are kept
	opCopyEnd    // CopyDone or CopyFail sent before the server asked for data
	opKinds      // how many there are
)

// op is an entry of the queue of replies owed.
type op struct {
	kind  opKind
	marks marks
	name  *named     // the client's statement, where the message is about one
	st    *statement // what the server was told to prepare or close
}

// owedLimit is how many replies may be owed before the client has to wait.
const owedLimit = 8192

// queue is FIFO. It keeps its array from one session to the next.
type queue struct {
	ops    []op
	head   int
	pushed [opKinds]uint64 // since the last Server.TakeCounts
}

func (q *queue) empty() bool { return q.head == len(q.ops) }

func (q *queue) len() int { return len(q.ops) - q.head }

func (q *queue) push(o op) {
	q.pushed[o.kind]++
	if q.head > 0 && len(q.ops) == cap(q.ops) {
		n := copy(q.ops, q.ops[q.head:])
		clear(q.ops[n:])
		q.ops, q.head = q.ops[:n], 0
	}
	q.ops = append(q.ops, o)
}

// first returns the oldest entry; it must not be called on an empty queue.
func (q *queue) first() *op { return &q.ops[q.head] }

func (q *queue) pop() op {
	o := q.ops[q.head]
	q.ops[q.head] = op{}
	if q.head++; q.empty() {
		q.ops, q.head = q.ops[:0], 0
	}
	return o
}

// endsCycle reports whether the last message, but for the end of COPY data, will be
// answered by ReadyForQuery.
func (q *queue) endsCycle() bool {
	for i := len(q.ops) - 1; i >= q.head; i-- {
		switch q.ops[i].kind {
		case opCopyEnd:
			continue
		case opQuery, opFunction, opSync:
			return true
		}
		return false
	}
	return false
}

// holds reports whether an entry of the kind is in the queue.
func (q *queue) holds(kind opKind) bool {
	for _, o := range q.ops[q.head:] {
		if o.kind == kind {
			return true
		}
	}
	return false
}

// copyBegins is called when PostgreSQL asks for COPY data: from then to the end of
// the data it ignores Sync. It drops the Syncs that were sent before it could be
// known, and reports whether the client has sent the end of the data already.
func (q *queue) copyBegins() (over bool) {
	end := -1
	for i := q.head + 1; i < len(q.ops) && end < 0; i++ {
		if q.ops[i].kind == opCopyEnd {
			end = i
		}
	}
	kept := q.ops[:q.head+1]
	ignoring := true
	for i := q.head + 1; i < len(q.ops); i++ {
		o := q.ops[i]
		switch {
		case i == end:
			ignoring = false
			continue
		case o.kind == opSync && ignoring:
			continue
		case end < 0:
			ignoring = false // whatever it is, it ends the COPY with an error
		}
		kept = append(kept, o)
	}
	clear(q.ops[len(kept):])
	q.ops = kept
	return end >= 0
}
