package cluster

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
)

// libraryLog lets hashicorp's libraries write to our log. They word their messages
// themselves, so each becomes a line of ours that has theirs inside.
type libraryLog struct {
	log   *slog.Logger
	name  string
	args  []any
	limit *rate.Limiter // of lines; nil: none
	damp  *damper       // of complaints of a peer; nil: none
}

func newLibraryLog(l *slog.Logger, name string) hclog.Logger {
	return &libraryLog{log: l, name: name}
}

// newDampedLog is for Raft, which goes on about a peer that is dead.
func newDampedLog(l *slog.Logger, name string, every bool) hclog.Logger {
	return &libraryLog{log: l, name: name, damp: &damper{peers: map[string]*complaints{}, every: every}}
}

// newLimitedLog is for a library that has a line for whatever a stranger sends.
func newLimitedLog(l *slog.Logger, name string, perSecond int) hclog.Logger {
	return &libraryLog{log: l, name: name, limit: rate.NewLimiter(rate.Limit(perSecond), 10*perSecond)}
}

func (l *libraryLog) write(level slog.Level, msg string, args []any) {
	ctx := context.Background() // no request is being served: libraries log on their own account
	if !l.log.Enabled(ctx, level) || l.limit != nil && !l.limit.Allow() {
		return
	}
	detail := append(append([]any{slog.String("message", msg)}, l.args...), args...)
	attrs := []any{slog.Group("library", detail...)}
	if l.damp != nil && level >= slog.LevelWarn {
		held, ok := l.damp.passes(msg, args)
		if !ok {
			return
		}
		if held > 0 {
			attrs = append(attrs, slog.Int(armor.KeyCount, held)) // lines of this peer that were held back
		}
	}
	l.log.Log(ctx, level, l.name, attrs...)
}

// Log maps hclog's levels; what Raft calls info is routine and goes to debug.
func (l *libraryLog) Log(level hclog.Level, msg string, args ...any) {
	switch {
	case level >= hclog.Error:
		l.write(slog.LevelError, msg, args)
	case level >= hclog.Warn:
		l.write(slog.LevelWarn, msg, args)
	default:
		l.write(slog.LevelDebug, msg, args)
	}
}

func (l *libraryLog) Trace(msg string, args ...any)  { l.Log(hclog.Trace, msg, args...) }
func (l *libraryLog) Debug(msg string, args ...any)  { l.Log(hclog.Debug, msg, args...) }
func (l *libraryLog) Info(msg string, args ...any)   { l.Log(hclog.Info, msg, args...) }
func (l *libraryLog) Warn(msg string, args ...any)   { l.Log(hclog.Warn, msg, args...) }
func (l *libraryLog) Error(msg string, args ...any)  { l.Log(hclog.Error, msg, args...) }
func (l *libraryLog) IsTrace() bool                  { return false }
func (l *libraryLog) IsDebug() bool                  { return true }
func (l *libraryLog) IsInfo() bool                   { return true }
func (l *libraryLog) IsWarn() bool                   { return true }
func (l *libraryLog) IsError() bool                  { return true }
func (l *libraryLog) ImpliedArgs() []any             { return l.args }
func (l *libraryLog) Name() string                   { return l.name }
func (l *libraryLog) Named(string) hclog.Logger      { return l }
func (l *libraryLog) ResetNamed(string) hclog.Logger { return l }
func (l *libraryLog) SetLevel(hclog.Level)           {}
func (l *libraryLog) GetLevel() hclog.Level          { return hclog.Debug }
func (l *libraryLog) With(args ...any) hclog.Logger {
	return &libraryLog{l.log, l.name, append(l.args[:len(l.args):len(l.args)], args...), l.limit, l.damp}
}
func (l *libraryLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l, "", 0)
}
func (l *libraryLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return l }

// Write takes lines of libraries that know only the standard logger.
func (l *libraryLog) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(line, []byte("[ERR]")) || bytes.Contains(line, []byte("[WARN]")) {
		level = slog.LevelWarn
	}
	l.write(level, string(bytes.TrimSpace(line)), nil)
	return len(line), nil
}
