package main

import (
	"log/slog"
	"runtime"

	"github.com/armordb/armordb/pooler/loop"
)

// newEngine drives sessions with event loops. Each is a thread that gives its processor
// away while it waits; one more for each lets it go on at once when clients' handshakes
// keep all of the others busy.
func newEngine(loops int, log *slog.Logger) (engine, error) {
	d, err := loop.New(loops, log)
	if err != nil {
		return engine{}, err
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + loops)
	return engine{driver: d, client: loop.Client, server: loop.Server, run: d.Run}, nil
}
