package pgbouncer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/armordb/armordb/armor"
)

// Bounds of what is read.
const (
	// MaxFile is how many bytes one file may have.
	MaxFile     = 1 << 20
	maxIncludes = 10 // deep, as in PgBouncer
	maxFiles    = 100
	maxLine     = 64 << 10
	maxEntries  = 10_000
	maxFaults   = 20 // told at once
	maxName     = 63 // bytes of a role's or a database's, as in PostgreSQL
)

// Reader returns the text of a file that %include names.
type Reader func(name string) ([]byte, error)

// place is where something is written.
type place struct {
	file string
	line int
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// fault is one thing that is wrong with a file: ErrInvalid.
type fault struct {
	place
	text string
}

func (f *fault) Error() string { return f.place.String() + ": " + f.text }
func (f *fault) Unwrap() error { return armor.ErrInvalid }

// faults gathers what is wrong with files, so that all of it is told at once.
type faults struct{ errs []error }

func (f *faults) at(p place, format string, args ...any) {
	err := &fault{p, fmt.Sprintf(format, args...)}
	said := func(other error) bool { return other.Error() == err.Error() }
	if len(f.errs) < maxFaults && !slices.ContainsFunc(f.errs, said) {
		f.errs = append(f.errs, err)
	}
}

func (f *faults) err() error { return errors.Join(f.errs...) }

// entry is one line "key = value".
type entry struct {
	place
	section, key, value string
}

// The sections there are.
const (
	mainSection      = "pgbouncer"
	databasesSection = "databases"
	usersSection     = "users"
	peersSection     = "peers"
)

// iniReader reads a configuration file with those that it includes.
type iniReader struct {
	*faults
	read    Reader
	section string
	entries []entry
	files   int
}

// readINI returns the entries of a configuration file in the order in which PgBouncer
// reads them.
func readINI(name string, text []byte, read Reader) ([]entry, error) {
	r := &iniReader{faults: &faults{}, read: read}
	r.file(name, text, 0)
	return r.entries, r.err()
}

func (r *iniReader) file(name string, text []byte, depth int) {
	if r.files++; r.files > maxFiles {
		r.at(place{file: name}, "more than %d files are included", maxFiles)
		return
	}
	for p, line := range lines(r.faults, name, text) {
		switch {
		case line == "" || line[0] == ';' || line[0] == '#':
		case line[0] == '[':
			r.head(p, line)
		case line[0] == '%':
			r.directive(p, line, depth)
		default:
			r.entry(p, line)
		}
	}
}

// lines walks a text's lines, without white space around them.
func lines(f *faults, name string, text []byte) func(yield func(place, string) bool) {
	return func(yield func(place, string) bool) {
		if len(text) > MaxFile {
			f.at(place{file: name}, "the file has %d bytes, more than %d", len(text), MaxFile)
			return
		}
		n := 0
		for line := range strings.SplitSeq(string(text), "\n") {
			n++
			p := place{name, n}
			switch {
			case len(line) > maxLine:
				f.at(p, "the line has %d bytes, more than %d", len(line), maxLine)
			case !utf8.ValidString(line) || strings.ContainsFunc(line, isControl):
				f.at(p, "the line is not UTF-8, or holds control characters")
			default:
				if !yield(p, strings.TrimSpace(line)) {
					return
				}
			}
		}
	}
}

func isControl(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }

func (r *iniReader) head(p place, line string) {
	section, closed := strings.CutSuffix(line[1:], "]")
	if !closed {
		r.at(p, "%q is no section: a ']' is missing", clip(line))
		return
	}
	switch section {
	case mainSection, databasesSection, usersSection, peersSection:
	default:
		r.at(p, "PgBouncer has no section [%s]: it has [databases], [pgbouncer], [users] and [peers]", clip(section))
	}
	r.section = section
}

func (r *iniReader) directive(p place, line string, depth int) {
	word, name, _ := strings.Cut(line, " ")
	name = strings.TrimSpace(name)
	switch {
	case word != "%include" || name == "":
		r.at(p, "%q is no directive: there is %%include FILE", clip(line))
	case depth >= maxIncludes:
		r.at(p, "files are included more than %d deep", maxIncludes)
	case r.files > maxFiles: // said already
	default:
		text, err := r.read(name)
		if err != nil {
			r.at(p, "%%include: %v", err)
			return
		}
		r.file(name, text, depth+1)
	}
}

func (r *iniReader) entry(p place, line string) {
	key, rest, ok := cutKey(line)
	value, assigned := strings.CutPrefix(strings.TrimSpace(rest), "=")
	switch {
	case !ok || !assigned:
		r.at(p, "%q is not key = value", clip(keyOnly(line)))
	case r.section == "":
		r.at(p, "key %q stands before any section", clip(key))
	case len(r.entries) == maxEntries:
		r.at(p, "more than %d entries", maxEntries)
	default:
		r.entries = append(r.entries, entry{p, r.section, key, strings.TrimSpace(value)})
	}
}

// keyOnly is the part of a line that may be repeated in an error: what stands behind
// the first '=' may be a password.
func keyOnly(line string) string {
	key, _, _ := strings.Cut(line, "=")
	return key
}

// cutKey takes the name in front of a '=' off a line: a word, or what stands in double
// quotes, where a quote is written twice.
func cutKey(s string) (key, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		key, rest, ok = armor.CutQuoted(s, '"')
		return key, rest, ok && key != ""
	}
	i := 0
	for i < len(s) && isKey(s[i]) {
		i++
	}
	return s[:i], s[i:], i > 0
}

func isKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-*", c) >= 0
}

// pair is one word of a connection string.
type pair struct{ key, value string }

// parsePairs reads the value of an entry of [databases], [users] or [peers]: key=value,
// with the value in single quotes where it holds white space.
func parsePairs(s string) (pairs []pair, err error) {
	seen := map[string]bool{}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		i := strings.IndexAny(s, "= \t")
		if i <= 0 {
			return nil, fmt.Errorf("a word of the connection string has no name in front of its '='")
		}
		p := pair{key: s[:i]}
		value, assigned := strings.CutPrefix(strings.TrimSpace(s[i:]), "=")
		if !assigned {
			return nil, fmt.Errorf("%q is not key=value", clip(p.key))
		}
		if value = strings.TrimLeft(value, " \t"); strings.HasPrefix(value, "'") {
			var ok bool
			if p.value, s, ok = armor.CutQuoted(value, '\''); !ok {
				return nil, fmt.Errorf("the value of %s has no closing quote", clip(p.key))
			}
		} else if i := strings.IndexAny(value, " \t"); i >= 0 {
			p.value, s = value[:i], value[i:]
		} else {
			p.value, s = value, ""
		}
		if seen[p.key] {
			return nil, fmt.Errorf("%s is given twice", clip(p.key))
		}
		seen[p.key] = true
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func clip(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
