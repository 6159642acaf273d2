package core

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// The transcripts in testdata read like this: an input line, and below it, indented,
// what the core wished. Run with -rewrite to write what it does now; commit only what
// you understand.
//
//	client Q select 1           messages are separated by " ; "
//	  want
//	grant s1                    a server connection, kept by name
//	  > Q select 1              to the server
//	server C SELECT 1 ; Z I
//	  < C SELECT 1              to the client
//	  < Z I
//	  release
var rewrite = flag.Bool("rewrite", false, "write the transcripts as they come out now")

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want), 1<<30)
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("it now comes out as\n%s", got)
			}
			for _, size := range []int{1, 2, 3, 7, 64} {
				if again := play(t, string(want), size); again != got {
					t.Errorf("in pieces of %d bytes it comes out as\n%s", size, again)
				}
			}
		})
	}
}

// play runs a transcript's inputs, in pieces of at most size bytes, and returns the
// transcript with what came out.
func play(t *testing.T, transcript string, size int) string {
	var out strings.Builder
	var l *lab
	for line := range strings.Lines(transcript) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&out, line)
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case verb == "" || strings.HasPrefix(verb, "#"):
			continue
		case verb == "session":
			l = newLab(t, rest, size)
			continue
		}
		l.last = line
		l.do(verb, rest)
		for _, wish := range l.wishes() {
			fmt.Fprintln(&out, "  "+wish)
		}
	}
	return out.String()
}

// lab is a driver without I/O.
type lab struct {
	t       *testing.T
	s       *Session
	out     Output
	size    int
	servers map[string]*Server

	fromClient, fromServer []byte // not consumed yet
	toClient, toServer     []byte
	acts                   []string
	last                   string // input
}

func newLab(t *testing.T, mode string, size int) *lab {
	params := NewParams(map[string]string{"TimeZone": "UTC", "application_name": "", "client_encoding": "UTF8", "server_version": "15"})
	l := &lab{t: t, size: size, servers: map[string]*Server{}}
	words := strings.Fields(mode)
	cfg := Config{ID: 7, Mode: armor.PoolMode(words[0]), Params: params, Statements: NewStatements(1 << 20)}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		if name == "on_state" {
			cfg.OnState = armor.OnState(value)
			continue
		}
		if name == "room" {
			cfg.Pins = &room{left: len(value)}
			continue
		}
		if name == "keep" {
			cfg.KeepSettings = append(cfg.KeepSettings, value)
			continue
		}
		if name == "owner" {
			cfg.Owner = value
			continue
		}
		if name != "statement_timeout" {
			cfg.Params = cfg.Params.With(name, value)
		}
		cfg.Settings = cfg.Settings.with(strings.ToLower(name), value)
	}
	l.s = New(cfg)
	return l
}

// room is for as many pins as its word is long: room=xx.
type room struct {
	left int
	what string
}

func (r *room) Take() bool {
	ok := r.left > 0
	if ok {
		r.left--
	}
	return ok
}

func (r *room) Holds(what string) { r.what = what }
func (r *room) Give()             { r.left++ }

