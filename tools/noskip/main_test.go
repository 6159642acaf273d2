package main

import (
	"slices"
	"strings"
	"testing"
)

// Events as go test -json writes them, less what we do not look at.
const (
	passing = `{"Action":"run","Package":"a","Test":"TestIt"}
{"Action":"output","Package":"a","Test":"TestIt","Output":"=== RUN   TestIt\n"}
{"Action":"output","Package":"a","Test":"TestIt","Output":"    a_test.go:1: talk\n"}
{"Action":"pass","Package":"a","Test":"TestIt"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.1s\n"}
{"Action":"pass","Package":"a"}
`
	failing = `{"Action":"output","Package":"b","Test":"TestIt","Output":"    b_test.go:1: wrong\n"}
{"Action":"output","Package":"b","Test":"TestIt","Output":"--- FAIL: TestIt (0.00s)\n"}
{"Action":"fail","Package":"b","Test":"TestIt"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t0.1s\n"}
{"Action":"fail","Package":"b"}
`
	skipping = `{"Action":"output","Package":"c","Test":"TestIt/part","Output":"    c_test.go:1: no root\n"}
{"Action":"output","Package":"c","Test":"TestIt/part","Output":"    --- SKIP: TestIt/part (0.00s)\n"}
{"Action":"skip","Package":"c","Test":"TestIt/part"}
{"Action":"pass","Package":"c","Test":"TestIt"}
{"Action":"output","Package":"c","Output":"ok  \tc\t0.1s\n"}
{"Action":"pass","Package":"c"}
`
)

func reported(t *testing.T, events string) (string, []string) {
	t.Helper()
	var out strings.Builder
	r := &report{out: &out, packages: map[string][]line{}}
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	return out.String(), r.skipped
}

func TestOutputIsThatOfGoTest(t *testing.T) {
	out, skipped := reported(t, passing+failing)
	want := "ok  \ta\t0.1s\n    b_test.go:1: wrong\n--- FAIL: TestIt (0.00s)\nFAIL\tb\t0.1s\n"
	if out != want || skipped != nil {
		t.Errorf("got %q and %q, want %q", out, skipped, want)
	}
}

func TestSkippedTestIsNamedWithItsReason(t *testing.T) {
	_, skipped := reported(t, passing+skipping)
	if want := []string{"c TestIt/part: c_test.go:1: no root"}; !slices.Equal(skipped, want) {
		t.Errorf("got %q, want %q", skipped, want)
	}
}

func TestPackageWithoutTestsIsNoSkippedTest(t *testing.T) {
	out, skipped := reported(t, `{"Action":"output","Package":"d","Output":"?   \td\t[no test files]\n"}
{"Action":"skip","Package":"d"}
`)
	if out != "?   \td\t[no test files]\n" || skipped != nil {
		t.Errorf("got %q and %q", out, skipped)
	}
}
