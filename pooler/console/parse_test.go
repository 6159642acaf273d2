package console

import (
	"strings"
	"testing"
)

func TestCommandsAreParsed(t *testing.T) {
	for sql, want := range map[string]command{
		"":                                 {},
		" ;; -- ping":                      {},
		"-- ping":                          {},
		"show pools":                       {verb: "show", arg: "pools"},
		"SHOW\n\tPools ; ":                 {verb: "show", arg: "Pools"},
		"PAUSE":                            {verb: "pause"},
		`PAUSE "my ""db"""`:                {verb: "pause", arg: `my "db"`},
		"pause check-out.v2;":              {verb: "pause", arg: "check-out.v2"},
		"KILL_CLIENT 17 -- him":            {verb: "kill_client", arg: "17"},
		"SET a = b":                        {verb: "set", arg: "a", value: "b"},
		"set \"a\" to 'it''s';":            {verb: "set", arg: "a", value: "it's"},
		"SET a='x;y'":                      {verb: "set", arg: "a", value: "x;y"},
		"PAUSE " + strings.Repeat("x", 63): {verb: "pause", arg: strings.Repeat("x", 63)},
	} {
		got, refused := parseCommand(sql)
		if want.text = quoted(sql); refused != nil || got != want {
			t.Errorf("%q: got %+v, %v", sql, got, refused)
		}
	}
	for _, sql := range []string{
		"PAUSE a b", "PAUSE a; PAUSE b", `PAUSE "a`, "PAUSE 'a'", "'PAUSE' a", "=", "SET a", "SET a b", "SET a = ", "SET a = b c",
		"SET = = =", "PAUSE a=b",
		"PAUSE é", "PAUSE\x00", "/* x */ PAUSE", "PAUSE " + strings.Repeat("x", 64),
	} {
		if got, refused := parseCommand(sql); refused == nil || refused.Code != stateSyntax {
			t.Errorf("%q: got %+v, %v", sql, got, refused)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	for _, sql := range []string{"SHOW POOLS;", `PAUSE "a""b"`, "SET a = 'b''c'", "-- x\nSHOW", "\"", "''"} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		cmd, refused := parseCommand(sql)
		if refused == nil && (len(cmd.verb) > maxWord || len(cmd.arg) > maxWord || len(cmd.value) > maxWord) {
			t.Fatalf("%q: a word is too long: %+v", sql, cmd)
		}
		if len(cmd.text) > 3*maxQuoted+len("…") || strings.Contains(cmd.text, "\x00") {
			t.Fatalf("%q is repeated as %q", sql, cmd.text)
		}
		if refused == nil && cmd.verb != "" && cmd.verb != "set" { // written out, it means the same
			again, refused := parseCommand(cmd.verb + ` "` + strings.ReplaceAll(cmd.arg, `"`, `""`) + `"`)
			if refused != nil || again.verb != cmd.verb || again.arg != cmd.arg {
				t.Fatalf("%q: %+v became %+v, %v", sql, cmd, again, refused)
			}
		}
	})
}
