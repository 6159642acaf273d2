package fsm

import (
	"iter"
	"runtime"
	"sync"
)

// partSize is how many rows are encoded or decoded at a time.
const partSize = 4096

// inParts works on parts beside each other, on all processors, and takes the results in
// the order of the parts. It ends with the first error that take returns, and with the
// last goroutine that it started.
func inParts[In, Out any](parts iter.Seq[In], work func(In) Out, take func(Out) error) error {
	turns := make(chan chan Out, runtime.GOMAXPROCS(0))
	stop := make(chan struct{})
	var running sync.WaitGroup
	defer running.Wait()
	defer close(stop)
	running.Go(func() {
		defer close(turns)
		for part := range parts {
			turn := make(chan Out, 1)
			select {
			case turns <- turn:
				running.Go(func() { turn <- work(part) })
			case <-stop:
				return
			}
		}
	})
	for turn := range turns {
		if err := take(<-turn); err != nil {
			return err
		}
	}
	return nil
}

// chunked walks all in slices of partSize.
func chunked[V any](all iter.Seq[V]) iter.Seq[[]V] {
	return func(yield func([]V) bool) {
		part := make([]V, 0, partSize)
		for v := range all {
			if part = append(part, v); len(part) < partSize {
				continue
			}
			if !yield(part) {
				return
			}
			part = make([]V, 0, partSize)
		}
		if len(part) > 0 {
			yield(part)
		}
	}
}
