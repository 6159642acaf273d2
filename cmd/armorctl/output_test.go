package main

import (
	"strings"
	"testing"
	"time"
)

func sample() answer {
	t := table{columns: []string{"name", "state"}, wide: []string{"key"}}
	t.row("one", "valid", "k1")
	t.row("two\x1b[31m\nred", "", "k2")
	return answer{data: []map[string]any{{"name": "<one>", "size": 1}},
		tables: []table{facts("head", [2]string{"a", "1"}, [2]string{"b", ""}), t}}
}

func TestFormats(t *testing.T) {
	for as, want := range map[format]string{
		formatTable: "head\na:  1\n\nNAME          STATE\none           valid\ntwo [31m red  -\n",
		formatWide:  "head\na:  1\n\nNAME          STATE  KEY\none           valid  k1\ntwo [31m red  -      k2\n",
		formatJSON:  "[\n  {\n    \"name\": \"<one>\",\n    \"size\": 1\n  }\n]\n",
		formatYAML:  "- name: <one>\n  size: 1\n",
	} {
		a, out, errOut := testApp(t)
		a.globals.output = as
		if err := a.show(sample()); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s:\n%q, want\n%q", as, out, want)
		}
		if errOut.Len() != 0 {
			t.Errorf("%s wrote to stderr: %s", as, errOut)
		}
	}
}

func TestEmptyTableIsSaidOnStderr(t *testing.T) {
	a, out, errOut := testApp(t)
	if err := a.show(answer{data: []string{}, tables: []table{{columns: []string{"x"}, empty: "nothing here"}}}); err != nil {
		t.Fatal(err)
	}
	if out.Len() != 0 || errOut.String() != "nothing here\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
}

func TestDocumentsBecomeAJSONList(t *testing.T) {
	a, out, _ := testApp(t)
	a.globals.output = formatJSON
	if err := a.showDocuments([]byte("kind: A\n---\nkind: B\n")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(out.String()), ""); got != `[{"kind":"A"},{"kind":"B"}]` {
		t.Error(got)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0d5m": 5 * time.Minute,
	} {
		if got, err := parsePositive("--x", text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "0d", "0s", "-5m", "1.5d", "5", "1d-48h", "99999999d", "dd"} {
		if got, err := parsePositive("--x", text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestInstantsForPeople(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		30 * day: "in 30d", -90 * time.Second: "90s ago", -5 * time.Minute: "5m ago", -3 * time.Hour: "3h ago",
		0: "in 0ms", -40 * day: "40d ago", 47 * time.Hour: "in 47h",
	} {
		if got := relative(now.Add(d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if relative(time.Time{}, now) != "" || stamp(time.Time{}) != "" {
		t.Error("the zero time is shown")
	}
	if got := stamp(now.In(time.FixedZone("x", 3600))); got != "2026-01-02T03:04:05Z" {
		t.Errorf("programs are shown %s", got)
	}
}

func TestFenceInstantIsShownNoEarlierThanItHolds(t *testing.T) {
	for _, fraction := range []time.Duration{0, 1, 430 * time.Millisecond, time.Second - 1} {
		until := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).Add(fraction)
		shown, err := time.Parse(time.RFC3339, stampAfter(until))
		if err != nil || shown.Before(until) || shown.Sub(until) >= time.Second {
			t.Errorf("%s is shown as %s (%v)", until, shown, err)
		}
	}
}
