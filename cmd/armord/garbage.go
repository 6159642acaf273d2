package main

import (
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// Queries make no garbage; handshakes do, some 70 kB each, and idle clients keep memory
// for a long time. So a large heap is collected twice as often as is usual, and a small one is
// left alone until there is something to collect: with the usual percentage a node with
// few clients would collect after every sixty handshakes.
const (
	garbagePercent = 50       // of what lives, on a large heap
	garbageAtLeast = 16 << 20 // bytes between two collections, on a small one
	garbageLook    = time.Second
)

// boundGarbage sets how often garbage is collected, now and as the heap grows, until
// stop is closed. GOGC in the environment comes first.
func boundGarbage(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(garbagePercent)
	look, set := time.NewTicker(garbageLook), garbagePercent
	defer look.Stop()
	for {
		select {
		case <-stop:
			return
		case <-look.C:
		}
		if percent := percentFor(liveHeap()); percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
	}
}

// percentFor returns the percentage for a heap of which so many bytes live, in steps, so
// that it seldom changes: each change stops the process for some microseconds.
func percentFor(live uint64) int {
	const step = 25
	if live == 0 {
		return garbagePercent
	}
	return max(garbagePercent, int(garbageAtLeast*100/live)/step*step)
}

// liveHeap is what the last collection has left, 0 before the first.
func liveHeap() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(sample)
	if sample[0].Value.Kind() != runtimemetrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
