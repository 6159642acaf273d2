package backend

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openRegister(t testing.TB, path string) *Register {
	t.Helper()
	r, err := OpenRegister(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // may be closed
	return r
}

func entry(role string) Entry {
	return Entry{Pool: "production/orders", Host: "pg:5432", Network: "tcp", Address: "192.0.2.1:5432",
		Database: "orders", Role: role, Port: 4711}
}

// timeless is an entry as it is written.
func timeless(e Entry) Entry {
	e.Since = time.Time{}
	return e
}

// rolesLeft are the roles of what the next life finds.
func rolesLeft(t *testing.T, path string) string {
	t.Helper()
	var roles []string
	for _, e := range openRegister(t, path).Former() {
		roles = append(roles, e.Role)
	}
	return strings.Join(roles, " ")
}

// TestRegisterTellsTheNextLifeWhatWasLeftOpen, and all lives to come, until it is struck out.
func TestRegisterTellsTheNextLifeWhatWasLeftOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	r := openRegister(t, path)
	a, b, c := r.begin(entry("a")), r.begin(entry("b")), r.begin(entry("c"))
	b.PID, b.Secret = 7, 9
	r.loggedIn(b)
	r.Strike(a.ID)
	second := openRegister(t, path) // the first is killed
	if got := second.Former(); len(got) != 2 || timeless(got[0]) != b || timeless(got[1]) != c {
		t.Fatalf("the second life finds %+v", got)
	}
	d := second.begin(entry("d"))
	if d.ID <= c.ID {
		t.Errorf("number %d was given before", d.ID)
	}
	if got := rolesLeft(t, path); got != "b c d" {
		t.Errorf("the third life finds %q", got)
	}
	third := openRegister(t, path)
	for _, e := range []Entry{b, c, d} {
		third.Strike(e.ID)
	}
	third.Strike(d.ID)
	if got := rolesLeft(t, path); got != "" {
		t.Errorf("the fourth life finds %q", got)
	}
}

func TestRegisterStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	r := openRegister(t, path)
	left := r.begin(entry("left"))
	for range 10_000 {
		r.Strike(r.begin(entry("gone")).ID)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 2*compactFrom {
		t.Errorf("%v, %v", info.Size(), err)
	}
	if got := openRegister(t, path).Former(); len(got) != 1 || timeless(got[0]) != left {
		t.Errorf("the next life finds %+v", got)
	}
}

// TestDamagedLinesCostOnlyThemselves: a machine that lost its power may leave half a line, or zeros.
func TestDamagedLinesCostOnlyThemselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	r := openRegister(t, path)
	r.begin(entry("a"))
	if _, err := r.file.WriteString("\x00\x00\x00\n{\"id\":0}\n" + strings.Repeat("x", 3*maxRegisterLine) + "\n"); err != nil {
		t.Fatal(err)
	}
	r.begin(entry("b"))
	if _, err := r.file.WriteString(`{"id":99,"pool":"p`); err != nil {
		t.Fatal(err)
	}
	if got := rolesLeft(t, path); got != "a b" {
		t.Errorf("the next life finds %q", got)
	}
}

// TestADiskThatIsFullEndsNoService, and is said once.
func TestADiskThatIsFullEndsNoService(t *testing.T) {
	var log bytes.Buffer
	r, err := OpenRegister(filepath.Join(t.TempDir(), "connections"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.file.Close(); err != nil {
		t.Fatal(err)
	}
	e := r.begin(entry("a"))
	r.loggedIn(e)
	r.Strike(e.ID)
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}

// written is what the file says while a life has it open.
func written(t *testing.T, path string) []Entry {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, damaged, err := parseRegister(bytes.NewReader(b))
	if err != nil || damaged > 0 {
		t.Fatalf("%d damaged lines, %v", damaged, err)
	}
	return all
}

// TestEveryConnectionIsWrittenDownUntilItsEnd was read.
func TestEveryConnectionIsWrittenDownUntilItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	onStage(t, func(t *testing.T, s *stage) {
		s.cfg.Register, s.target.Pool = openRegister(t, path), "production/orders"
		c := s.open()
		got := written(t, path)
		if len(got) != 1 || got[0].PID != c.PID() || got[0].Secret != c.secret || got[0].Role != role || got[0].Host != "/memory:5432" {
			t.Errorf("written down: %+v", got)
		}
		c.End(context.Background())
		if left := written(t, path); len(left) != 0 {
			t.Errorf("after the end: %+v", left)
		}
	})
}

// TestOnlyAnotherBackendIsNone: what has the pid of a former life's backend counts as it, unless
// it certainly is another.
func TestOnlyAnotherBackendIsNone(t *testing.T) {
	e := Entry{Role: "orders", PID: 7, Port: 4711}
	for name, c := range map[string]struct {
		row []string
		own int
		age time.Duration
		not bool
	}{
		"itself":                             {[]string{"7", "orders", "client backend", "4711", "60", "5"}, 5, time.Minute, false},
		"another port of ours":               {[]string{"7", "orders", "client backend", "4712", "60", "5"}, 5, time.Minute, true},
		"behind a proxy, and old":            {[]string{"7", "orders", "client backend", "888", "90", "999"}, 5, time.Minute, false},
		"behind a proxy, and of this life":   {[]string{"7", "orders", "client backend", "888", "10", "999"}, 5, time.Minute, true},
		"a socket, and old":                  {[]string{"7", "orders", "client backend", "-1", "90", "0"}, 0, time.Minute, false},
		"a socket, and of this life":         {[]string{"7", "orders", "client backend", "-1", "10", "0"}, 0, time.Minute, true},
		"a clock that was set back":          {[]string{"7", "orders", "client backend", "-1", "-3600", "0"}, 0, time.Minute, false},
		"another role":                       {[]string{"7", "billing", "", "0", "0", "5"}, 5, time.Minute, true},
		"a parallel worker":                  {[]string{"7", "orders", "parallel worker", "0", "60", "5"}, 5, time.Minute, true},
		"what a role without rights may see": {[]string{"7", "orders", "", "0", "0", "5"}, 5, time.Minute, false},
	} {
		if got := e.isNot(c.row, c.own, c.age); got != c.not {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func FuzzRegister(f *testing.F) {
	f.Add([]byte(`{"id":1,"pool":"p/o","host":"pg:5432","role":"r"}` + "\n" + `{"id":1,"gone":true}` + "\n"))
	f.Add([]byte("\x00\n{\"id\":3"))
	f.Fuzz(func(t *testing.T, b []byte) {
		left, _, err := parseRegister(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if e.ID == 0 || e.Pool == "" || e.Gone {
				t.Errorf("entry %+v", e)
			}
		}
	})
}

func BenchmarkRegister(b *testing.B) {
	r := openRegister(b, filepath.Join(b.TempDir(), "connections"))
	for b.Loop() {
		e := r.begin(entry("orders"))
		r.loggedIn(e)
		r.Strike(e.ID)
	}
}
