package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// newLogger makes the node's logger, whose level may be moved while it is used. The format
// was checked with the configuration.
func newLogger(c config.Log, level slog.Leveler, w io.Writer, node armor.NodeID) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		handler = slog.NewTextHandler(w, options)
	}
	return slog.New(handler).With(armor.KeyNode, string(node))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// levelOf reads a level that was checked with the configuration.
func levelOf(c config.Log) (level slog.Level) {
	level.UnmarshalText([]byte(c.Level))
	return level
}
