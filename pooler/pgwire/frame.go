package pgwire

import (
	"encoding/binary"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// HeaderSize is the type byte and the four bytes of length before every message but
// the startup packet.
const HeaderSize = 5

// MaxMessage bounds a whole message as PostgreSQL does (MaxAllocSize), and
// maxSmall those whose content is a name or nothing (PQ_SMALL_MESSAGE_LIMIT).
const (
	MaxMessage = 1<<30 - 1
	maxSmall   = 10000
)

// Types of messages that clients send.
const (
	Bind        = 'B'
	Close       = 'C'
	CopyData    = 'd' // both ways
	CopyDone    = 'c' // both ways
	CopyFail    = 'f'
	Describe    = 'D'
	Execute     = 'E'
	Flush       = 'H'
	Function    = 'F'
	Parse       = 'P'
	Password    = 'p' // also SASLInitialResponse and SASLResponse
	Query       = 'Q'
	Sync        = 'S'
	Terminate   = 'X'
	objPortal   = 'P' // in Describe and Close
	objPrepared = 'S'
)

// Types of messages that servers send.
const (
	Authentication       = 'R'
	BackendKeyData       = 'K'
	BindComplete         = '2'
	CloseComplete        = '3'
	CommandComplete      = 'C'
	CopyBothResponse     = 'W'
	CopyInResponse       = 'G'
	CopyOutResponse      = 'H'
	DataRow              = 'D'
	EmptyQueryResponse   = 'I'
	ErrorResponse        = 'E'
	FunctionCallResponse = 'V'
	NegotiateProtocol    = 'v'
	NoData               = 'n'
	NoticeResponse       = 'N'
	NotificationResponse = 'A'
	ParameterDescription = 't'
	ParameterStatus      = 'S'
	ParseComplete        = '1'
	PortalSuspended      = 's'
	ReadyForQuery        = 'Z'
	RowDescription       = 'T'
)

// Header is the type of a message and the length of its body in bytes.
type Header struct {
	Type byte
	Body int
}

// Size is the length of the whole message in bytes.
func (h Header) Size() int { return HeaderSize + h.Body }

// ClientHeader reads the header of a client's message from the first HeaderSize
// bytes of b. A type that no client may send, or a length out of its bounds, is an
// error in PostgreSQL's words; the session cannot go on after it.
func ClientHeader(b []byte) (Header, error) {
	h := Header{Type: b[0], Body: int(int32(binary.BigEndian.Uint32(b[1:HeaderSize]))) - 4}
	limit := maxSmall
	switch h.Type {
	case Bind, CopyData, CopyFail, Function, Parse, Query:
		limit = MaxMessage
	case Close, Describe, Execute, Password:
	case CopyDone, Flush, Sync, Terminate:
		limit = 0
	default:
		return Header{}, fmt.Errorf("%w: invalid frontend message type %d", armor.ErrInvalid, h.Type)
	}
	if h.Body < 0 || h.Body > limit {
		return Header{}, fmt.Errorf("%w: invalid message length", armor.ErrInvalid)
	}
	return h, nil
}

// ServerHeader reads the header of a server's message from the first HeaderSize
// bytes of b. Types that we do not know are let through: a newer server may send
// them.
func ServerHeader(b []byte) (Header, error) {
	h := Header{Type: b[0], Body: int(int32(binary.BigEndian.Uint32(b[1:HeaderSize]))) - 4}
	if h.Body < 0 {
		return Header{}, fmt.Errorf("%w: message %q with length %d from PostgreSQL", armor.ErrInvalid, h.Type, h.Body+4)
	}
	return h, nil
}
