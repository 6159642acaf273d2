package cluster

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the pair of clocks the promises rest on. Boot goes on while the machine
// sleeps and is never set; Wall may be wrong and may jump.
type Clock interface {
	// Boot is the time since some fixed instant before the process began.
	Boot() time.Duration
	// Wall is the time of day.
	Wall() time.Time
}

// bootClock reads CLOCK_BOOTTIME. Go's own monotonic clock stops in suspend, and a
// lease must not.
type bootClock struct{}

func (bootClock) Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("cluster: this kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

func (bootClock) Wall() time.Time { return time.Now().Round(0) }

// sleep waits for d, and reports whether ctx lasted as long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
