package pgwire

import (
	"bytes"

	"github.com/jackc/pgproto3/v2"
)

// Severities of an Error. A FATAL ends the session.
const (
	SeverityError   = "ERROR"
	SeverityFatal   = "FATAL"
	SeverityPanic   = "PANIC"
	SeverityWarning = "WARNING"
	SeverityNotice  = "NOTICE"
)

// Error is an ErrorResponse or a NoticeResponse (PostgreSQL, "Error and Notice
// Message Fields"). Code is the SQLSTATE.
type Error struct {
	Severity string
	Code     string
	Message  string
	Detail   string
	Hint     string
	Routine  string // of PostgreSQL's source; drivers look at a few
}

// Error is as libpq shows it, in one line.
func (e *Error) Error() string { return e.Severity + ": " + e.Message + " (SQLSTATE " + e.Code + ")" }

// Fatal reports whether the session ends with it.
func (e *Error) Fatal() bool { return e.Severity == SeverityFatal || e.Severity == SeverityPanic }

// AppendError appends e as an ErrorResponse.
func AppendError(dst []byte, e *Error) []byte {
	return encode(dst, &pgproto3.ErrorResponse{
		Severity: e.Severity, SeverityUnlocalized: e.Severity, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint,
		Routine: e.Routine,
	})
}

// AppendNotice appends e as a NoticeResponse.
func AppendNotice(dst []byte, e *Error) []byte {
	return encode(dst, &pgproto3.NoticeResponse{
		Severity: e.Severity, SeverityUnlocalized: e.Severity, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint,
		Routine: e.Routine,
	})
}

// ParseError reads the body of an ErrorResponse or NoticeResponse, as far as it
// goes: a part that was cut off or makes no sense is left out.
func ParseError(body []byte) Error {
	var e Error
	for len(body) > 1 && body[0] != 0 {
		field := body[0]
		value, rest, ok := cutString(body[1:])
		if !ok {
			break
		}
		e.set(field, string(value))
		body = rest
	}
	return e
}

func (e *Error) set(field byte, value string) {
	switch field {
	case 'S':
		if e.Severity == "" {
			e.Severity = value
		}
	case 'V': // the severity that is never translated
		e.Severity = value
	case 'C':
		e.Code = value
	case 'M':
		e.Message = value
	case 'D':
		e.Detail = value
	case 'H':
		e.Hint = value
	}
}

// cutString splits b behind its first NUL-terminated string.
func cutString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}
