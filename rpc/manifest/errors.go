package manifest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"

	"github.com/armordb/armordb/armor"
)

// maxErrors is how many errors of one file are told.
const maxErrors = 20

// Error is one thing that is wrong in a file. It is an armor.ErrInvalid.
type Error struct {
	File         string
	Line, Column int // from 1; 0 when the whole file is meant
	Message      string
	Excerpt      string // the lines around, with a marker; may be empty
}

// Error is "file:line:column: message" and, below it, the excerpt.
func (e *Error) Error() string {
	text := e.File
	if e.Line > 0 {
		text += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	text += ": " + e.Message
	if e.Excerpt != "" {
		text += "\n" + e.Excerpt
	}
	return text
}

// Is makes it an ErrInvalid.
func (e *Error) Is(target error) bool { return target == armor.ErrInvalid }

// faults are the errors of one file.
type faults struct {
	file  string
	lines []string // of the source, for excerpts
	all   []error
}

func (f *faults) err() error { return errors.Join(f.all...) }

// at notes what is wrong at a token; nil stands for the whole file.
func (f *faults) at(t *token.Token, format string, args ...any) {
	if len(f.all) >= maxErrors {
		return
	}
	e := &Error{File: f.file, Message: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
		e.Excerpt = f.excerpt(e.Line, e.Column)
	}
	f.all = append(f.all, e)
}

// yaml notes an error of the YAML library, which knows where it is.
func (f *faults) yaml(err error) {
	if mistaken, ok := errors.AsType[*yaml.TypeError](err); ok {
		f.at(mistaken.GetToken(), "this is %s, and %s belongs here", shape(mistaken.SrcType), shape(mistaken.DstType))
		return
	}
	if told, ok := errors.AsType[yaml.Error](err); ok {
		f.at(told.GetToken(), "%s", told.GetMessage())
		return
	}
	f.at(nil, "%v", err)
}

// shape names a kind of value as YAML knows it.
func shape(t reflect.Type) string {
	if t == nil {
		return "nothing"
	}
	switch t.Kind() {
	case reflect.Map, reflect.Struct:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// maxExcerptLine keeps excerpts readable when a file is one long line.
const maxExcerptLine = 160

// excerpt is the line and the one before it, with a marker below the column.
func (f *faults) excerpt(line, column int) string {
	if line > len(f.lines) || column < 1 || len(f.lines[line-1]) > maxExcerptLine || column > maxExcerptLine {
		return ""
	}
	text := ""
	for n := max(line-1, 1); n <= line; n++ {
		if len(f.lines[n-1]) <= maxExcerptLine {
			text += fmt.Sprintf("%5d | %s\n", n, strings.TrimRight(f.lines[n-1], "\r"))
		}
	}
	return text + strings.Repeat(" ", len("12345 | ")+column-1) + "^"
}
