package armor

import (
	"fmt"
	"slices"
	"strings"
)

// PoolVerb is what an operator does to a pool on a node.
type PoolVerb string

const (
	PausePool     PoolVerb = "pause"     // lend no more; end server connections as they come back
	ResumePool    PoolVerb = "resume"    // undo pause and kill
	ReconnectPool PoolVerb = "reconnect" // end each server connection when it comes back, and go on with new ones
	KillPool      PoolVerb = "kill"      // pause, and end every session and server connection at once
	DisablePool   PoolVerb = "disable"   // take no new clients
	EnablePool    PoolVerb = "enable"    // undo disable
)

// PoolVerbs are all of them.
func PoolVerbs() []PoolVerb {
	return []PoolVerb{PausePool, ResumePool, ReconnectPool, KillPool, DisablePool, EnablePool}
}

// PoolOrder is an act on one pool. It concerns the nodes that it is given to and no
// state of the cluster: a node forgets it when it restarts.
type PoolOrder struct {
	Verb        PoolVerb
	Environment string
	Pool        string
}

// Key is the pool's key in State.Pools.
func (o PoolOrder) Key() string { return ObjectKey(o.Environment, o.Pool) }

// Validate returns ErrInvalid for an order that means nothing.
func (o PoolOrder) Validate() error {
	if err := CheckName("environment", o.Environment); err != nil {
		return err
	}
	if err := CheckName("pool", o.Pool); err != nil {
		return err
	}
	if slices.Contains(PoolVerbs(), o.Verb) {
		return nil
	}
	var all []string
	for _, v := range PoolVerbs() {
		all = append(all, string(v))
	}
	return fmt.Errorf("%w: %q is not one of %s", ErrInvalid, clip(string(o.Verb)), strings.Join(all, ", "))
}
