package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary records what stages do, in order.
type diary struct {
	mu    sync.Mutex // guards below
	lines []string
}

func (d *diary) add(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

// stage ends `takes` after it was asked to.
func (d *diary) stage(name string, takes time.Duration) stage {
	return stage{name, func(ctx context.Context) error {
		<-ctx.Done()
		d.add(name + " asked")
		time.Sleep(takes)
		d.add(name + " ended")
		return nil
	}}
}

func TestStagesEndInOppositeOrderEachAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := runStages(ctx, []stage{d.stage("stores", time.Second), d.stage("rpc", 2*time.Second), d.stage("edge", 3*time.Second)},
			time.Second, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"edge asked", "edge ended", "rpc asked", "rpc ended", "stores asked", "stores ended"}
		if !slices.Equal(d.lines, want) {
			t.Errorf("%v, want %v", d.lines, want)
		}
	})
}

func TestOneFailedStageEndsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		disk := errors.New("disk full")
		err := runStages(t.Context(), []stage{
			{"stores", func(context.Context) error { time.Sleep(time.Second); return disk }},
			d.stage("edge", 0),
		}, time.Second, slog.New(slog.DiscardHandler))
		if !errors.Is(err, disk) || !slices.Contains(d.lines, "edge ended") {
			t.Errorf("%v, %v", err, d.lines)
		}
	})
}

func TestHangingStageDoesNotHoldUpTheEndAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		err := runStages(t.Context(), []stage{
			{"stores", func(context.Context) error { return errors.New("disk full") }},
			{"edge", func(context.Context) error { <-release; return nil }},
		}, 5*time.Second, slog.New(slog.DiscardHandler))
		close(release)
		if err == nil || !strings.Contains(err.Error(), "edge: still not ended") || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%v", err)
		}
	})
}
