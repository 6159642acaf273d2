// Command noskip is `go test` for CI: it prints what go test prints, and fails when a
// test was skipped. A test that CI cannot run is one that nobody runs.
//
//	noskip -count=1 ./...
//
// Invariant: it exits with 0 only when every test of the packages has run and passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// allowed are the tests that no machine of ours can run, as "package test", with why.
var allowed = map[string]string{}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "noskip:", err)
		os.Exit(1)
	}
	r := &report{out: os.Stdout, packages: map[string][]line{}}
	read := r.read(events)
	err = cmd.Wait()
	if read != nil {
		fmt.Fprintln(os.Stderr, "noskip: read what go test says:", read)
	}
	for _, s := range r.skipped {
		fmt.Fprintln(os.Stderr, "noskip: skipped:", s)
	}
	if err != nil || read != nil || len(r.skipped) > 0 {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

// line is what a test has printed, or its package when test is empty.
type line struct{ test, text string }

// report turns events into go test's usual lines.
type report struct {
	out      io.Writer
	packages map[string][]line // what the packages that still run have printed
	skipped  []string
}

func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		text, err := lines.ReadString('\n')
		var e event
		switch {
		case text == "" && err == io.EOF:
			return nil
		case err != nil && err != io.EOF:
			return err
		case json.Unmarshal([]byte(text), &e) != nil:
			fmt.Fprint(r.out, text)
		default:
			r.take(e)
		}
	}
}

func (r *report) take(e event) {
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "output":
		r.packages[e.Package] = append(r.packages[e.Package], line{e.Test, e.Output})
	case e.Test != "" && e.Action == "skip":
		r.skip(e)
		r.forget(e)
	case e.Test != "" && e.Action == "pass":
		r.forget(e)
	case e.Test == "" && (e.Action == "pass" || e.Action == "skip" || e.Action == "fail"):
		r.end(e)
	}
}

// skip notes a test that was skipped, with the last that it said: why.
func (r *report) skip(e event) {
	name, why := e.Package+" "+e.Test, "it does not say why"
	if allowed[name] != "" {
		return
	}
	for _, l := range r.packages[e.Package] {
		if l.test == e.Test && !isMark(l.text) {
			why = strings.TrimSpace(l.text)
		}
	}
	r.skipped = append(r.skipped, name+": "+why)
}

// forget drops what a test that did not fail has printed.
func (r *report) forget(e event) {
	var kept []line
	for _, l := range r.packages[e.Package] {
		if l.test != e.Test {
			kept = append(kept, l)
		}
	}
	r.packages[e.Package] = kept
}

// end prints what go test would: of a package that passed its last line, of one that
// failed all that is left.
func (r *report) end(e event) {
	for _, l := range r.packages[e.Package] {
		verdict := strings.HasPrefix(l.text, "ok  ") || strings.HasPrefix(l.text, "?   ")
		if verdict || e.Action == "fail" && !isMark(l.text) {
			fmt.Fprint(r.out, l.text)
		}
	}
	delete(r.packages, e.Package)
}

// isMark reports whether a line only says where a test begins, waits or ends.
func isMark(text string) bool {
	text = strings.TrimSpace(text)
	return strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- SKIP")
}