func (l *lab) do(verb, rest string) {
	switch verb {
	case "client":
		l.fromClient = append(l.fromClient, encodeAll(l.t, rest, encodeClient)...)
		l.pumpClient()
	case "server":
		l.fromServer = append(l.fromServer, encodeAll(l.t, rest, encodeServer)...)
		l.pumpServer()
	case "grant":
		if l.servers[rest] == nil {
			l.servers[rest] = NewServer(NewParams(map[string]string{"TimeZone": "UTC",
				"application_name": "", "client_encoding": "UTF8", "server_version": "15"}), Secret{})
		}
		l.s.Granted(l.servers[rest], &l.out)
		l.take()
		l.pumpClient()
	case "changed": // by another client
		f := strings.Fields(rest)
		sv := l.servers[f[0]]
		sv.setParam(f[1], f[2])
		sv.settings = sv.settings.with(strings.ToLower(f[1]), f[2])
	case "owned": // by another client
		name, owner, _ := strings.Cut(rest, " ")
		l.servers[name].owner, l.servers[name].user = owner, 99
	case "keeps": // so many statements prepared
		name, count, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(count)
		if err != nil {
			l.t.Fatal(err)
		}
		l.servers[name].KeepPrepared(n)
	case "reset":
		sv := l.servers[rest]
		sv.params = sv.base // as PostgreSQL reports it
		sv.WasReset()
	case "refuse", "cut":
		severity, text, _ := strings.Cut(rest, " ")
		e := &pgwire.Error{Severity: severity, Code: "57014", Message: text}
		if verb == "cut" {
			l.s.Cut(e, &l.out)
		} else {
			l.s.Refuse(e, &l.out)
		}
		l.take()
		l.pumpClient()
	case "lost":
		l.s.ServerLost(&l.out)
		l.take()
	case "gone":
		l.s.ClientGone(&l.out)
		l.take()
	default:
		l.t.Fatalf("no such input: %s", verb)
	}
}

// pumpClient feeds what the client has sent, byte by byte or all at once, as far as
// the core takes it.
func (l *lab) pumpClient() {
	l.fromClient = l.pump(l.fromClient, func(b []byte) int { return l.s.FromClient(b, &l.out) })
}

func (l *lab) pumpServer() {
	l.fromServer = l.pump(l.fromServer, func(b []byte) int {
		if l.s.Server() == nil {
			l.t.Fatalf("bytes from a server that is not lent: %q, after %q", b, l.last)
		}
		return l.s.FromServer(b, &l.out)
	})
	if !l.s.over {
		l.pumpClient() // after Wait
	}
}

func (l *lab) pump(b []byte, feed func([]byte) int) []byte {
	for seen := 0; len(b) > 0 && !l.s.over; {
		seen = min(seen+l.size, len(b))
		piece := bytes.Clone(b[:seen])
		n := feed(piece)
		wish := l.out.Server
		l.take()
		clear(piece) // what aliased it is no longer valid
		b = b[n:]
		seen -= n
		if wish == Want || wish == Wait || seen == len(b) && n == 0 {
			break
		}
	}
	return b
}

// take does what the core wished after one event.
func (l *lab) take() {
	l.toServer = l.out.ToServer.AppendTo(l.toServer)
	l.toClient = l.out.ToClient.AppendTo(l.toClient)
	switch l.out.Server {
	case Want:
		l.act("want")
	case Release:
		l.act("release")
	case Discard:
		l.act("discard")
	case Retry:
		l.act("retry")
		l.fromClient = append(bytes.Clone(l.out.Again), l.fromClient...)
	case Ask:
		l.s.Ask(&l.out)
		l.toServer = l.out.ToServer.AppendTo(l.toServer)
	}
	switch l.out.Client {
	case Hangup:
		l.act("hangup")
	case Reset:
		l.act("reset")
	}
	for _, sv := range l.servers {
		if sv.dirty && l.out.Server == Release {
			l.act("dirty")
		}
	}
}

func (l *lab) act(what string) {
	if len(l.acts) == 0 || l.acts[len(l.acts)-1] != what {
		l.acts = append(l.acts, what)
	}
}

// wishes describes what came out since the last time.
func (l *lab) wishes() []string {
	var lines []string
	server, client := decodeAll(l.toServer), decodeAll(l.toClient)
	for _, m := range server {
		lines = append(lines, "> "+m)
	}
	for _, m := range client {
		lines = append(lines, "< "+m)
	}
	lines = append(lines, l.acts...)
	l.toServer, l.toClient, l.acts = nil, nil, nil
	return lines
}

