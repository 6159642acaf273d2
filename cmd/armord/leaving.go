package main

import (
	"context"
	"sync"
	"time"
)

// leaving is how far a node is on its way out: from the first word that it is going, new
// clients are served for the time that load balancers take to notice.
type leaving struct {
	mu      sync.Mutex // guards below
	delay   time.Duration
	since   time.Time     // when it was first said; zero: not yet
	changed chan struct{} // closed when the delay changes; nil while nobody waits for that
}

func (l *leaving) setDelay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// begin has the node say from now on that it is not ready.
func (l *leaving) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.since = time.Now()
	}
}

func (l *leaving) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.since.IsZero()
}

// hurry is for an end at once: nobody waits for load balancers.
func (l *leaving) hurry() { l.setDelay(0) }

// left is how much longer load balancers may take, and closed when that changes. A node that
// is not on its way out ends because it is broken: it is of no use to new clients.
func (l *leaving) left() (d time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	if l.since.IsZero() {
		return 0, l.changed
	}
	return max(0, time.Until(l.since.Add(l.delay))), l.changed
}

// seen returns when load balancers have had their time, or ctx ends.
func (l *leaving) seen(ctx context.Context) {
	for {
		d, changed := l.left()
		if d <= 0 {
			return
		}
		select {
		case <-time.After(d):
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// announce says that the node is not ready, and calls then when load balancers have had
// their time.
func (l *leaving) announce(then func()) {
	l.begin()
	d, _ := l.left()
	time.AfterFunc(d, then)
}
