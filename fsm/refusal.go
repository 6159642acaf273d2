package fsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/armordb/armordb/armor"
)

// codes are the kinds of refusal that the state remembers. Positions are for ever:
// they are stored, and hashed.
var codes = []error{
	nil, // accepted
	armor.ErrInvalid,
	armor.ErrNotFound,
	armor.ErrConflict,
	armor.ErrDenied,
	armor.ErrExpired,
	armor.ErrRevoked,
	armor.ErrExhausted,
}

// maxText bounds what is remembered of a refusal's words.
const maxText = 1024

// refusal is a semantic no. Its kind is part of the agreed state; its text is for
// people and may differ between builds.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// refuse wraps a sentinel with what was wrong.
func refuse(kind error, format string, args ...any) error {
	return &refusal{kind: kind, text: kind.Error() + ": " + fmt.Sprintf(format, args...)}
}

// describe puts what was being judged in front of a refusal.
func describe(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// encodeError returns what the state keeps of err.
func encodeError(err error) (code uint32, text string) {
	if err == nil {
		return 0, ""
	}
	for i, kind := range codes {
		if kind != nil && errors.Is(err, kind) {
			return uint32(i), clip(strings.ToValidUTF8(err.Error(), "?"))
		}
	}
	panic(fmt.Sprintf("fsm: refusal of no known kind: %v", err))
}

// decodeError is encodeError's inverse.
func decodeError(code uint32, text string) error {
	if code == 0 {
		return nil
	}
	return &refusal{kind: codes[code], text: text}
}

// clip cuts at a character, since what is kept must stay UTF-8.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := 0
	for i := range s {
		if i > maxText {
			break
		}
		end = i
	}
	return s[:end]
}
