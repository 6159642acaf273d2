package fsm

import (
	"bytes"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// maxLiveRequests bounds what one principal can make the state remember.
const maxLiveRequests = 10_000

// step applies one request to the world. The world that follows always has the
// entry's revision and time, also when the request is refused.
func (w *world) step(index, term uint64, e entry) (*world, armor.Result) {
	r := e.request
	d := w.open(index, term, e)
	digest := r.Digest()
	if first, found := d.requests.Get(outcomeKey(r.Principal, r.ID)); found {
		if first.Digest != digest {
			return d.refused(refuse(armor.ErrConflict, "request id %s was used for another request: make a new one", r.ID))
		}
		d.prolong(first, r.Expires)
		return d.finish(), first.result()
	}
	if err := d.admit(e); err != nil {
		return d.refused(err)
	}
	opened := d.finish()
	next := opened.edit()
	next.term, next.level, next.by, next.judged = term, e.level, r.Principal, d.judged
	err := next.perform(r)
	if err != nil {
		next = opened.edit()
	}
	code, text := encodeError(err)
	first := outcome{
		Principal: r.Principal, Request: r.ID, Digest: digest, Expires: next.keptUntil(e, err),
		Revision: index, Term: term, Time: next.Time, Code: code, Text: text,
	}
	next.remember(first)
	result := first.result()
	result.Repeated = false
	return next.finish(), result
}

// open moves the world to the entry's revision and time and forgets what is over.
func (w *world) open(index, term uint64, e entry) *draft {
	d := w.edit()
	d.Revision, d.term, d.by, d.latest = index, term, e.request.Principal, max(d.latest, e.level)
	if e.proposedAt.After(d.Time) {
		d.Time = e.proposedAt
	}
	d.judged = d.Time
	if e.ownTime() {
		d.judged = e.proposedAt
	}
	d.forgetOver()
	return d
}

// refused closes a draft in which nothing but revision and time moved.
func (d *draft) refused(err error) (*world, armor.Result) {
	code, text := encodeError(err)
	return d.finish(), armor.Result{Revision: d.Revision, Term: d.term, Time: d.Time, Err: decodeError(code, text)}
}

// admit judges what does not depend on the command's meaning. What it refuses is not
// remembered: nobody may use up another's request ids, or the table.
func (d *draft) admit(e entry) error {
	r := e.request
	switch {
	case e.timeless(): // neither of the next two
	case r.Expires.Before(d.judged):
		return refuse(armor.ErrExpired,
			"request %s was good until %s, and it is %s: look at the state, then make a new request", r.ID, stamp(r.Expires), stamp(d.judged))
	case r.Expires.After(d.judged.Add(armor.RequestWindow)):
		return refuse(armor.ErrInvalid,
			"request %s expires at %s, later than %s after %s: make a shorter one, and compare the clocks",
			r.ID, stamp(r.Expires), armor.RequestWindow, stamp(d.judged))
	}
	switch {
	case d.liveRequests(r.Principal) >= maxLiveRequests:
		return refuse(armor.ErrExhausted,
			"%s made %d requests within %s: wait, or put more into each", r.Principal, maxLiveRequests, armor.RequestWindow)
	}
	return d.authenticate(e)
}

// authenticate checks that the request is its principal's own.
func (d *draft) authenticate(e entry) error {
	r := e.request
	if node, ok := strings.CutPrefix(r.Principal, "node/"); ok {
		return d.authenticateNode(armor.NodeID(node), r)
	}
	if r.Principal == armor.PeerCAPrincipal && e.level >= 8 {
		return d.authenticatePeerCA(e)
	}
	operator, found := d.Operators.Get(r.Principal)
	if !found {
		return refuse(armor.ErrDenied, "there is no operator %q", r.Principal)
	}
	if a := e.ahead; a != nil && (e.trustAhead || a.cluster == d.Cluster.ID && bytes.Equal(a.key, operator.PublicKey)) {
		return a.err
	}
	return r.Verify(d.Cluster.ID, operator.PublicKey)
}

// authenticateNode accepts only the cluster's own kinds from nodes: a stolen node key
// must not widen anything.
func (d *draft) authenticateNode(node armor.NodeID, r armor.Request) error {
	if r.Command.Needs() != "" {
		return refuse(armor.ErrDenied, "%s is for an operator with role %s, and %s is a node", r.Command.Kind(), r.Command.Needs(), r.Principal)
	}
	if len(r.Signature) != 0 {
		return refuse(armor.ErrInvalid, "%s by %s carries a signature", r.Command.Kind(), r.Principal)
	}
	if b, ok := r.Command.(armor.Bootstrap); ok {
		if b.Member.ID != node {
			return refuse(armor.ErrDenied, "node %q cannot bootstrap with member %q", node, b.Member.ID)
		}
		return nil
	}
	// A removed leader may have to wind up its own shares before another leads.
	if !d.Members.Has(string(node)) && !d.Tombstones.Has(string(node)) {
		return refuse(armor.ErrDenied, "node %q is not a member", node)
	}
	return nil
}

// perform judges authority as it is at this point of the log, then does it.
func (d *draft) perform(r armor.Request) error {
	if _, first := r.Command.(armor.Bootstrap); !first && d.Cluster.ID == "" {
		return refuse(armor.ErrConflict, "the cluster has not been initialised")
	}
	if err := d.authorize(r); err != nil {
		return err
	}
	return kinds[r.Command.Kind()].do(d, r.Command)
}

func (d *draft) authorize(r armor.Request) error {
	role := r.Command.Needs()
	operator, isOperator := d.Operators.Get(r.Principal)
	if !isOperator {
		return nil // a node, with one of the cluster's own kinds, or the peer CA, with the one that is its
	}
	if role == "" {
		return refuse(armor.ErrDenied, "%s is proposed by nodes only", r.Command.Kind())
	}
	if err := d.usableAt(operator.Certificate, d.judged); err != nil {
		return refuse(armor.ErrDenied, "operator %s may not act: %v", operator.Name, err)
	}
	if !operator.Has(role) {
		return refuse(armor.ErrDenied, "operator %s lacks role %s, which %s needs", operator.Name, role, r.Command.Kind())
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
