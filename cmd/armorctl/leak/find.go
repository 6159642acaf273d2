package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

const (
	// maxBlock bounds one PEM block, however it is escaped and indented.
	maxBlock = 64 << 10
	// maxFound bounds the keys that are told of one file.
	maxFound = 1000
	// maxWrapped bounds how often a text may be base64 of a text.
	maxWrapped = 2
	// workFactor bounds what is decoded of a file, in lengths of it: lines may claim to begin long values
	// that overlap.
	workFactor = 8
)

// Find finds the private keys in a file: the file may be one, or may hold some as PEM (indented,
// escaped, quoted), as base64 of PEM, or as base64 of DER. whole is false when it was not looked
// through to its end.
func Find(content []byte) (keys []Key, whole bool) {
	if k, ok := ofDER(content); ok {
		k.Line = 1
		return []Key{k}, true
	}
	s := &search{work: workFactor*len(content) + maxPKCS12}
	s.text(decodeUTF16(content), 0, maxWrapped)
	return s.keys, s.work >= 0 && len(s.keys) < maxFound
}

// search is what was found of one file so far.
type search struct {
	keys []Key
	work int // how many bytes may still be decoded; negative: it has ended
}

// add tells of a key once: the same one may stand in several lines.
func (s *search) add(k Key) {
	known := slices.ContainsFunc(s.keys, func(other Key) bool { return other.Digest == k.Digest && (!k.Unread() || other.Line == k.Line) })
	if !known && len(s.keys) < maxFound {
		s.keys = append(s.keys, k)
	}
}

// may spends work, and reports whether there was enough of it.
func (s *search) may(bytes int) bool {
	if s.work >= 0 {
		s.work -= bytes
	}
	return s.work >= 0 && len(s.keys) < maxFound
}

// text looks through a text. above is the line that it stands in, if it is wrapped in another.
func (s *search) text(text []byte, above, wrapped int) {
	lines := &lineCounter{text: text}
	at := func(offset int) int {
		if above > 0 {
			return above
		}
		return lines.at(offset)
	}
	text = s.blocks(text, at)
	s.runs(text, at, wrapped)
}

// lineCounter counts lines up to offsets that rise.
type lineCounter struct {
	text          []byte
	offset, lines int
}

func (c *lineCounter) at(offset int) int {
	if offset < c.offset {
		c.offset, c.lines = 0, 0
	}
	c.lines += bytes.Count(c.text[c.offset:offset], []byte("\n"))
	c.offset = offset
	return c.lines + 1
}

var (
	beginning = regexp.MustCompile(`-----BEGIN ((?:[A-Z0-9]+ ){0,4}PRIVATE KEY)-----`)
	// escapes are line ends as JSON, YAML, shells, URLs and XML write them, and strings that go on.
	escapes = regexp.MustCompile(`(?:\\)+[nrt]|\\u000[aAdD]|%0[aAdD]|&#(?:10|13|x[aAdD]);|["'][ \t]*[+.]?[ \t]*\\?\r?\n[ \t]*["']`)
	// margins are what stands before each line in a diff or a comment, and could be taken for base64.
	margins = regexp.MustCompile(`(?m)^[ \t]*(?:\+|//)[ \t]*`)
)

// blocks looks at PEM blocks, and returns the text without them.
func (s *search) blocks(text []byte, at func(int) int) []byte {
	rest := text
	for {
		found := beginning.FindSubmatchIndex(text)
		if found == nil || !s.may(0) {
			return rest
		}
		from := len(rest) - len(text)
		label := string(text[found[2]:found[3]])
		body := text[found[1]:min(len(text), found[1]+maxBlock)]
		if next := bytes.Index(body, []byte("-----BEGIN ")); next >= 0 {
			body = body[:next]
		}
		end := bytes.Index(body, []byte("-----END "+label+"-----"))
		text = text[found[1]:]
		if end < 0 || !s.may(end) {
			continue
		}
		if k, ok := ofBlock(label, string(body[:end])); ok {
			k.Line = at(from + found[0])
			s.add(k)
			rest = blank(rest, from+found[0], from+found[1]+end)
			text = rest[from+found[1]+end:]
		}
	}
}

// blank overwrites a part of the text, so that nothing is found there again. Lines stay what they are.
func blank(text []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		if text[i] != '\n' {
			text[i] = ' '
		}
	}
	return text
}

// ofBlock reads what stands between the lines of a PEM block.
func ofBlock(label, body string) (Key, bool) {
	body = escapes.ReplaceAllString(body, "\n")
	if strings.Contains(body, "Proc-Type:") { // RFC 1421 section 4.6.1.1
		return Key{Form: "PEM key that needs its password"}, true
	}
	for _, text := range []string{body, margins.ReplaceAllString(body, "")} {
		der, err := base64.RawStdEncoding.DecodeString(strings.Map(base64Only, text))
		if err != nil || len(der) == 0 {
			continue // a word in a document, or a key that is cut off
		}
		if label == "OPENSSH PRIVATE KEY" {
			return Key{Form: "OpenSSH key, which is not read"}, true
		}
		if k, ok := ofDER(der); ok {
			if !k.Unread() {
				k.Form = "PEM"
			}
			return k, true
		}
	}
	return Key{}, false
}