// decodeAll describes messages; what is left at the end is half of one.
func decodeAll(b []byte) []string {
	var all []string
	for len(b) >= pgwire.HeaderSize {
		size := int(binary.BigEndian.Uint32(b[1:])) + 1
		if size > len(b) {
			break
		}
		all = append(all, strings.TrimSpace(string(b[0])+" "+printable(b[0], b[pgwire.HeaderSize:size])))
		b = b[size:]
	}
	if len(b) > 0 {
		all = append(all, fmt.Sprintf("%d bytes of %q", len(b), b[0]))
	}
	return all
}

// inShort are the parts of our own question.
var inShort = strings.NewReplacer(questionBegins, "ASK ", withoutTimeOut, "without time-out, ", settingsBegin, "settings (",
	settingsEnd, ") ", listed, "listed", askPins, "pins", "pg_catalog.current_setting", "value")

func printable(kind byte, body []byte) string {
	if kind == pgwire.ErrorResponse && len(body) > 10 || kind == pgwire.NoticeResponse {
		e := pgwire.ParseError(body)
		if e.Code != "" {
			return e.Severity + " " + e.Code + " " + e.Message
		}
	}
	text := strings.ReplaceAll(inShort.Replace(string(body)), "\x00", "|")
	if i := strings.Index(text, statementPrefix); i >= 0 && len(text) >= i+len(statementPrefix)+32 {
		text = text[:i+len(statementPrefix)+4] + "…" + text[i+len(statementPrefix)+32:]
	}
	return strings.TrimRight(text, "|")
}

func encodeAll(t testing.TB, line string, encode func(kind byte, rest string) []byte) []byte {
	var b []byte
	for m := range strings.SplitSeq(line, " ; ") {
		if m == "" {
			t.Fatalf("no message in %q", line)
		}
		body := encode(m[0], strings.TrimPrefix(m[1:], " "))
		b = binary.BigEndian.AppendUint32(append(b, m[0]), uint32(len(body)+4))
		b = append(b, body...)
	}
	return b
}

// encodeClient makes a client message's body: P name|text, B portal|statement, D and
// C S|name, E portal, Q text.
func encodeClient(kind byte, rest string) []byte {
	body := []byte(strings.ReplaceAll(rest, "|", "\x00"))
	switch kind {
	case pgwire.Parse:
		return append(body, 0, 0, 0)
	case pgwire.Bind:
		return append(body, 0, 0, 0, 0, 0, 0, 0)
	case pgwire.Execute:
		return append(body, 0, 0, 0, 0, 0)
	case pgwire.Describe, pgwire.Close:
		return append([]byte(strings.Replace(string(body), "\x00", "", 1)), 0)
	case pgwire.Query, pgwire.CopyFail:
		return append(body, 0)
	}
	return body
}

// encodeServer makes a server message's body: E severity code text, S name|value, D @name|value
// or D @t|f|f|f|f of the answer to a question.
func encodeServer(kind byte, rest string) []byte {
	body := []byte(strings.ReplaceAll(rest, "|", "\x00"))
	switch kind {
	case pgwire.ErrorResponse:
		severity, more, _ := strings.Cut(rest, " ")
		code, text, _ := strings.Cut(more, " ")
		text = inServersWords(text)
		m := pgwire.AppendError(nil, &pgwire.Error{Severity: severity, Code: code, Message: text})
		return m[pgwire.HeaderSize:]
	case pgwire.CommandComplete, pgwire.ParameterStatus:
		return append(body, 0)
	case pgwire.DataRow:
		if row, ok := strings.CutPrefix(rest, "@"); ok {
			return encodeRow(strings.Split(row, "|"))
		}
	}
	return body
}

func encodeRow(row []string) []byte {
	if len(row) == 2 {
		row[1] = hex.EncodeToString([]byte(row[1]))
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(row)))
	for _, value := range row {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
	}
	return b
}

// inServersWords replaces armor(TEXT) by the server's name of that statement.
func inServersWords(s string) string {
	before, rest, ok := strings.Cut(s, "armor(")
	if !ok {
		return s
	}
	text, after, _ := strings.Cut(rest, ")")
	return before + Secret{}.name(keyOf(append([]byte(text), 0, 0, 0), [16]byte{})) + after
}
