package pooler_test

import (
	"fmt"
	"strings"

	"github.com/armordb/armordb/pooler/pgtest"
)

// program is one client's side of a conversation.
type program struct {
	startup []string // parameters of the startup packet, besides user and database
	blocks  []block
	split   uint64 // seeds where its writes are cut
}

// block is a stretch of a program that leaves neither a cycle of the extended protocol
// nor a COPY open, so that any of them can be left out.
type block []step

// step is a message, and what the client waits for when it has sent it.
type step struct {
	text  string // as people read it
	bytes []byte
	await await
	// ready: it is answered by ReadyForQuery, whatever went before it in its block.
	ready bool
	// replies: it is answered by one message that ends an answer, or by an error.
	replies bool
	// stays: its block makes no sense without it.
	stays bool
	mark  string // for untilMark
}

// await is what a client waits for before it sends more.
type await uint8

const (
	nothing     await = iota
	untilReady        // every ReadyForQuery that the steps so far are answered by
	untilMark         // the notice that holds the mark, and ReadyForQuery: wherever one is
	untilReply        // every answer of the cycle that is open, or an error, or that COPY data is due
	untilCancel       // that PostgreSQL runs it; then it is cancelled, and ReadyForQuery is due
)

func (p program) String() string {
	var b strings.Builder
	if len(p.startup) > 0 {
		fmt.Fprintf(&b, "startup %q\n", p.startup)
	}
	for _, block := range p.blocks {
		for _, s := range block {
			b.WriteString(s.String() + "\n")
		}
	}
	return b.String()
}

func (s step) String() string {
	text := s.text
	if len(text) > 200 {
		text = fmt.Sprintf("%s… (%d bytes)", text[:200], len(s.bytes))
	}
	switch s.await {
	case untilReady, untilMark:
		return text + "\n  wait for ReadyForQuery"
	case untilReply:
		return text + "\n  wait for the replies"
	case untilCancel:
		return text + "\n  cancel it, wait for ReadyForQuery"
	}
	return text
}

// steps is how many there are.
func (p program) steps() (n int) {
	for _, b := range p.blocks {
		n += len(b)
	}
	return n
}

func query(sql string) step {
	return step{text: "query " + sql, bytes: pgtest.Encode('Q', sql), ready: true}
}

func syncCycle() step {
	return step{text: "sync", bytes: pgtest.Encode('S'), ready: true, stays: true}
}

func flush() step { return step{text: "flush", bytes: pgtest.Encode('H')} }

func parse(name, sql string, types ...int32) step {
	parts := []any{name, sql, int16(len(types))}
	for _, t := range types {
		parts = append(parts, t)
	}
	return step{text: fmt.Sprintf("parse %q %s %v", name, sql, types), bytes: pgtest.Encode('P', parts...), replies: true}
}

// value is a parameter of a Bind; nil is NULL.
type value struct {
	bytes  []byte
	binary bool
}

func (v value) String() string {
	if v.bytes == nil {
		return "NULL"
	}
	if len(v.bytes) > 30 {
		return fmt.Sprintf("%q…", v.bytes[:30])
	}
	return fmt.Sprintf("%q", v.bytes)
}

func bind(portal, statement string, values []value, results ...int16) step {
	parts := []any{portal, statement, int16(len(values))}
	for _, v := range values {
		format := int16(0)
		if v.binary {
			format = 1
		}
		parts = append(parts, format)
	}
	parts = append(parts, int16(len(values)))
	for _, v := range values {
		size := int32(len(v.bytes))
		if v.bytes == nil {
			size = -1
		}
		parts = append(parts, size, v.bytes)
	}
	parts = append(parts, int16(len(results)))
	for _, f := range results {
		parts = append(parts, f)
	}
	return step{text: fmt.Sprintf("bind %q to %q with %v, results %v", portal, statement, values, results),
		bytes: pgtest.Encode('B', parts...), replies: true}
}

func describe(kind byte, name string) step {
	return step{text: fmt.Sprintf("describe %c %q", kind, name), bytes: pgtest.Encode('D', kind, name), replies: true}
}

func execute(portal string, rows int) step {
	return step{text: fmt.Sprintf("execute %q, %d rows", portal, rows), bytes: pgtest.Encode('E', portal, rows), replies: true}
}

func closing(kind byte, name string) step {
	return step{text: fmt.Sprintf("close %c %q", kind, name), bytes: pgtest.Encode('C', kind, name), replies: true}
}

func copyData(text string) step {
	return step{text: fmt.Sprintf("data %q", text), bytes: pgtest.Encode('d', []byte(text))}
}

func copyDone() step { return step{text: "done", bytes: pgtest.Encode('c'), stays: true} }

func copyFail(text string) step {
	return step{text: "fail " + text, bytes: pgtest.Encode('f', text), stays: true}
}

func call(function int32, arguments ...string) step {
	parts := []any{function, int16(0), int16(len(arguments))}
	for _, a := range arguments {
		parts = append(parts, int32(len(a)), []byte(a))
	}
	return step{text: fmt.Sprintf("call %d %q", function, arguments), bytes: pgtest.Encode('F', append(parts, int16(0))...), ready: true}
}

func (s step) waiting(a await) step {
	s.await = a
	return s
}

func (s step) fixed() step {
	s.stays = true
	return s
}

// mark is a query whose reply can be told from any other, also in a transaction that
// has failed: PostgreSQL gives notice of a name that is too long before it looks at
// anything else.
func mark(n int) step {
	name := fmt.Sprintf("mark_%d_", n)
	s := query("SELECT 1 AS " + name + strings.Repeat("x", 64))
	s.await, s.mark, s.stays = untilMark, name, true
	return s
}
