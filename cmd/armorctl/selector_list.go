package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/armordb/armordb/armor"
)

// A list names one selector on each line, in the words of `armorctl revocation list`:
//
//	certificate ISSUER/SERIAL
//	key SPKI
//	identity PATTERN
//	issuer SPKI
//
// Blank lines and those that begin with # count for nothing.

const (
	maxList     = 64 << 20 // bytes
	maxListLine = 4096     // bytes
)

// selectList reads a list from a file; - is stdin.
func selectList(sc scope, path string) ([]armor.Selector, error) {
	if path == "-" {
		return parseList(sc, "stdin", sc.in)
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	case err != nil:
		return nil, fmt.Errorf("read selectors: %w", err)
	}
	defer f.Close()
	return parseList(sc, path, f)
}

// parseList says of what it cannot read where it stands.
func parseList(sc scope, name string, from io.Reader) (all []armor.Selector, err error) {
	limited := &io.LimitedReader{R: from, N: maxList + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxListLine)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSelector(sc, line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, number, err)
		}
		all = append(all, s)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%s:%d: %w: more than %d bytes", name, number+1, armor.ErrInvalid, maxListLine)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case limited.N == 0:
		return nil, fmt.Errorf("%s: %w: more than %d bytes: revoke it in several steps", name, armor.ErrInvalid, maxList)
	case len(all) == 0:
		return nil, fmt.Errorf("%s: %w: it names nothing", name, armor.ErrInvalid)
	}
	return all, nil
}

func parseSelector(sc scope, line string) (s armor.Selector, err error) {
	kind, value, _ := strings.Cut(line, " ")
	value = strings.TrimSpace(value)
	switch s.Kind = armor.SelectorKind(kind); s.Kind {
	case armor.SelectCertificate:
		s.Certificate, err = parseCertID(value)
	case armor.SelectKey:
		s.Key, err = armor.ParseDigest(value)
	case armor.SelectIssuer:
		s.Issuer, err = armor.ParseDigest(value)
	case armor.SelectIdentity:
		s.Identity, s.IssuedBefore = armor.Pattern(value), sc.before
		_, err = armor.ParsePattern(value)
	default:
		return s, fmt.Errorf("%w: %.40q is not one of certificate, key, identity, issuer", armor.ErrInvalid, kind)
	}
	if err != nil {
		return s, err
	}
	return s, s.Validate()
}
