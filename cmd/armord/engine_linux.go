package main

import (
	"log/slog"

	"github.com/armordb/armordb/pooler/loop"
)

// newEngine drives sessions with event loops.
func newEngine(loops int, log *slog.Logger) (engine, error) {
	d, err := loop.New(loops, log)
	if err != nil {
		return engine{}, err
	}
	return engine{driver: d, client: loop.Client, server: loop.Server, run: d.Run}, nil
}
