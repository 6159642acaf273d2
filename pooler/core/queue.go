package core

import "slices"

// opKind is a message that was sent to PostgreSQL, or answered in its place, and
// whose reply is due.
type opKind uint8

const (
	opQuery     opKind = iota // ends with ReadyForQuery
	opFunction                // ends with ReadyForQuery
	opFence                   // our own messages ahead of a client's, up to a query; their replies are swallowed
	opReinstate               // our own query; its reply is swallowed
	opAsk                     // our own query; its rows are taken, its other replies are swallowed
	opSync                    // ReadyForQuery
	opParse
	opBind
	opDescribe
	opExecute
	opClosePortal
	opParseAhead    // our own Parse; its reply is swallowed
	opCloseAhead    // our own Close of the oldest statement; its reply is swallowed
	opDescribeAhead // our own Describe; its replies are swallowed
	opClosed        // a Close that was not sent, since statements are kept
	opCloseNone     // the same, but PostgreSQL was told to close a statement that never exists
	opCopyEnd       // CopyDone or CopyFail sent before the server asked for data
	opKinds         // how many there are
)

// op is an entry of the queue of replies owed.
type op struct {
	kind  opKind
	marks marks
	turn  uint32      // of the unnamed statement, where the message prepares it
	name  *named      // the client's statement, where the message is about one
	st    *statement  // what the server was told to prepare, describe or close
	said  description // what PostgreSQL has said so far of what it is to describe
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

// untilSync returns the entries that an error makes PostgreSQL skip: the oldest ones, up
// to the next Sync. They are valid until the next push or pop.
func (q *queue) untilSync() []op {
	owed := q.ops[q.head:]
	if i := slices.IndexFunc(owed, func(o op) bool { return o.kind == opSync }); i >= 0 {
		return owed[:i]
	}
	return owed
}

func (q *queue) dropUntilSync() {
	for range q.untilSync() {
		q.pop()
	}
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

// holdsEnd reports whether an entry that ReadyForQuery answers is in the queue.
func (q *queue) holdsEnd() bool { return slices.ContainsFunc(q.ops[q.head:], op.endsCycle) }

// ends is how many entries of the queue ReadyForQuery answers.
func (q *queue) ends() (n int) {
	for _, o := range q.ops[q.head:] {
		if o.endsCycle() {
			n++
		}
	}
	return n
}

// endsCycle reports whether ReadyForQuery answers it.
func (o op) endsCycle() bool { return o.kind == opQuery || o.kind == opFunction || o.kind == opSync }

// holds reports whether an entry of the kind is in the queue.
func (q *queue) holds(kind opKind) bool {
	for _, o := range q.ops[q.head:] {
		if o.kind == kind {
			return true
		}
	}
	return false
}

// copyBegins is called when PostgreSQL asks for COPY data: from then to the end of the
// data it ignores Sync. It drops the Syncs that were sent before it could be known
// (Session.sync lets none follow the data), and the end of the data if the client has
// sent that already. Whatever else the client has sent ends the COPY with an error.
func (q *queue) copyBegins() (ignored, over bool) {
	rest := q.ops[q.head+1:]
	n := 0
	for n < len(rest) && rest[n].kind == opSync {
		n++
	}
	ignored, over = n > 0, n < len(rest)
	if over && rest[n].kind == opCopyEnd {
		n++
	}
	q.ops = slices.Delete(q.ops, q.head+1, q.head+1+n)
	return ignored, over
}
