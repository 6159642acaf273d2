package tlsedge

import (
	"context"
	"time"

	"github.com/armordb/armordb/armor"
)

// enforce brings every session into line with each state published, and reports a
// revision once that is true. A slow driver delays the report, never the cuts of
// the next revision.
func (e *Edge) enforce(ctx context.Context) {
	var before *armor.State
	closed, seen := 0, time.Time{}
	for ctx.Err() == nil {
		s, superseded := e.cfg.Trust.Current()
		if before == nil || before.Revision != s.Revision {
			seen = time.Now()
		}
		if e.beforeCut != nil {
			e.beforeCut(ctx, e, s)
		}
		closed += e.conform(before, s)
		before = s
		if !e.allConfirmed(ctx, superseded) {
			continue
		}
		e.report(s.Revision, closed, time.Since(seen))
		closed = 0
		select {
		case <-superseded:
		case <-ctx.Done():
		}
	}
}

func (e *Edge) report(revision uint64, closed int, took time.Duration) {
	e.cfg.Reporter.Enforced(revision, closed)
	if e.cfg.Hooks.Enforced != nil {
		e.cfg.Hooks.Enforced(revision, closed, took)
	}
}

// conform cuts every session that s denies and returns how many. It judges those that
// could be judged in another way than before.
func (e *Edge) conform(before, s *armor.State) (closed int) {
	for _, session := range e.concerned(before, s) {
		closed += e.judge(session, s)
	}
	return closed
}

// concerned are the sessions for which s may decide otherwise than before did. Most
// revisions are about none (a share moved) or say which (a certificate was revoked);
// after others it may be any: a grant removed, an anchor rebound, an inventory demanded.
func (e *Edge) concerned(before, s *armor.State) []*Session {
	if s.Differs(before, armor.Trusting, armor.Granting, armor.Pooling) {
		return e.registry.all()
	}
	keys, known := s.Touched(before)
	if !known {
		return e.registry.all()
	}
	return e.registry.matching(keys)
}

// judge cuts a session that the state denies, and returns 1 if it did.
func (e *Edge) judge(session *Session, s *armor.State) int {
	if session.cause.Load() != nil { // stored by Live, perhaps, which leaves the telling to others
		e.registry.ends(session)
		session.tell()
		return 0
	}
	denial := e.verdict(session, s)
	if denial == nil || !session.cut(denial, s.Revision) {
		return 0
	}
	return 1
}

// verdict judges a session by all that it is and was granted. A session that the state
// would now serve in another way than it is being served ends, too.
func (e *Edge) verdict(session *Session, s *armor.State) *armor.Denial {
	facts, granted := session.judged()
	access, denial := e.decide(s, facts)
	environment := session.boundTo()
	switch {
	case denial != nil:
		return denial
	case environment != "" && access.Environment != environment:
		return movedEnvironment()
	case granted != nil && (access.Pool.Environment != granted.environment || access.Pool.Name != granted.pool):
		return movedPool()
	}
	return nil
}

// allConfirmed waits until every session that was cut, for whatever cause, forwards
// no further byte. It returns false if there is something newer to do first.
func (e *Edge) allConfirmed(ctx context.Context, superseded <-chan struct{}) bool {
	for _, session := range e.registry.allEnding() {
		select {
		case <-session.confirmed:
		case <-superseded:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// sweep ends sessions whose time is over: by their certificate's validity, or
// because this node can no longer prove that it knows every revocation.
func (e *Edge) sweep(ctx context.Context) {
	tick := time.NewTicker(e.cfg.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.sweepOnce()
		case <-ctx.Done():
			return
		}
	}
}

func (e *Edge) sweepOnce() {
	now := e.cfg.Lease.Now()
	stale := map[string]bool{}
	for _, session := range e.registry.all() {
		switch environment := session.boundTo(); {
		case session.cause.Load() != nil:
			e.urge(session)
		case environment == "": // not checked yet
		case e.staleNow(environment, stale):
			session.cut(staleDenial(), 0)
		case now.After(session.until):
			state, _ := e.cfg.Trust.Current()
			e.judge(session, state)
		}
	}
}

// staleNow asks the lease once a sweep for each environment.
func (e *Edge) staleNow(environment string, known map[string]bool) bool {
	stale, asked := known[environment]
	if !asked {
		stale = e.cfg.Lease.KeepLiveAt(environment, e.cfg.Lease.Moment()) != nil
		known[environment] = stale
	}
	return stale
}

// patience is how long a session that was cut may take to end before its connection
// is closed under it.
const patience = 10 * time.Second

// urge sees a session that was cut to its end.
func (e *Edge) urge(session *Session) {
	session.tell()
	if time.Since(session.toldAt()) > patience {
		session.conn.Close()
	}
}

// Preview returns the sessions here that revocations of the selectors would cut.
func (e *Edge) Preview(selectors []armor.Selector) []armor.SessionInfo {
	state, _ := e.cfg.Trust.Current()
	supposed := *state
	keys, rows := make([]armor.SelectorKey, len(selectors)), make([]armor.Revocation, len(selectors))
	for i, sel := range selectors {
		keys[i], rows[i] = sel.SelectorKey(), armor.Revocation{Selector: sel}
	}
	supposed.Revocations = supposed.Revocations.With(rows...)
	var cut []armor.SessionInfo
	for _, session := range e.registry.matching(keys) {
		if d := e.verdict(session, &supposed); session.cause.Load() == nil && d != nil && d.Reason == armor.ReasonRevoked {
			cut = append(cut, session.info())
		}
	}
	return cut
}
