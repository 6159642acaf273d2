package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

func TestExitCodes(t *testing.T) {
	interrupted, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		code int
		word string
	}{
		{"something unexpected", nil, errors.New("disk full"), exitFailed, "failed"},
		{"a mistake in the command line", nil, &fault.Usage{Err: errors.New("no")}, exitUsage, "usage"},
		{"usage, whatever is inside", nil, &fault.Usage{Err: armor.ErrNotFound}, exitUsage, "usage"},
		{"an invalid request", nil, armor.ErrInvalid, exitUsage, "invalid"},
		{"a check that found something", nil, &verdict{exitProblems, "no"}, exitProblems, "problems"},
		{"not permitted", nil, armor.ErrDenied, exitDenied, "denied"},
		{"absent", nil, armor.ErrNotFound, exitNotFound, "not_found"},
		{"there already", nil, armor.ErrConflict, exitConflict, "conflict"},
		{"no quorum", nil, armor.ErrNoQuorum, exitUnavailable, "no_quorum"},
		{"no leader", nil, &armor.NotLeaderError{}, exitUnavailable, "no_quorum"},
		{"no node", nil, armor.ErrUnavailable, exitUnavailable, "unavailable"},
		{"no answer in time", nil, context.DeadlineExceeded, exitUnavailable, "timeout"},
		{"not everywhere", nil, armor.ErrUnconfirmed, exitUnconfirmed, "unconfirmed"},
		{"nobody can tell", nil, armor.ErrUncertain, exitUncertain, "uncertain"},
		{"uncertain wins over unavailable", nil, errors.Join(armor.ErrUnavailable, armor.ErrUncertain), exitUncertain, "uncertain"},
		{"committed wins over unavailable", nil, errors.Join(armor.ErrUnavailable, armor.ErrUnconfirmed), exitUnconfirmed, "unconfirmed"},
		{"interrupted, and uncertain for it", interrupted, errors.Join(armor.ErrUncertain, context.Canceled), exitInterrupted, "interrupted"},
		{"failed before the interrupt", interrupted, armor.ErrDenied, exitDenied, "denied"},
		{"a call cancelled by nobody", nil, context.Canceled, exitFailed, "failed"},
		{"too old", nil, armor.ErrExpired, exitFailed, "expired"},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		code, word := classify(ctx, fmt.Errorf("do it: %w", c.err))
		if code != c.code || word != c.word {
			t.Errorf("%s: exit %d %q, want %d %q", c.name, code, word, c.code, c.word)
		}
	}
}

func TestTimeoutOfAChangeIsUncertainUnlessItIsKnown(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{context.DeadlineExceeded, exitUncertain},
		{errors.Join(armor.ErrNoQuorum, context.DeadlineExceeded), exitUnavailable},
		{errors.Join(armor.ErrUnconfirmed, context.DeadlineExceeded), exitUnconfirmed},
		{armor.ErrDenied, exitDenied},
	} {
		if code, _ := classify(context.Background(), settled(c.err)); code != c.code {
			t.Errorf("%v: exit %d, want %d", c.err, code, c.code)
		}
	}
}

func TestErrorIsOneObjectForProgramsAndTwoLinesForPeople(t *testing.T) {
	err := &requested{err: fmt.Errorf("%w: lost", armor.ErrUncertain), id: "0123456789abcdef0123456789abcdef"}
	a, out, errOut := testApp(t)
	a.globals.output = formatJSON
	if code := a.report(context.Background(), "armorctl revoke", err); code != exitUncertain {
		t.Errorf("exit %d", code)
	}
	want := `{"error":{"code":"uncertain","message":"outcome unknown: lost","hint":"run the same command with --request-id 0123456789abcdef0123456789abcdef: it is done at most once","requestId":"0123456789abcdef0123456789abcdef"}}` + "\n"
	if errOut.String() != want || out.Len() != 0 {
		t.Errorf("stderr %s\nstdout %s", errOut, out)
	}
	a, _, errOut = testApp(t)
	a.report(context.Background(), "armorctl revoke", err)
	if lines := strings.Split(strings.TrimSpace(errOut.String()), "\n"); len(lines) != 2 ||
		lines[0] != "armorctl: outcome unknown: lost" || !strings.HasPrefix(lines[1], "hint: run the same command") {
		t.Errorf("stderr %q", errOut)
	}
}

func TestOutputIsKnownBeforeTheCommandLineIsUnderstood(t *testing.T) {
	for line, want := range map[string]format{
		"status":                      formatTable,
		"status -o json":              formatJSON,
		"status -ojson":               formatJSON,
		"status -o=json":              formatJSON,
		"status --output json":        formatJSON,
		"status --output=yaml":        formatYAML,
		"status -o":                   formatTable,
		"status -o nonsense":          formatTable,
		"connect x -- -o json":        formatTable,
		"-o json status --no-such -q": formatJSON,
	} {
		a, _, _ := testApp(t)
		if got := a.guessFormat(strings.Fields(line)); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
	a, _, _ := testApp(t)
	a.env = func(string) string { return "json" }
	if got := a.guessFormat([]string{"status", "-o", "wide"}); got != formatWide {
		t.Errorf("the flag does not go before ARMOR_OUTPUT: %s", got)
	}
}
