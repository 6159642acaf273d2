package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// The exit codes, which docs/armorctl.md promises to scripts.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2  // command line, file or request is wrong, or a prompt had nobody to ask
	exitProblems    = 3  // a check did its work and found problems
	exitDenied      = 4  // not permitted
	exitNotFound    = 5  // no such object
	exitConflict    = 6  // exists already, or changed since it was read
	exitUnavailable = 7  // no node or no quorum: nothing has changed
	exitUnconfirmed = 8  // committed, not confirmed everywhere
	exitUncertain   = 9  // may or may not have happened: retry with the same request id
	exitChanges     = 10 // plan --exit-code: there are changes
	exitWillStop    = 11 // doctor: something will stop in time
	exitInterrupted = 130
)

// verdict ends a command that did its work with an exit code that is not 0. The
// answer is on stdout already; text goes to stderr.
type verdict struct {
	code int
	text string
}

func (v *verdict) Error() string { return v.text }

// requested ties an error to the request that it is the outcome of.
type requested struct {
	err error
	id  armor.RequestID
}

func (r *requested) Error() string { return r.err.Error() }
func (r *requested) Unwrap() error { return r.err }

// kinds are the failures that have a code of their own, the strongest first: an
// error that is both uncertain and unavailable is uncertain.
var kinds = []struct {
	err  error
	code int
	name string
}{
	{armor.ErrUncertain, exitUncertain, "uncertain"},
	{armor.ErrUnconfirmed, exitUnconfirmed, "unconfirmed"},
	{armor.ErrNoQuorum, exitUnavailable, "no_quorum"},
	{armor.ErrNotLeader, exitUnavailable, "no_quorum"},
	{armor.ErrUnavailable, exitUnavailable, "unavailable"},
	{armor.ErrDenied, exitDenied, "denied"},
	{armor.ErrNotFound, exitNotFound, "not_found"},
	{armor.ErrConflict, exitConflict, "conflict"},
	{armor.ErrInvalid, exitUsage, "invalid"},
	{armor.ErrExpired, exitFailed, "expired"},
	{armor.ErrRevoked, exitFailed, "revoked"},
	{armor.ErrExhausted, exitFailed, "exhausted"},
	{context.DeadlineExceeded, exitUnavailable, "timeout"},
}

// classify returns an error's exit code and its stable name.
func classify(ctx context.Context, err error) (code int, name string) {
	if usage := (*fault.Usage)(nil); errors.As(err, &usage) {
		return exitUsage, "usage"
	}
	if v := (*verdict)(nil); errors.As(err, &v) {
		return v.code, verdictNames[v.code]
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted, "interrupted"
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.code, k.name
		}
	}
	return exitFailed, "failed"
}

var verdictNames = map[int]string{
	exitProblems: "problems", exitUnavailable: "no_quorum", exitUnconfirmed: "unconfirmed", exitChanges: "changes",
	exitWillStop: "will_stop",
}

// report shows an error of a command on stderr and returns the exit code.
func (a *app) report(ctx context.Context, command string, err error) int {
	if err == nil {
		return exitDone
	}
	code, name := classify(ctx, err)
	if name == "changes" {
		return code // the plan on stdout has said it all
	}
	f := failure{Code: name, Message: oneLine(err.Error())}
	if h := (*fault.Hint)(nil); errors.As(err, &h) {
		f.Hint = h.Text
	}
	if r := (*requested)(nil); errors.As(err, &r) {
		f.RequestID = r.id
	}
	if f.Hint == "" {
		f.Hint = standardHint(f, command)
	}
	f.write(a.errOut, a.globals.output)
	return code
}

// failure is an error as -o json shows it.
type failure struct {
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	Hint      string          `json:"hint,omitempty"`
	RequestID armor.RequestID `json:"requestId,omitempty"`
}

func (f failure) write(w io.Writer, as format) {
	if as == formatJSON {
		json.NewEncoder(w).Encode(struct {
			Error failure `json:"error"`
		}{f})
		return
	}
	fmt.Fprintf(w, "armorctl: %s\n", f.Message)
	if f.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", f.Hint)
	}
}

// standardHint is what can be done about a kind of failure whatever the command was.
func standardHint(f failure, command string) string {
	switch {
	case f.RequestID != "" && (f.Code == "uncertain" || f.Code == "interrupted"):
		return fmt.Sprintf("run the same command with --request-id %s: it is done at most once", f.RequestID)
	case f.Code == "usage":
		return command + " --help"
	case f.Code == "unavailable" || f.Code == "no_quorum" || f.Code == "timeout":
		return "armorctl status; a longer --timeout waits for an election"
	case f.Code == "expired":
		return "armorctl status: log time in the future is taken back by armorctl cluster mend-time; else compare this machine's clock"
	}
	return ""
}

// oneLine keeps an error's lines but for their ends, where a library has put a full
// stop or a newline.
func oneLine(s string) string {
	return strings.TrimRight(s, ".\n ")
}
