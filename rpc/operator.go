package rpc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// Wait says how far a change must have come before Submit returns.
type Wait string

const (
	// WaitNone returns as soon as the leader has checked the request and begun to
	// commit it. The outcome is not known then: Result.Revision is zero. The same
	// request id asks for it later.
	WaitNone Wait = "none"
	// WaitLeader returns once the change is committed and applied by the leader.
	WaitLeader Wait = "leader"
	// WaitAll also waits until every node enforces it or has fenced itself.
	WaitAll Wait = "all"
)

// DefaultPatience is how long WaitAll waits when the caller names no time: the default
// T_live with its drift margin, and five seconds.
const DefaultPatience = 20*time.Second + 150*time.Millisecond

// maxPatience bounds how long a node keeps a call waiting.
const maxPatience = time.Hour

// SubmitOptions qualify one change. The zero value is a new request that waits for the
// leader.
type SubmitOptions struct {
	// RequestID makes this the retry of an earlier request, which must be less than
	// ten minutes old: later the cluster may have forgotten it. Empty: a new one.
	RequestID armor.RequestID
	// Wait; empty: WaitLeader.
	Wait Wait
	// Patience is how long WaitAll waits for enforcement once the change is
	// committed. Zero: DefaultPatience.
	Patience time.Duration
}

// Outcome is what became of a change.
type Outcome struct {
	// RequestID is set whatever happened; the same change may be submitted with it
	// again.
	RequestID armor.RequestID
	// Result is what the state machine said; its Err is also Submit's error.
	Result armor.Result
	// Enforcement is who enforces the change; nil unless WaitAll was asked for and
	// the change was committed.
	Enforcement *armor.Enforcement
}

// SilentNode is a node that a survey could not ask.
type SilentNode struct {
	Node armor.NodeID
	Why  string
}

// SessionSurvey is the live sessions of all nodes that answered, in the order of node
// and session id.
type SessionSurvey struct {
	Sessions []armor.SessionInfo
	Silent   []SilentNode // whose sessions are missing
}

// check completes the options and refuses what means nothing.
func (o SubmitOptions) check() (SubmitOptions, error) {
	if o.RequestID == "" {
		o.RequestID = NewRequestID()
	}
	if _, err := armor.ParseRequestID(string(o.RequestID)); err != nil {
		return o, err
	}
	if o.Wait == "" {
		o.Wait = WaitLeader
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Patience < 0 || o.Patience > maxPatience {
		return o, fmt.Errorf("%w: patience %s is not between 0 and %s", armor.ErrInvalid, o.Patience, maxPatience)
	}
	_, err := ParseWait(string(o.Wait))
	return o, err
}

// ParseWait checks that s is one of none, leader and all.
func ParseWait(s string) (Wait, error) {
	switch w := Wait(s); w {
	case WaitNone, WaitLeader, WaitAll:
		return w, nil
	}
	return "", fmt.Errorf("%w: wait %.40q is not one of none, leader, all", armor.ErrInvalid, s)
}

// NewRequestID makes a random request id.
func NewRequestID() armor.RequestID {
	var id [16]byte
	rand.Read(id[:])
	return armor.RequestID(hex.EncodeToString(id[:]))
}

// StepID is the id of one of several requests that are one change to whoever asked: the
// first has the id that was chosen, and the others follow from it, so that a retry of the
// change retries each.
func StepID(id armor.RequestID, step int) armor.RequestID {
	if step == 0 || id == "" {
		return id
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "step %d of %s", step, id))
	return armor.RequestID(hex.EncodeToString(sum[:16]))
}
