package core

import (
	"crypto/sha256"

	"github.com/armordb/armordb/pooler/pgwire"
)

// A client decodes a statement's result as it was described, for as long as it keeps the
// statement. So what it was told is compared with what the server connection that it comes to
// has: when tables have changed in between, PostgreSQL itself would refuse to run the
// statement, once the client had described it (RevalidateCachedQuery). Recognised by digests,
// since PostgreSQL's words depend on lc_messages.

// description is a digest of what PostgreSQL says of a statement: its parameters' types, its
// columns' names and types.
type description [16]byte

// add takes the next message of the answer to a Describe.
func (d description) add(message []byte) description {
	digest := sha256.Sum256(append(d[:], message...))
	return description(digest[:16])
}

// errRevalidate is PostgreSQL's, of a statement that gives another result than it did.
var errRevalidate = &pgwire.Error{
	Severity: pgwire.SeverityError, Code: "0A000", Message: "cached plan must not change result type", Routine: "RevalidateCachedQuery",
}

// described notes a message of the answer to a Describe of a statement. fields is the part of
// it that a client relies on.
func (s *Session) described(fields []byte) {
	o := s.sv.owed.first()
	if o.kind != opDescribe && o.kind != opDescribeAhead || o.st == nil || mutant == DescriptionForgotten {
		return
	}
	o.said = o.said.add(fields)
}

// describedWhole notes that a Describe has been answered to its end.
func (s *Session) describedWhole(o op) {
	if o.st == nil {
		return
	}
	if node := s.sv.prepared.find(o.st.key); node != nil {
		node.told = o.said
	}
	if o.kind == opDescribe && o.name != nil {
		o.name.told = o.said
	}
}

// A fit is whether a server connection's copy of a statement gives what a client was told.
type fit uint8

const (
	fits    fit = iota
	unknown     // PostgreSQL was asked: the client's message has to wait
	changed
)

// inquiry is the statement whose description PostgreSQL is asked for on the server connection
// that is lent.
type inquiry struct {
	about *named
	anew  bool // it was prepared anew for that
}

// fit compares what the client was told of a statement with the copy that the server connection
// has. One of which nothing is known is described; one that differs is prepared and described
// anew, as it may only be old.
func (s *Session) fit(n *named, out *Output) fit {
	node := s.sv.prepared.find(n.st.key)
	if n.told == (description{}) || node == nil || node.told == n.told {
		s.inquiry = inquiry{}
		return fits
	}
	known, asked := node.told != (description{}), s.inquiry.about == n
	switch {
	case known && asked && s.inquiry.anew:
		s.inquiry = inquiry{}
		return changed
	case asked && !known:
		out.Server = Wait
		return unknown
	case known:
		node.stale = true
		s.ensure(n, out)
	}
	s.inquiry = inquiry{about: n, anew: known}
	name := s.sv.nameOf(n.st)
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendDescribeStatement(b, name) })
	s.sv.owed.push(op{kind: opDescribeAhead, st: n.st})
	out.ToServer.compose(pgwire.AppendFlush)
	out.Server = Wait
	return unknown
}

// refuseBind has PostgreSQL fail in the place of a Bind: of one whose result would be decoded
// wrongly, or that may not run.
func (s *Session) refuseBind(h pgwire.Header, b []byte, m marks, out *Output) int {
	out.ToServer.compose(func(b []byte) []byte { return append(pgwire.AppendBindHead(b, nil, refusedName, 6), 0, 0, 0, 0, 0, 0) })
	s.sv.owed.push(op{kind: opBind, marks: m})
	return s.drop(h, b)
}
