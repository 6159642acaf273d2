package armor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The rule book of the configuration: what an object may say, by itself. Environment,
// Database, Pool, IdentityConfig and Grant have a Check each; what they refer to is
// State.CheckReferences'. manifest and the state machine judge by the same book, so what
// the one reads the other takes. Every build has to judge the log alike: to tighten a
// rule, or to loosen one, takes a new level of the log.

// Field is the way to a field of a configuration object, in the words of its manifest:
// the keys of mappings are strings, the places in lists are ints.
type Field []any

// String is such as spec.grants[2].cidrs[0]. A key that is no plain word is quoted.
func (f Field) String() string {
	var b strings.Builder
	for _, step := range f {
		key, isKey := step.(string)
		switch {
		case !isKey:
			fmt.Fprintf(&b, "[%v]", step)
		case key == "" || strings.ContainsFunc(key, isPunctuation):
			fmt.Fprintf(&b, "[%q]", key)
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(key)
		}
	}
	return b.String()
}

func isPunctuation(r rune) bool { return r > 'z' || !isAlphanumeric(byte(r)) && r != '_' && r != '-' }

// In is the way to what lies within the field.
func (f Field) In(steps ...any) Field { return slices.Concat(f, Field(steps)) }

// FieldError is one thing that is wrong with a configuration object. It is an ErrInvalid.
type FieldError struct {
	Field Field
	Text  string // what is wrong, for a reader who sees the field
}

// Error is what is wrong, with the way to the field before it.
func (e *FieldError) Error() string { return ErrInvalid.Error() + ": " + e.named() }

// Unwrap makes it an ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }

func (e *FieldError) named() string { return e.Field.String() + ": " + e.Text }

// FieldErrors are what is wrong with one configuration object, as far as it is told.
type FieldErrors []*FieldError

// Error is all of it on one line.
func (f FieldErrors) Error() string {
	var all []string
	for _, e := range f {
		all = append(all, e.named())
	}
	return ErrInvalid.Error() + ": " + strings.Join(all, "; ")
}

// Unwrap gives them one by one.
func (f FieldErrors) Unwrap() []error {
	var all []error
	for _, e := range f {
		all = append(all, e)
	}
	return all
}

// maxFaults is how many faults of one object are told.
const maxFaults = 20

// faults gathers what is wrong with an object.
type faults struct{ found FieldErrors }

func (f *faults) err() error {
	if len(f.found) == 0 {
		return nil
	}
	return f.found
}

func (f *faults) wrong(at Field, format string, args ...any) {
	if len(f.found) < maxFaults {
		f.found = append(f.found, &FieldError{at, fmt.Sprintf(format, args...)})
	}
}

// note takes what a check found wrong with a field; a nil err is nothing.
func (f *faults) note(at Field, err error) {
	if err != nil {
		f.wrong(at, "%s", strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
	}
}

// below takes what a Check found wrong with a part of the object.
func (f *faults) below(at Field, err error) {
	part, _ := errors.AsType[FieldErrors](err)
	for _, e := range part {
		f.wrong(at.In(e.Field...), "%s", e.Text)
	}
}

func (f *faults) name(s string) { f.note(Field{"metadata", "name"}, CheckName("name", s)) }

// secret takes no name for no secret. A name is that of a file in a node's secrets
// directory: a path would be a way to read any file of the node.
func (f *faults) secret(at Field, name SecretName) {
	if name != "" {
		f.note(at, CheckName("secret", string(name)))
	}
}

// count checks a bound that is off at zero.
func (f *faults) count(at Field, n, most int) {
	if n < 0 || n > most {
		f.wrong(at, "%d is negative or more than %d", n, most)
	}
}

// text checks what is sent to PostgreSQL or to a client as it is.
func (f *faults) text(at Field, s string, most int) {
	switch {
	case len(s) > most:
		f.wrong(at, "%d bytes, more than %d", len(s), most)
	case strings.ContainsRune(s, 0):
		f.wrong(at, "it has a zero byte")
	}
}

// oneOf checks a word. empty is how the empty word is written, which is one of them then;
// it is "" where something has to be said.
func oneOf[W ~string](f *faults, at Field, word W, empty string, words ...W) {
	if slices.Contains(words, word) || word == "" && empty != "" {
		return
	}
	var all []string
	if empty != "" {
		all = append(all, empty)
	}
	for _, w := range words {
		all = append(all, string(w))
	}
	f.wrong(at, "%.40q is not one of %s", word, strings.Join(all, ", "))
}

const (
	// MaxText bounds what people write: owners, contacts, addresses. In bytes.
	MaxText = 255
	// maxPGName bounds the names of PostgreSQL's databases and roles: its NAMEDATALEN - 1.
	// It cuts longer names short, so that two would be one.
	maxPGName = 63
)

// CheckText checks what people write: its size in bytes, and that it holds no control
// characters but those of plain text. what names it in the error.
func CheckText(what, s string, limit int, required bool) error {
	switch {
	case required && s == "":
		return fmt.Errorf("%w: %s is missing", ErrInvalid, what)
	case len(s) > limit:
		return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrInvalid, what, len(s), limit)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
		return fmt.Errorf("%w: %s holds control characters", ErrInvalid, what)
	}
	return nil
}

// CheckAddress checks host:port. An empty address passes unless it is required. what
// names it in the error.
func CheckAddress(what, s string, required bool) error {
	if s == "" && !required {
		return nil
	}
	if err := CheckText(what, s, MaxText, required); err != nil {
		return err
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || strings.ContainsAny(s, " \n\t") {
		return fmt.Errorf("%w: %s %q is not host:port", ErrInvalid, what, s)
	}
	if port, err := strconv.Atoi(s[i+1:]); err != nil || port < 1 || port > 65535 {
		return fmt.Errorf("%w: %s %q has no port between 1 and 65535", ErrInvalid, what, s)
	}
	return nil
}
