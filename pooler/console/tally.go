package console

import (
	"time"

	"github.com/armordb/armordb/armor"
)

// Tally is what a node knows of one of its pools.
type Tally struct {
	Config   armor.Pool
	Database armor.Database
	Status   armor.PoolStatus
	Totals   Totals
	Rates    Rates
	Roles    []RoleTally // in the order of their databases and names
}

// RoleTally is the part of a pool that logs in as one role and, in the template's pools,
// to one database. Each of its clients and server connections is counted once.
type RoleTally struct {
	Database       string // as clients ask for it
	Role           string
	ClientsActive  int // all that do not wait
	ClientsWaiting int
	MaxWait        time.Duration // how long the first in the queue has waited
	Active         int           // server connections that are lent
	Idle           int
	Tested         int // being reset or ended
	Canceled       int // kept back while a cancel request is under way
	Login          int // being opened
}

// Add sums up one role's parts of two pools.
func (r *RoleTally) Add(o RoleTally) {
	r.ClientsActive += o.ClientsActive
	r.ClientsWaiting += o.ClientsWaiting
	r.MaxWait = max(r.MaxWait, o.MaxWait)
	r.Active += o.Active
	r.Idle += o.Idle
	r.Tested += o.Tested
	r.Canceled += o.Canceled
	r.Login += o.Login
}

// Clients is how many there are.
func (t Tally) Clients() (n int) {
	for _, r := range t.Roles {
		n += r.ClientsActive + r.ClientsWaiting
	}
	return n
}
