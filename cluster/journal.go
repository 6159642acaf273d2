package cluster

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// journal writes one line for each command that is applied here: who asked for what, and what
// became of it. It writes beside Apply, which must not wait for whoever reads the log.
type journal struct {
	log      *slog.Logger
	lines    chan committed
	lost     atomic.Int64
	replayed uint64 // entries up to here were in the log when the node started
}

// committed is an entry that was applied.
type committed struct {
	entry  *raft.Log
	result armor.Result
}

const (
	// journalLines is how many lines may wait to be written; more are counted and dropped.
	journalLines = 4096
	// maxObjects bounds what a line says of the objects of a command, in bytes.
	maxObjects = 512
)

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, lines: make(chan committed, journalLines)}
}

// note has a line written.
func (j *journal) note(entry *raft.Log, result armor.Result) {
	select {
	case j.lines <- committed{entry, result}:
	default:
		j.lost.Add(1)
	}
}

// write writes lines until ctx ends.
func (j *journal) write(ctx context.Context) {
	for {
		select {
		case c := <-j.lines:
			j.line(c)
		case <-ctx.Done():
			return
		}
	}
}

// drain writes the lines that are left. Nothing is applied any more.
func (j *journal) drain() {
	for {
		select {
		case c := <-j.lines:
			j.line(c)
		default:
			return
		}
	}
}

func (j *journal) line(c committed) {
	if lost := j.lost.Swap(0); lost > 0 {
		j.log.Warn("lines about changes were lost: the log is not read fast enough", armor.KeyCount, lost)
	}
	level, ctx := slog.LevelInfo, context.Background() // no request is being served
	if c.entry.Index <= j.replayed {
		level = slog.LevelDebug
	}
	if !j.log.Enabled(ctx, level) {
		return
	}
	r, _, err := fsm.Decode(c.entry.Data)
	if err != nil {
		return // it was applied, so this does not happen
	}
	message := "change committed"
	switch {
	case c.result.Repeated:
		message = "change repeated"
	case c.result.Err != nil:
		message = "change refused"
	}
	attrs := []any{
		armor.KeyPrincipal, r.Principal, armor.KeyMethod, r.Command.Kind(), armor.KeyObjects, armor.Objects(r.Command, maxObjects),
		armor.KeyRevision, c.entry.Index, armor.KeyTerm, c.entry.Term, armor.KeyRequest, string(r.ID),
	}
	if c.result.Err != nil {
		attrs = append(attrs, armor.KeyErr, c.result.Err)
	}
	j.log.Log(ctx, level, message, attrs...)
}
