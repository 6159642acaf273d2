package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// MaxName bounds the names of portals and statements that we look at, in bytes. A
// name that long is no name: PostgreSQL itself keeps 63 bytes of it.
const MaxName = maxSmall

// ParseFields splits the body of a Parse message into the statement's name and the
// tail: the query, a NUL, and the parameter types.
func ParseFields(body []byte) (name, tail []byte, err error) {
	name, tail, ok := cutString(body)
	if !ok || len(name) > MaxName {
		return nil, nil, malformed(Parse)
	}
	end := bytes.IndexByte(tail, 0)
	if end < 0 || len(tail) < end+3 {
		return nil, nil, malformed(Parse)
	}
	types := int(tail[end+1])<<8 | int(tail[end+2])
	if len(tail) != end+3+4*types {
		return nil, nil, malformed(Parse)
	}
	return name, tail, nil
}

// ParseText returns the query in the tail of a Parse message, without its NUL.
func ParseText(tail []byte) []byte {
	text, _, _ := cutString(tail)
	return text
}

// BindFields splits the part of a Bind's body that has arrived into the portal's
// name, the statement's name and what follows. ok is false when more of the body
// must arrive first, which is an error once more than two names could be there.
func BindFields(part []byte, whole bool) (portal, statement, tail []byte, ok bool, err error) {
	portal, rest, first := cutString(part)
	if first {
		statement, tail, ok = cutString(rest)
	}
	if !ok && (whole || len(part) > 2*MaxName) {
		return nil, nil, nil, false, malformed(Bind)
	}
	return portal, statement, tail, ok, nil
}

// TargetFields splits the body of a Describe or Close message: whether it is about
// a prepared statement (else a portal), and its name.
func TargetFields(kind byte, body []byte) (prepared bool, name []byte, err error) {
	if len(body) < 2 || body[0] != objPrepared && body[0] != objPortal || bytes.IndexByte(body, 0) != len(body)-1 {
		return false, nil, malformed(kind)
	}
	return body[0] == objPrepared, body[1 : len(body)-1], nil
}

// ExecutePortal returns the portal's name of an Execute message.
func ExecutePortal(body []byte) ([]byte, error) {
	portal, rest, ok := cutString(body)
	if !ok || len(rest) != 4 {
		return nil, malformed(Execute)
	}
	return portal, nil
}

// QueryText returns the text of a Query's whole body, without its NUL.
func QueryText(body []byte) ([]byte, error) {
	if i := bytes.IndexByte(body, 0); i < 0 || i != len(body)-1 {
		return nil, malformed(Query)
	}
	return body[:len(body)-1], nil
}

// StatusFields splits the body of a ParameterStatus message.
func StatusFields(body []byte) (name, value []byte, err error) {
	name, rest, ok := cutString(body)
	if ok {
		value, rest, ok = cutString(rest)
	}
	if !ok || len(rest) != 0 {
		return nil, nil, malformed(ParameterStatus)
	}
	return name, value, nil
}

// CompleteTag returns the tag of a CommandComplete message.
func CompleteTag(body []byte) ([]byte, error) {
	tag, rest, ok := cutString(body)
	if !ok || len(rest) != 0 {
		return nil, malformed(CommandComplete)
	}
	return tag, nil
}

// RowFields splits the body of a DataRow; a NULL is nil. The values are the body's own.
func RowFields(body []byte) (values [][]byte, err error) {
	if len(body) < 2 {
		return nil, malformed(DataRow)
	}
	count, rest := int(binary.BigEndian.Uint16(body)), body[2:]
	for range count {
		after, ok := cutValue(rest)
		if !ok {
			return nil, malformed(DataRow)
		}
		var value []byte
		if n := len(rest) - len(after) - 4; int32(binary.BigEndian.Uint32(rest)) >= 0 {
			value = rest[4 : 4+n : 4+n]
		}
		values, rest = append(values, value), after
	}
	if len(rest) != 0 {
		return nil, malformed(DataRow)
	}
	return values, nil
}

// ReadyStatus returns the transaction status of a ReadyForQuery message.
func ReadyStatus(body []byte) (byte, error) {
	if len(body) != 1 || body[0] != 'I' && body[0] != 'T' && body[0] != 'E' {
		return 0, malformed(ReadyForQuery)
	}
	return body[0], nil
}

func malformed(kind byte) error {
	return fmt.Errorf("%w: malformed message of type %q", armor.ErrInvalid, kind)
}
