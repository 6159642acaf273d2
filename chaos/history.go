package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Kind says what an Event tells about.
type Kind string

const (
	// KindConnect is one attempt to open a session, from dialing to the first answer.
	KindConnect Kind = "connect"
	// KindQuery is one query on an open session, from sending to its answer.
	KindQuery Kind = "query"
	// KindReach is one client with a valid certificate trying every node in turn until
	// one serves it.
	KindReach Kind = "reach"
	// KindRevoke is one revocation, from asking to the reply.
	KindRevoke Kind = "revoke"
	// KindCommit is one ledger transaction, from its first statement to COMMIT's answer.
	KindCommit Kind = "commit"
	// KindLedger is one row found in the ledger when all was over.
	KindLedger Kind = "ledger"
	// KindBackend is one backend of PostgreSQL's own log, from authorization to
	// disconnection.
	KindBackend Kind = "backend"
	// KindFault is one fault, from the nemesis' hand until it was undone.
	KindFault Kind = "fault"
	// KindReply is one request whose answer names who asked, from asking to its end.
	KindReply Kind = "reply"
	// KindCancel is one request that its client has cancelled, or tried to.
	KindCancel Kind = "cancel"
	// KindState is one look of a client at the state of its session.
	KindState Kind = "state"
	// KindBalance is the balance of one account when all was over.
	KindBalance Kind = "balance"
	// KindLevel is one count at a node or at PostgreSQL when all was over.
	KindLevel Kind = "level"
	// KindIntruder is one knock of a client that nobody may let in.
	KindIntruder Kind = "intruder"
	// KindSteady is one login or query of a client that no node may send away.
	KindSteady Kind = "steady"
	// KindTerm is the term that a node was in, in Found, and KindClock how far the log's time,
	// or a node's clock by its own account, was ahead, in milliseconds.
	KindTerm  Kind = "term"
	KindClock Kind = "clock"
	// KindHarm is one kind of message of a thief: how often it was sent, in Found, and
	// answered, in Allowed.
	KindHarm Kind = "harm"
	// KindCanary is one thing that an operator did when all was over.
	KindCanary Kind = "canary"
	// KindCrash is a node that has ended by itself.
	KindCrash Kind = "crash"
	// KindSettings says which scenario it was, in Subject, and carries the numbers that the
	// checkers judge by.
	KindSettings Kind = "settings"
)

// Outcome is how something ended.
type Outcome string

const (
	OK      Outcome = "ok"      // answered, and the answer was yes
	Fail    Outcome = "fail"    // answered, and the answer was no
	Unknown Outcome = "unknown" // no answer, or one that says neither
)

// Event is one line of a history. Start and End are nanoseconds on one monotonic
// clock that all of a run's clients share; End is zero for what never ended.
type Event struct {
	Kind    Kind          `json:"kind"`
	Start   time.Duration `json:"start"`
	End     time.Duration `json:"end"`
	Outcome Outcome       `json:"outcome,omitempty"`
	// Subject is what the event is about: a certificate's serial, a transaction's
	// key, a node, a backend's pid.
	Subject  string `json:"subject,omitempty"`
	Node     string `json:"node,omitempty"`
	SQLState string `json:"sqlstate,omitempty"`
	Detail   string `json:"detail,omitempty"`
	// Got is what the answer of a KindReply or KindCancel said it was the answer to, and
	// what a KindState has found that the client had not left there.
	Got string `json:"got,omitempty"`
	// Found is a KindBalance's or KindLevel's number, and Allowed the highest that a level
	// may come back to.
	Found   int `json:"found,omitempty"`
	Allowed int `json:"allowed,omitempty"`
	// Budget and Patience are set on KindSettings: the pool's server connections,
	// and how long a valid client may go unserved.
	Budget   int           `json:"budget,omitempty"`
	Patience time.Duration `json:"patience,omitempty"`
}

// History collects the events of a run and writes each to a file as it comes, so that
// a run that dies still tells. It is safe for concurrent use.
type History struct {
	origin time.Time

	mu     sync.Mutex // guards all below
	events []Event
	out    *bufio.Writer
	err    error
}

// NewHistory starts a history at this instant. Events are also written to w as JSON
// lines; Flush reports the first write that failed.
func NewHistory(w io.Writer) *History {
	return &History{origin: time.Now(), out: bufio.NewWriter(w)}
}

// Now is the time on the history's clock.
func (h *History) Now() time.Duration { return time.Since(h.origin) }

// At translates a wall-clock time of this machine to the history's clock.
func (h *History) At(t time.Time) time.Duration { return t.Sub(h.origin.Round(0)) }

// Add records an event.
func (h *History) Add(e Event) {
	line, err := json.Marshal(e)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	if err == nil {
		_, err = h.out.Write(append(line, '\n'))
	}
	h.err = errors.Join(h.err, err)
}

// Events returns a copy of what was recorded so far.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Event(nil), h.events...)
}

// Flush writes what is buffered and returns the first error of any write.
func (h *History) Flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, h.out.Flush())
}

// maxHistoryLine bounds a line of a history file.
const maxHistoryLine = 1 << 20

// ReadHistory reads what a History wrote, to check an old run again.
func ReadHistory(path string) ([]Event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var events []Event
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxHistoryLine)
	for n := 1; lines.Scan(); n++ {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		events = append(events, e)
	}
	return events, lines.Err()
}