func base64Only(r rune) rune {
	if r < 0x80 && isBase64[r] {
		return r
	}
	return -1
}

var isBase64 = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		is[c] = true
	}
	return is
}()

// minRun is how many letters of base64 a key takes at the least: one of Ed25519 takes 64.
const minRun = 60

// runs looks at all that may be base64: letters of it, over the ends of lines and their indentation.
func (s *search) runs(text []byte, at func(int) int, wrapped int) {
	for i := 0; i < len(text); {
		if !isBase64[text[i]] {
			i++
			continue
		}
		letters, starts, end := takeRun(text, i)
		if len(letters) >= minRun {
			s.run(letters, starts, at, wrapped)
		}
		i = end
	}
}

// start is where a line of a run begins: in the run, and in the text.
type start struct{ letter, offset int }

// takeRun returns the letters from an offset on, where its lines start, and where it ends.
func takeRun(text []byte, i int) (letters []byte, starts []start, end int) {
	for i < len(text) && isBase64[text[i]] {
		starts = append(starts, start{len(letters), i})
		for i < len(text) && isBase64[text[i]] {
			letters = append(letters, text[i])
			i++
		}
		i = nextLine(text, i)
	}
	return letters, starts, i
}

// nextLine skips a line's end, real or escaped, and the indentation behind it.
func nextLine(text []byte, i int) int {
	j := i
	for width := lineEnd(text[j:]); width > 0; width = lineEnd(text[j:]) {
		j += width
	}
	if j == i {
		return i
	}
	for j < len(text) && (text[j] == ' ' || text[j] == '\t') {
		j++
	}
	return j
}

// lineEnd is how long the end of a line is that a text begins with, real or escaped; 0: it begins with none.
func lineEnd(text []byte) int {
	switch {
	case len(text) > 0 && (text[0] == '\n' || text[0] == '\r'):
		return 1
	case len(text) > 1 && text[0] == '\\' && (text[1] == 'n' || text[1] == 'r'):
		return 2
	}
	return 0
}

// run looks at DER that begins with a line of a run, and at the text that the run may be base64 of.
func (s *search) run(letters []byte, starts []start, at func(int) int, wrapped int) {
	for _, from := range starts {
		if !s.may(0) {
			return
		}
		der := s.derAt(letters[from.letter:])
		if der == nil {
			continue
		}
		if k, ok := ofDER(der); ok {
			k.Line = at(from.offset)
			k.Form += ", as base64"
			s.add(k)
		}
	}
	if wrapped == 0 || !s.may(len(letters)) {
		return
	}
	for i, from := range starts { // where the first line is a word before it
		if i > 1 {
			return
		}
		inner := decode(letters[from.letter:])
		if bytes.Contains(inner, []byte("PRIVATE KEY")) || bytes.Contains(inner, []byte("LS0tLS1")) {
			s.text(inner, at(from.offset), wrapped-1)
		}
	}
}

// derAt decodes the DER value that letters begin with, if they begin with one that fits.
func (s *search) derAt(letters []byte) []byte {
	if len(letters) < minRun || letters[0] != 'M' {
		return nil
	}
	size, ok := derSize(decode(letters[:8]))
	if !ok || size > maxPKCS12 || base64.RawStdEncoding.EncodedLen(size) > len(letters) || !s.may(size) {
		return nil
	}
	der := decode(letters[:base64.RawStdEncoding.EncodedLen(size)])
	return der[:min(size, len(der))]
}

// derSize is how long the SEQUENCE is that begins here, with its header.
func derSize(head []byte) (int, bool) {
	if len(head) < 6 || head[0] != 0x30 {
		return 0, false
	}
	switch n := int(head[1]); {
	case n < 0x80:
		return 2 + n, true
	case n == 0x81:
		return 3 + int(head[2]), true
	case n == 0x82:
		return 4 + int(binary.BigEndian.Uint16(head[2:])), true
	case n == 0x83:
		return 5 + int(binary.BigEndian.Uint32(append([]byte{0}, head[2:5]...))), true
	}
	return 0, false
}

// decode decodes as much as can be: what follows a key need not be base64 of anything.
func decode(letters []byte) []byte {
	if len(letters)%4 == 1 {
		letters = letters[:len(letters)-1]
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(letters)))
	n, err := base64.RawStdEncoding.Decode(out, letters)
	if err != nil {
		return nil
	}
	return out[:n]
}

// decodeUTF16 turns what some tools of Windows write into UTF-8.
func decodeUTF16(content []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(content, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(content, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return bytes.Clone(content)
	}
	units := make([]uint16, 0, len(content)/2)
	for i := 2; i+1 < len(content); i += 2 {
		units = append(units, order.Uint16(content[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}
