package armor

import (
	"errors"
	"fmt"
)

// The kinds of failure that callers tell apart. Wrap them with what was attempted;
// test for them with errors.Is. rpc/status.go carries each of them over the wire
// and back, pooler/sqlstate.go gives each its SQLSTATE, and nothing else translates.
var (
	ErrInvalid      = errors.New("invalid")                  // the request itself is wrong; repeating it will not help
	ErrNotFound     = errors.New("not found")                // no such object
	ErrConflict     = errors.New("conflict")                 // it exists already, or changed since it was read
	ErrDenied       = errors.New("denied")                   // this caller may not do that
	ErrNotLeader    = errors.New("not the leader")           // ask the leader; see NotLeaderError
	ErrNoQuorum     = errors.New("no quorum")                // no leader could commit; nothing has changed
	ErrUncertain    = errors.New("outcome unknown")          // neither yes nor no: the leader was lost mid-commit; retry with the same id
	ErrExpired      = errors.New("expired")                  // too old to be run: look at the state, then make a new request
	ErrUnconfirmed  = errors.New("not confirmed everywhere") // committed, but not every node has confirmed it in time
	ErrUnavailable  = errors.New("unavailable")              // no node answered
	ErrRevoked      = errors.New("revoked")                  // the certificate, key, identity or issuer is revoked
	ErrStale        = errors.New("trust state not fresh")    // this node cannot prove that it knows every revocation
	ErrDraining     = errors.New("draining")                 // this node is being stopped for maintenance
	ErrExhausted    = errors.New("exhausted")                // a limit is reached
	ErrShuttingDown = errors.New("shutting down")            // this process is ending
)

// NotLeaderError says who leads, as far as this node knows.
type NotLeaderError struct {
	Leader NodeID // empty while nobody does
}

// Error names the leader, if one is known.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader, and no leader is known"
	}
	return fmt.Sprintf("not the leader; %s is", e.Leader)
}

// Is makes errors.Is(err, ErrNotLeader) true.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }
