package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/armordb/armordb/armor"
)

// stage is one part of a running node. run returns when ctx has ended and everything
// that it started has, too.
type stage struct {
	name string
	run  func(ctx context.Context) error
}

// runStages starts the stages in order. When ctx ends, or one of them ends by itself,
// it ends them in the opposite order, each only after the one before has returned, so
// that a stage may use all that come before it until its own end. After a failure a
// stage gets patience to end and is then left behind, since the process ends anyway.
func runStages(ctx context.Context, stages []stage, patience time.Duration, log *slog.Logger) error {
	running := make([]*runningStage, len(stages))
	broken := make(chan struct{}, len(stages))
	for i, s := range stages {
		running[i] = s.start(context.WithoutCancel(ctx), broken)
	}
	failed := false
	select {
	case <-ctx.Done():
	case <-broken:
		failed = ctx.Err() == nil
	}
	var errs []error
	for i := len(running) - 1; i >= 0; i-- {
		r := running[i]
		log.Debug("stopping", armor.KeyCause, r.name)
		if err := r.stop(failed, patience); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	if failed && len(errs) == 0 {
		errs = append(errs, errors.New("a part of the node ended by itself"))
	}
	return errors.Join(errs...)
}

type runningStage struct {
	stage
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // read after ended
}

func (s stage) start(ctx context.Context, broken chan<- struct{}) *runningStage {
	ctx, cancel := context.WithCancel(ctx)
	r := &runningStage{stage: s, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = s.run(ctx)
		broken <- struct{}{}
	}()
	return r
}

// stop ends the stage and waits for it; impatiently when something has failed.
func (r *runningStage) stop(failed bool, patience time.Duration) error {
	r.cancel()
	if !failed {
		<-r.ended
		return r.err
	}
	select {
	case <-r.ended:
		return r.err
	case <-time.After(patience):
		return fmt.Errorf("still not ended after %s", patience)
	}
}
