package pgwire

import (
	"encoding/binary"

	"github.com/jackc/pgproto3/v2"
)

// The functions below append one whole message to dst and return the result.

// AppendAuthOK appends AuthenticationOk.
func AppendAuthOK(dst []byte) []byte { return encode(dst, &pgproto3.AuthenticationOk{}) }

// AppendParameterStatus appends ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	return encode(dst, &pgproto3.ParameterStatus{Name: name, Value: value})
}

// AppendBackendKeyData appends BackendKeyData with a four-byte secret (protocol 3.0).
func AppendBackendKeyData(dst []byte, pid, secret uint32) []byte {
	return encode(dst, &pgproto3.BackendKeyData{ProcessID: pid, SecretKey: secret})
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

// AppendCancelRequest appends a CancelRequest, which is sent instead of a startup
// packet on a connection of its own.
func AppendCancelRequest(dst []byte, pid, secret uint32) []byte {
	return encode(dst, &pgproto3.CancelRequest{ProcessID: pid, SecretKey: secret})
}

// AppendNegotiate appends NegotiateProtocolVersion: the newest minor version we
// speak, and the protocol options that we do not know. pgproto3/v2 has no such
// message.
func AppendNegotiate(dst []byte, minor int, unknown []string) []byte {
	size := 8
	for _, name := range unknown {
		size += len(name) + 1
	}
	dst = appendHeader(dst, NegotiateProtocol, size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(minor))
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
