//go:build linux

package loop

import (
	"sync"
	"sync/atomic"
)

// inbox is how other goroutines, and the loop itself in the middle of something,
// leave work for the loop.
type inbox struct {
	asleep atomic.Bool // the loop waits, or is about to, and must be woken

	mu   sync.Mutex // guards below
	work []func()
	shut bool
}

// put adds work and reports whether the loop must be woken for it. After shut it
// reports ok false: nobody will do the work.
func (b *inbox) put(work func()) (wake, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return false, false
	}
	b.work = append(b.work, work)
	return b.asleep.CompareAndSwap(true, false), true
}

// take returns the work that is there and leaves room's array in its place.
func (b *inbox) take(room []func()) []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	work := b.work
	b.work = room[:0]
	return work
}

// sleep says that the loop is going to wait, unless there is work: then it returns
// false.
func (b *inbox) sleep() bool {
	b.asleep.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.work) > 0 {
		b.asleep.Store(false)
		return false
	}
	return true
}

func (b *inbox) awake() { b.asleep.Store(false) }

// close makes put refuse and returns what was left.
func (b *inbox) close() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	work := b.work
	b.work = nil
	return work
}
