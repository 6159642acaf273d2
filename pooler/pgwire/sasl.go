package pgwire

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pgproto3/v2"
)

// MaxSASL bounds the body of a client's SASL message, as PostgreSQL does
// (PG_MAX_SASL_MESSAGE_LENGTH).
const MaxSASL = 1024

// AppendAuthSASL appends AuthenticationSASL: the mechanisms, the preferred one first.
func AppendAuthSASL(dst []byte, mechanisms ...string) []byte {
	return encode(dst, &pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms})
}

// AppendAuthSASLContinue appends AuthenticationSASLContinue.
func AppendAuthSASLContinue(dst []byte, challenge string) []byte {
	return encode(dst, &pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
}

// AppendAuthSASLFinal appends AuthenticationSASLFinal.
func AppendAuthSASLFinal(dst []byte, outcome string) []byte {
	return encode(dst, &pgproto3.AuthenticationSASLFinal{Data: []byte(outcome)})
}

// SASLInitial splits the body of a SASLInitialResponse: the mechanism that the client
// has chosen, and its first message, which must be there.
func SASLInitial(body []byte) (mechanism string, response []byte, err error) {
	name, rest, ok := cutString(body)
	if !ok || len(body) > MaxSASL || len(rest) < 4 {
		return "", nil, malformed(Password)
	}
	size, response := binary.BigEndian.Uint32(rest), rest[4:]
	if uint64(size) != uint64(len(response)) {
		return "", nil, malformed(Password)
	}
	response, err = SASLResponse(response)
	return string(name), response, err
}

// SASLResponse returns the message in the body of a SASLResponse: all of it.
func SASLResponse(body []byte) ([]byte, error) {
	if len(body) == 0 || len(body) > MaxSASL || bytes.IndexByte(body, 0) >= 0 {
		return nil, malformed(Password)
	}
	return body, nil
}
