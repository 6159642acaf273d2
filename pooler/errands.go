package pooler

import (
	"context"
	"sync"
)

// errands is work for Run: whoever finds that something is to be done, in the midst
// of serving a client perhaps, leaves it here and goes on.
type errands struct {
	wake chan struct{} // holds one token when there may be something in list

	mu   sync.Mutex // guards below
	list []func(context.Context)
}

func newErrands() *errands { return &errands{wake: make(chan struct{}, 1)} }

// add never blocks.
func (e *errands) add(work func(context.Context)) {
	e.mu.Lock()
	e.list = append(e.list, work)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *errands) take() []func(context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.list
	e.list = nil
	return list
}

// run does each errand in a goroutine of its own until ctx ends, and returns when
// all of them have returned.
func (e *errands) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case <-e.wake:
		case <-ctx.Done():
			return
		}
		for _, work := range e.take() {
			all.Go(func() { work(ctx) })
		}
	}
}
