package fsm

import (
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// Log time is the latest time that any entry was proposed at, and leaders propose what a
// majority of the voters' clocks has reached. Should it be in the future all the same (an
// entry of a release that trusted one clock; a majority that was wrong), every request is
// over before it is made. Two things go on then: what only takes access away, and the
// mending of log time.

// timelessLevel is the level from which on an entry of a command that only takes access
// away is not judged by time.
const timelessLevel = 7

// TakesAway reports whether a command takes access away and gives none: no clock may be in
// its way, and to run it again changes nothing.
func TakesAway(c armor.Command) bool {
	switch c.(type) {
	case armor.Revoke, armor.StageRevocations, armor.RevokeStaged:
		return true
	}
	return false
}

func (e entry) timeless() bool {
	return e.level >= timelessLevel && TakesAway(e.request.Command)
}

// ownTime reports whether the entry is judged by when it was proposed, not by log time.
func (e entry) ownTime() bool {
	_, mends := e.request.Command.(armor.MendTime)
	return mends || e.timeless()
}

// keptUntil is until when a request's outcome is remembered. That of a mending is never
// forgotten: run again, it would take log time back to when it was signed.
func (d *draft) keptUntil(e entry, refused error) time.Time {
	switch {
	case e.timeless():
		return d.Time.Add(armor.RequestWindow)
	case e.ownTime() && refused == nil:
		return lastTime
	}
	return e.request.Expires
}

// mendTime takes log time back to when the entry was proposed and one request's life more:
// whatever was signed before is over by then, so that nothing runs twice whose first
// outcome was forgotten in the wrong time.
func (d *draft) mendTime(c armor.MendTime) error {
	mended := d.judged.Add(armor.RequestWindow)
	switch {
	case c.From.After(d.Time):
		return refuse(armor.ErrConflict, "log time is %s, and not %s any more: it was mended meanwhile", stamp(d.Time), stamp(c.From))
	case !d.Time.After(mended):
		return refuse(armor.ErrConflict,
			"log time is %s, and the voters' clocks agree on %s: there is nothing to mend, within %s they are one again",
			stamp(d.Time), stamp(d.judged), armor.RequestWindow)
	}
	d.takeTimeBack(mended)
	return nil
}

// takeTimeBack sets log time back, and what was dated in the wrong time.
func (d *draft) takeTimeBack(mended time.Time) {
	d.Time = mended
	d.dropFutureTokens()
	d.redateJoins()
	d.redateStaged()
	d.forgetFutureHousekeeping()
}

// dropFutureTokens drops join tokens that would be good for longer than a token may be:
// they were made in the wrong time.
func (d *draft) dropFutureTokens() {
	for t := range d.Tokens.Values() {
		if t.Expires.After(d.Time.Add(maxTokenLife)) {
			remove(d, armor.Tokens, t)
		}
	}
}

// redateJoins and redateStaged have what waits for an operator wait no longer than it may.
func (d *draft) redateJoins() {
	for j := range d.Joins.Values() {
		if j.At.After(d.Time) {
			j.At = d.Time
			put(d, armor.Joins, j)
		}
	}
}

func (d *draft) redateStaged() {
	for p := range d.Staged.Values() {
		if p.At.After(d.Time) {
			p.At = d.Time
			put(d, armor.Staged, p)
		}
	}
}

// forgetFutureHousekeeping drops what the cluster's own requests came to in the wrong time:
// they would fill the quota until then. What operators signed stays remembered for as long
// as it is good.
func (d *draft) forgetFutureHousekeeping() {
	horizon := d.Time.Add(armor.RequestWindow)
	for key, o := range d.requests.All() {
		if strings.HasPrefix(o.Principal, "node/") && o.Expires.After(horizon) {
			d.forget(key)
		}
	}
}
