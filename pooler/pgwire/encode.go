package pgwire

import (
	"encoding/binary"

	"github.com/jackc/pgproto3/v2"

	"github.com/armordb/armordb/armor"
)

// The functions below append one whole message to dst and return the result.

// AppendAuthOK appends AuthenticationOk.
func AppendAuthOK(dst []byte) []byte { return encode(dst, &pgproto3.AuthenticationOk{}) }

// AppendParameterStatus appends ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	return encode(dst, &pgproto3.ParameterStatus{Name: name, Value: value})
}

// AppendBackendKeyData appends BackendKeyData. pgproto3/v2 knows four-byte secrets only.
func AppendBackendKeyData(dst []byte, key armor.CancelKey) []byte {
	content := key.Append(nil)
	return append(appendHeader(dst, BackendKeyData, len(content)), content...)
}

// AppendReady appends ReadyForQuery with the transaction status 'I', 'T' or 'E'.
func AppendReady(dst []byte, status byte) []byte {
	return encode(dst, &pgproto3.ReadyForQuery{TxStatus: status})
}

// AppendQuery appends a simple Query. sql must hold no NUL.
func AppendQuery(dst []byte, sql string) []byte {
	return encode(dst, &pgproto3.Query{String: sql})
}

// AppendFlush appends a Flush message.
func AppendFlush(dst []byte) []byte { return appendHeader(dst, Flush, 0) }

// AppendTerminate appends Terminate.
func AppendTerminate(dst []byte) []byte { return appendHeader(dst, Terminate, 0) }

// AppendParseComplete appends ParseComplete.
func AppendParseComplete(dst []byte) []byte { return appendHeader(dst, ParseComplete, 0) }

// AppendCloseComplete appends CloseComplete.
func AppendCloseComplete(dst []byte) []byte { return appendHeader(dst, CloseComplete, 0) }

// AppendCommandComplete appends CommandComplete.
func AppendCommandComplete(dst []byte, tag string) []byte {
	return encode(dst, &pgproto3.CommandComplete{CommandTag: []byte(tag)})
}

// AppendCloseStatement appends a Close of a prepared statement.
func AppendCloseStatement(dst []byte, name string) []byte {
	return encode(dst, &pgproto3.Close{ObjectType: objPrepared, Name: name})
}

// AppendDescribeStatement appends a Describe of a prepared statement.
func AppendDescribeStatement(dst []byte, name string) []byte {
	return encode(dst, &pgproto3.Describe{ObjectType: objPrepared, Name: name})
}

// AppendParse appends a Parse of a statement under another name. tail is what
// follows the name in a Parse message; see ParseFields.
func AppendParse(dst []byte, name string, tail []byte) []byte {
	dst = appendHeader(dst, Parse, len(name)+1+len(tail))
	dst = appendString(dst, name)
	return append(dst, tail...)
}

// AppendBindHead appends the head of a Bind whose last tail bytes, which follow the
// two names, are sent after it by the caller.
func AppendBindHead(dst []byte, portal []byte, statement string, tail int) []byte {
	dst = appendHeader(dst, Bind, len(portal)+1+len(statement)+1+tail)
	dst = append(append(dst, portal...), 0)
	return appendString(dst, statement)
}

// textOID is the type text, as pg_type has it.
const textOID = 25

// AppendQueryWith appends a query with one parameter of type text, $1, by the extended
// protocol: Parse, Bind, Execute and Sync. Neither may hold a NUL.
func AppendQueryWith(dst []byte, sql, parameter string) []byte {
	dst = AppendParse(dst, "", binary.BigEndian.AppendUint32(append(appendString(nil, sql), 0, 1), textOID))
	tail := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(parameter))) // text, and one of it
	tail = append(append(tail, parameter...), 0, 0)                                   // all of the answer as text
	dst = append(AppendBindHead(dst, nil, "", len(tail)), tail...)
	dst = append(appendHeader(dst, Execute, 5), 0, 0, 0, 0, 0)
	return appendHeader(dst, Sync, 0)
}

// AppendExtended appends a command without parameters by the extended protocol: Parse, Bind
// and Execute of unnamed ones, and no Sync. It may not hold a NUL.
func AppendExtended(dst []byte, sql string) []byte {
	dst = appendHeader(dst, Parse, 1+len(sql)+1+2)
	dst = append(appendString(append(dst, 0), sql), 0, 0) // no types
	dst = append(AppendBindHead(dst, nil, "", 6), 0, 0, 0, 0, 0, 0)
	return append(appendHeader(dst, Execute, 5), 0, 0, 0, 0, 0)
}

// AppendCancelRequest appends a CancelRequest, which is sent instead of a startup
// packet on a connection of its own.
func AppendCancelRequest(dst []byte, pid, secret uint32) []byte {
	return encode(dst, &pgproto3.CancelRequest{ProcessID: pid, SecretKey: secret})
}

// AppendNegotiate appends NegotiateProtocolVersion: the version that is spoken from
// here on, and the protocol options that we do not know. PostgreSQL's manual speaks of a
// minor version; what is sent, and what libpq reads, is the whole one. pgproto3/v2 has
// no such message.
func AppendNegotiate(dst []byte, minor int, unknown []string) []byte {
	size := 8
	for _, name := range unknown {
		size += len(name) + 1
	}
	dst = appendHeader(dst, NegotiateProtocol, size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(protocolMajor<<16|minor))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(unknown)))
	for _, name := range unknown {
		dst = appendString(dst, name)
	}
	return dst
}

// encode appends a message of our own making. It can fail only for one longer than
// the protocol allows, which we never make.
func encode(dst []byte, m pgproto3.Message) []byte {
	out, err := m.Encode(dst)
	if err != nil {
		panic("pgwire: " + err.Error())
	}
	return out
}

func appendHeader(dst []byte, kind byte, body int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, kind), uint32(body+4))
}

func appendString(dst []byte, s string) []byte { return append(append(dst, s...), 0) }

// AppendResized appends a message whose body has changed its length.
func AppendResized(dst, message []byte) []byte {
	dst = appendHeader(dst, message[0], len(message)-HeaderSize)
	return append(dst, message[HeaderSize:]...)
}
