package main

import (
	"runtime"
	"testing"
)

func TestASmallHeapIsLeftAloneAndALargeOneIsNot(t *testing.T) {
	for live, want := range map[uint64]int{0: 50, 8 << 20: 200, 9 << 20: 175, 32 << 20: 50, 1 << 30: 50} {
		if got := percentFor(live); got != want {
			t.Errorf("%d MB live: %d percent, want %d", live>>20, got, want)
		}
	}
}

func TestLiveHeapIsKnownAfterACollection(t *testing.T) {
	runtime.GC()
	if liveHeap() == 0 {
		t.Error("the runtime does not tell how much lives: has the metric's name changed?")
	}
}
