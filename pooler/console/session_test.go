package console

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// say runs a command and returns the answer, without ReadyForQuery: T, each D, and C, or
// E with its SQLSTATE.
func say(t *testing.T, c *pgtest.Client, sql string) (types string, last pgtest.Message) {
	t.Helper()
	if err := c.Send(pgtest.Encode('Q', sql)); err != nil {
		t.Fatal(err)
	}
	messages, err := c.Until('Z')
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages[:len(messages)-1] {
		types, last = types+string(m.Type), m
		if m.Type == 'E' {
			types += m.Fields()['C']
		}
	}
	return types, last
}

func TestEveryTableHasRowsOfItsColumns(t *testing.T) {
	f := newFake()
	s := newSession(newConsole(f), Visitor{Environment: "production", Role: armor.ConsoleStats})
	for name, table := range tables {
		for _, r := range table.rows(s) {
			if len(r) < len(table.columns)+len(table.legacy) {
				t.Errorf("SHOW %s has %d columns, and a row of %d values", name, len(table.columns)+len(table.legacy), len(r))
			}
		}
	}
}

func TestListsCountTheRowsOfTheOtherTables(t *testing.T) {
	s := newSession(newConsole(newFake()), Visitor{Environment: "production", Role: armor.ConsoleStats})
	for i, want := range map[int]int{0: len(s.showDatabases()), 1: len(s.showUsers()), 3: len(s.showPools()), 5: 7, 6: 3, 8: 6, 9: 4} {
		if got := s.showLists()[i]; got[1] != want {
			t.Errorf("%s: %d, want %d", got[0], got[1], want)
		}
	}
}

func TestCommandsMoveTheirOwnEnvironment(t *testing.T) {
	f := newFake()
	c, _, _ := visit(t, newConsole(f), armor.ConsoleAdmin)
	for _, command := range []string{"PAUSE", "RESUME", "RECONNECT orders", "DISABLE orders", "ENABLE orders", "KILL orders"} {
		if got, m := say(t, c, command); got != "C" {
			t.Fatalf("%s: %s %s", command, got, m)
		}
	}
	for _, p := range f.pools {
		told := p.has(armor.PausePool, armor.ResumePool, armor.ReconnectPool, armor.DisablePool, armor.EnablePool, armor.KillPool)
		if told != (p.cfg.Environment == "production") {
			t.Errorf("%s has obeyed %v", p.cfg.Key(), p.obeyed)
		}
	}
}

func TestWhoMayOnlyLookMovesNothing(t *testing.T) {
	f := newFake()
	c, _, _ := visit(t, newConsole(f), armor.ConsoleStats)
	for verb := range acts {
		if got, _ := say(t, c, verb+" orders"); got != "E42501" {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if len(f.pools[0].obeyed)+len(f.killed) > 0 {
		t.Errorf("obeyed %v, killed %v", f.pools[0].obeyed, f.killed)
	}
}

func TestVisitorsAreCountedInTheirEnvironment(t *testing.T) {
	console := newConsole(newFake())
	first, _, ended := visit(t, console, armor.ConsoleStats)
	second, _, _ := visit(t, console, armor.ConsoleStats)
	say(t, first, "SHOW STATE")
	say(t, second, "SHOW STATE")
	if here, elsewhere := console.visitorsOf("production"), console.visitorsOf("staging"); here != 2 || elsewhere != 0 {
		t.Errorf("%d here, %d elsewhere", here, elsewhere)
	}
	if err := first.Send(pgtest.Encode('X')); err != nil {
		t.Fatal(err)
	}
	<-ended
	if here := console.visitorsOf("production"); here != 1 {
		t.Errorf("%d after one has left", here)
	}
}

// TestCutIsConfirmedAndNothingFollowsIt: while the client is idle, and while it waits.
func TestCutIsConfirmedAndNothingFollowsIt(t *testing.T) {
	for name, command := range map[string]string{"idle": "SHOW STATE", "waiting": "PAUSE orders"} {
		f := newFake()
		if name == "waiting" {
			f.pools[0].closed = make(chan struct{}) // it stays open
		}
		c, s, ended := visit(t, newConsole(f), armor.ConsoleAdmin)
		if err := c.Send(pgtest.Encode('Q', command)); err != nil {
			t.Fatal(err)
		}
		if name == "idle" {
			if _, err := c.Until('Z'); err != nil {
				t.Fatal(err)
			}
		} else {
			for !f.pools[0].has(armor.PausePool) {
				time.Sleep(time.Millisecond)
			}
		}
		confirmed := make(chan struct{})
		s.cut(errors.New("the cause"), func() { close(confirmed) })
		<-confirmed
		<-ended
		m, err := c.Receive()
		if err != nil || m.Type != 'E' || m.Fields()['M'] != "the cause" {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		if m, err := c.Receive(); err == nil {
			t.Errorf("%s: %v after the cause", name, m)
		}
	}
}

func TestNothingIsWrittenToASessionThatIsNotLive(t *testing.T) {
	c, s, _ := visit(t, newConsole(newFake()), armor.ConsoleStats)
	say(t, c, "SHOW STATE")
	s.mu.Lock()
	s.cause = errors.New("revoked")
	s.mu.Unlock()
	if err := c.Send(pgtest.Encode('Q', "SHOW POOLS")); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Receive(); err != nil || m.Type != 'E' || m.Fields()['M'] != "revoked" {
		t.Errorf("%v, %v", m, err)
	}
}

// FuzzSession: whatever a client sends, the session ends when it leaves, and all that was
// written are whole messages.
func FuzzSession(f *testing.F) {
	f.Add(pgtest.Encode('Q', "SHOW POOLS"))
	f.Add(bytes.Join([][]byte{
		pgtest.Encode('P', "s", "SHOW LISTS", int16(0)), pgtest.Encode('B', "p", "s", int16(0), int16(0), int16(1), int16(1)),
		pgtest.Encode('D', byte('P'), "p"), pgtest.Encode('E', "p", 3),
		pgtest.Encode('E', "p", 0), pgtest.Encode('C', byte('P'), "p"), pgtest.Encode('S'),
	}, nil))
	f.Add([]byte("Q\x00\x00\x00\x03"))
	console := newConsole(newFake())
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := &script{Reader: bytes.NewReader(sent)}
		console.Serve(Visitor{Session: &fakeSession{}, Conn: conn, Environment: "production", Role: armor.ConsoleAdmin})
		for out := &conn.out; out.Len() > 0; {
			if m, err := pgtest.ReadMessage(out); err != nil || !strings.ContainsRune("TDCEIZNS12356tns", rune(m.Type)) {
				t.Fatal(fmt.Errorf("%q is answered by %v: %w", sent, m, err))
			}
		}
		if got := console.visitorsOf("production"); got != 0 {
			t.Fatalf("%d visitors are left", got)
		}
	})
}
