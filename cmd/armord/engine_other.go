//go:build !linux

package main

import (
	"context"
	"log/slog"

	"github.com/armordb/armordb/pooler/portable"
)

// newEngine drives sessions with goroutines.
func newEngine(int, *slog.Logger) (engine, error) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return nil }
	return engine{driver: portable.New(), run: wait}, nil
}
