package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/cmd/armorctl/fault"
)

const day = 24 * time.Hour

// parsePositive reads a duration that must be above zero: Go's syntax, and days
// before it ("30d", "1d12h"). flag names it in the error.
func parsePositive(flag, s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err != nil || d <= 0 {
		return 0, &fault.Usage{Err: fmt.Errorf("%s %q is not a duration such as 30d, 12h or 90s", flag, s)}
	}
	return d, nil
}

func parseDuration(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		return time.ParseDuration(s)
	}
	n, err := strconv.Atoi(days)
	if err != nil || n < 0 || n > 100*366 {
		return 0, fmt.Errorf("%q does not begin with a number of days", s)
	}
	d := time.Duration(n) * day
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}

// span shows a duration to people with its largest unit: "3d", "5h", "42s".
func span(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d >= time.Second:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d/time.Millisecond)
}

// relative shows an instant to people as seen from now: "5m ago", "in 30d".
func relative(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return ""
	case d >= 0:
		return "in " + span(d)
	default:
		return span(-d) + " ago"
	}
}

// stampAfter is stamp for an instant from which on something holds: what it shows is never
// before it.
func stampAfter(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t.Add(time.Second - time.Nanosecond))
}

// stamp shows an instant to programs; the zero time is nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// milliseconds shows a measured duration to programs.
func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
