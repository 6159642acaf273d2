package main

import (
	"log/slog"
	"runtime"

	"github.com/armordb/armordb/pooler/loop"
)

// newEngine drives sessions with event loops. Each keeps a processor to itself while there
// is traffic, so Go is given one more for each: handshakes and the rest have as many as without
// them.
func newEngine(loops int, log *slog.Logger) (engine, error) {
	d, err := loop.New(loops, log)
	if err != nil {
		return engine{}, err
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + loops)
	return engine{driver: d, client: loop.Client, server: loop.Server, run: d.Run}, nil
}
