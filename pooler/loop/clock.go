//go:build linux

package loop

import (
	"time"

	"github.com/armordb/armordb/pooler/core"
)

// watch is called when the session begins and when its pool's time-outs have changed.
func (s *session) watch() {
	every := s.h.LookEvery()
	if s.over || every == 0 {
		delete(s.w.watched, s)
		return
	}
	s.w.watched[s] = struct{}{}
	if s.w.looks == nil || every < s.w.every {
		s.w.lookAgain(every)
	}
}

// lookAgain has the loop look around in a while. A timer wakes it, so that without
// time-outs nothing is asked and no clock is read.
func (w *worker) lookAgain(every time.Duration) {
	if w.looks != nil {
		w.looks.Stop()
	}
	w.every = every
	w.looks = time.AfterFunc(every, func() { w.post(w.lookAround) })
}

// lookAround ends the sessions that are overdue.
func (w *worker) lookAround() {
	now, every := time.Now(), time.Duration(0)
	for s := range w.watched {
		e := s.h.LookEvery()
		if e == 0 {
			delete(w.watched, s)
			continue
		}
		if every == 0 || e < every {
			every = e
		}
		s.lookAt(now)
	}
	if every == 0 {
		w.looks = nil
		return
	}
	w.lookAgain(every)
}

// lookAt ends the session if it is overdue.
func (s *session) lookAt(now time.Time) {
	defer s.w.rescue(s)
	if cause := s.h.Overdue(now, s.activity()); cause != nil {
		s.cut(cause, nil)
	}
}

// activity is what core says, corrected by what only the driver knows: a client that has
// not taken its answer yet is not idle.
func (s *session) activity() core.Activity {
	a := s.core.Activity()
	if len(s.unsent) > 0 && a.Phase != core.Waiting {
		a.Phase = core.Running
	}
	return a
}
