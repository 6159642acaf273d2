package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// A file of revocations is JSON, one object a line:
//
//	the head: what the revocations are of
//	a line for each revocation
//	the end: the SHA-256 of all lines before
//
// It is not signed: it is worth as much as whoever hands it over, like a list of selectors,
// and the operator who imports it signs what becomes of it. The end tells damage.

// revocationFormat begins every file.
const revocationFormat = "armor revocations v1"

const (
	maxRevocationLine  = 16 << 10 // bytes
	maxRevocationLines = 4_000_000
)

type revocationHead struct {
	Format    string `json:"format"`
	Cluster   string `json:"cluster"`
	ClusterID string `json:"clusterId"`
	Revision  uint64 `json:"revision"`
	LogTime   string `json:"logTime"`
	Exported  string `json:"exported"`
	By        string `json:"by,omitempty"` // the operator
	Count     int    `json:"count"`
}

type revocationLine struct {
	Kind armor.SelectorKind `json:"kind"`
	// One of them is set: ISSUER/SERIAL, a digest or a pattern, as selector lists have them.
	Selector     string                 `json:"selector"`
	IssuedBefore string                 `json:"issuedBefore,omitempty"`
	Reason       armor.RevocationReason `json:"reason"`
	Comment      string                 `json:"comment,omitempty"`
	At           string                 `json:"at"`
	By           string                 `json:"by"`
	Revision     uint64                 `json:"revision"`
}

type revocationEnd struct {
	SHA256 string `json:"sha256"`
}

// writeRevocations writes all of a state.
func writeRevocations(w io.Writer, head revocationHead, s *armor.State) error {
	digest := sha256.New()
	buffered := bufio.NewWriter(w)
	lines := json.NewEncoder(io.MultiWriter(buffered, digest))
	lines.SetEscapeHTML(false)
	if err := lines.Encode(head); err != nil {
		return err
	}
	for r := range s.Revocations.Values() {
		if err := lines.Encode(lineOf(r)); err != nil {
			return err
		}
	}
	end := json.NewEncoder(buffered)
	if err := end.Encode(revocationEnd{hex.EncodeToString(digest.Sum(nil))}); err != nil {
		return err
	}
	return buffered.Flush()
}

func lineOf(r armor.Revocation) revocationLine {
	l := revocationLine{
		Kind: r.Selector.Kind, Reason: r.Reason, Comment: r.Comment, At: exactly3339(r.At), By: r.By, Revision: r.Revision,
		IssuedBefore: exactly3339(r.Selector.IssuedBefore),
	}
	switch r.Selector.Kind {
	case armor.SelectCertificate:
		l.Selector = r.Selector.Certificate.Issuer.String() + "/" + r.Selector.Certificate.Serial
	case armor.SelectKey:
		l.Selector = r.Selector.Key.String()
	case armor.SelectIssuer:
		l.Selector = r.Selector.Issuer.String()
	case armor.SelectIdentity:
		l.Selector = string(r.Selector.Identity)
	}
	return l
}

func exactly3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// revocation reads a line.
func (l revocationLine) revocation() (r armor.Revocation, err error) {
	r = armor.Revocation{Reason: l.Reason, Comment: l.Comment, By: l.By, Revision: l.Revision}
	if _, err := armor.ParseRevocationReason(string(l.Reason)); err != nil {
		return r, err
	}
	var before time.Time
	if l.IssuedBefore != "" {
		if before, err = time.Parse(time.RFC3339Nano, l.IssuedBefore); err != nil {
			return r, fmt.Errorf("%w: issuedBefore: %w", armor.ErrInvalid, err)
		}
	}
	if r.At, err = time.Parse(time.RFC3339Nano, l.At); err != nil {
		return r, fmt.Errorf("%w: at: %w", armor.ErrInvalid, err)
	}
	r.Selector, err = parseSelector(scope{before: before}, string(l.Kind)+" "+l.Selector)
	switch serial := r.Selector.Certificate.Serial; {
	case err != nil:
	case !before.IsZero() && l.Kind != armor.SelectIdentity:
		err = fmt.Errorf("%w: issuedBefore goes with an identity", armor.ErrInvalid)
	case before.After(lastInstant):
		err = fmt.Errorf("%w: issuedBefore %s is no time", armor.ErrInvalid, l.IssuedBefore)
	case strings.Trim(serial, "0123456789abcdef") != "" || len(serial) > maxSerial:
		err = fmt.Errorf("%w: serial number %.50q", armor.ErrInvalid, serial)
	}
	return r, err
}

// maxSerial is how many hex digits a serial number has (RFC 5280 §4.1.2.2).
const maxSerial = 40

// lastInstant is about as late as the cluster takes one.
var lastInstant = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// readRevocations reads a whole file, or says at which line it is not one.
func readRevocations(name string, from io.Reader) (head revocationHead, all []armor.Revocation, err error) {
	r := revocationReader{digest: sha256.New(), lines: bufio.NewScanner(from)}
	r.lines.Buffer(nil, maxRevocationLine)
	head, all, err = r.read()
	if err != nil {
		return head, nil, fmt.Errorf("%s:%d: %w", name, max(r.number, 1), err)
	}
	return head, all, nil
}

type revocationReader struct {
	lines  *bufio.Scanner
	digest hash.Hash // of the lines before the last one taken
	number int
}

func (r *revocationReader) read() (head revocationHead, all []armor.Revocation, err error) {
	if err := r.take(&head, true); err != nil {
		return head, nil, err
	}
	named := errors.Join(armor.CheckName("cluster", head.Cluster), armor.CheckName("cluster id", head.ClusterID))
	if head.Format != revocationFormat || named != nil || head.Count < 0 || head.Count > maxRevocationLines {
		return head, nil, fmt.Errorf("%w: this is no file of revocations that this armorctl reads", armor.ErrInvalid)
	}
	for range head.Count {
		var line revocationLine
		if err := r.take(&line, true); err != nil {
			return head, nil, err
		}
		revocation, err := line.revocation()
		if err != nil {
			return head, nil, err
		}
		all = append(all, revocation)
	}
	is := hex.EncodeToString(r.digest.Sum(nil))
	var end revocationEnd
	if err := r.take(&end, false); err != nil {
		return head, nil, err
	}
	if end.SHA256 != is {
		return head, nil, fmt.Errorf("%w: the checksum of the lines before is %s: the file was changed or is damaged", armor.ErrInvalid, is)
	}
	if r.lines.Scan() {
		r.number++
		return head, nil, fmt.Errorf("%w: the file goes on after its end", armor.ErrInvalid)
	}
	return head, all, r.lines.Err()
}

// take reads the next line.
func (r *revocationReader) take(into any, counts bool) error {
	r.number++
	if !r.lines.Scan() {
		if err := r.lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("%w: more than %d bytes", armor.ErrInvalid, maxRevocationLine)
		} else if err != nil {
			return err
		}
		return fmt.Errorf("%w: the file is cut short", armor.ErrInvalid)
	}
	line := r.lines.Bytes()
	if counts {
		r.digest.Write(line)
		r.digest.Write([]byte{'\n'})
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", armor.ErrInvalid, err)
	}
	if d.More() {
		return fmt.Errorf("%w: more than one object", armor.ErrInvalid)
	}
	return nil
}
