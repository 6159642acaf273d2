package fsm

import (
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
)

// requestsTable is the name of the memory in the state's hash and in snapshots.
const requestsTable = "requests"

// memory is what requests came to, for as long as they may be retried. It is an immutable
// value, as tables are.
type memory struct {
	requests armor.Table[outcome]
	expiries armor.Index        // key of a request by the end of its life; follows from requests
	live     armor.Table[quota] // how many of a principal's are remembered; follows from requests
}

// outcome is what a request came to.
type outcome struct {
	Principal string
	Request   armor.RequestID
	Digest    armor.Digest // of what was asked
	Expires   time.Time    // when it is forgotten, by log time
	Revision  uint64
	Term      uint64
	Time      time.Time
	Code      uint32 // index into codes; 0 is accepted
	Text      string
}

func outcomeKey(principal string, id armor.RequestID) string { return principal + " " + string(id) }

// Key is the outcome's key in the memory.
func (o outcome) Key() string { return outcomeKey(o.Principal, o.Request) }

// expiryKey orders by the end of life.
func (o outcome) expiryKey() string { return expiryOf(o.Expires) + " " + o.Key() }

// expiryOf sorts as instants do: log time is never before 1970, so that the digits sort
// as the numbers do.
func expiryOf(t time.Time) string { return fmt.Sprintf("%016x", max(t.UnixNano(), 0)) }

// hashed leaves out the words, which may differ between builds.
func (o outcome) hashed() outcome {
	o.Text = ""
	return o
}

func (o outcome) result() armor.Result {
	return armor.Result{Revision: o.Revision, Term: o.Term, Time: o.Time, Err: decodeError(o.Code, o.Text), Repeated: true}
}

// quota counts what is remembered of one principal.
type quota struct {
	principal string
	count     int
}

// Key is the quota's key in the memory.
func (q quota) Key() string { return q.principal }

func (m memory) liveRequests(principal string) int {
	q, _ := m.live.Get(principal)
	return q.count
}

// remember keeps an outcome, in the place of an earlier one of the same request.
func (d *draft) remember(o outcome) {
	d.forget(o.Key())
	d.entries.add(entryHash(requestsTable, o.Key(), o.hashed()))
	d.requests = d.requests.With(o)
	d.expiries = d.expiries.With(o.expiryKey(), o.Key())
	d.live = d.live.With(quota{o.Principal, d.liveRequests(o.Principal) + 1})
}

// forget drops the outcome under key, if there is one.
func (d *draft) forget(key string) {
	o, had := d.requests.Get(key)
	if !had {
		return
	}
	d.entries.subtract(entryHash(requestsTable, key, o.hashed()))
	d.requests = d.requests.Without(key)
	d.expiries = d.expiries.Without(o.expiryKey())
	if left := d.liveRequests(o.Principal) - 1; left > 0 {
		d.live = d.live.With(quota{o.Principal, left})
	} else {
		d.live = d.live.Without(o.Principal)
	}
}

// forgetOver drops what no request could be retried for any more.
func (d *draft) forgetOver() {
	end := expiryOf(d.Time)
	for expiry, key := range d.expiries.All() {
		if expiry >= end {
			return
		}
		d.forget(key)
	}
}

// prolong keeps an outcome for as long as the latest retry may itself be retried.
func (d *draft) prolong(o outcome, expires time.Time) {
	if !expires.After(o.Expires) || expires.After(d.Time.Add(armor.RequestWindow)) {
		return
	}
	o.Expires = expires
	d.remember(o)
}
