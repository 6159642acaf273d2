package portable

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/pooler/core"
)

// clock has a session looked at now and then while its pool has time-outs.
type clock struct {
	on atomic.Bool

	mu     sync.Mutex // guards below; nothing that blocks happens under it
	timer  *time.Timer
	halted bool

	seen sync.Mutex // guards below
	last core.Activity
}

// note keeps what the session is doing after an event. The clock does without while an
// event goes on: one that writes to a client who does not read may go on for long, and
// what the session was doing before then, it still is.
func (c *clock) note(s *core.Session) {
	if !c.on.Load() {
		return
	}
	c.seen.Lock()
	defer c.seen.Unlock()
	c.last = s.Activity()
}

func (c *clock) noted() core.Activity {
	c.seen.Lock()
	defer c.seen.Unlock()
	return c.last
}

// keepTime is called when the session begins and when its pool's time-outs have changed.
func (s *session) keepTime() {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	s.lookAgainLocked()
}

func (s *session) lookAgainLocked() {
	if s.clock.timer != nil {
		s.clock.timer.Stop()
		s.clock.timer = nil
	}
	every := s.h.LookEvery()
	if s.clock.on.Store(every > 0); every > 0 && !s.clock.halted {
		s.clock.timer = time.AfterFunc(every, s.look)
	}
}

// unwatch ends the looking; one that is under way has ended when it returns.
func (s *session) unwatch() {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	s.clock.halted = true
	s.lookAgainLocked()
}

// look ends the session if it is overdue.
func (s *session) look() {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	if s.clock.halted {
		return
	}
	a := s.glance()
	if cause := s.h.Overdue(time.Now(), a); cause != nil {
		s.stopIfStill(a, cause)
	}
	s.lookAgainLocked()
}

// glance returns what the session is doing, and waits for nobody.
func (s *session) glance() core.Activity {
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		s.clock.note(s.core)
	}
	return s.clock.noted()
}

// stopIfStill stops the session unless it has begun something else meanwhile.
func (s *session) stopIfStill(a core.Activity, cause error) {
	if !s.mu.TryLock() {
		if a.Phase == core.Running {
			s.stop(cause)
		}
		return
	}
	defer s.mu.Unlock()
	if s.core.Activity() == a {
		s.stop(cause)
	}
}
