package pgtest

import (
	"fmt"
	"strconv"
	"strings"
)

// Step is one line of a script: messages that are sent at once, and how many replies
// are read then.
type Step struct {
	Line    string
	Send    [][]byte
	Replies int // 0: up to ReadyForQuery
}

// String is the line as it was written.
func (s Step) String() string { return s.Line }

// ParseScript reads a script: a line is messages, " | " between them, and after
// " => " the number of replies, or "ready" for all up to ReadyForQuery. A message is a word and its argument:
//
//	query SQL · parse NAME SQL · bind STATEMENT [VALUE…] · describe STATEMENT ·
//	execute · sync · flush · close STATEMENT · data TEXT · done · fail TEXT
//
// "-" is the empty name; \n in data is a line break; # begins a comment.
func ParseScript(text string) ([]Step, error) {
	var steps []Step
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		left, right, found := strings.Cut(line, " => ")
		replies, err := strconv.Atoi(right)
		if !found || err != nil && right != "ready" {
			return nil, fmt.Errorf("no number of replies in %q", line)
		}
		step := Step{Line: line, Replies: replies}
		for message := range strings.SplitSeq(left, " | ") {
			b, err := parseMessage(message)
			if err != nil {
				return nil, err
			}
			step.Send = append(step.Send, b)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func parseMessage(s string) ([]byte, error) {
	word, rest, _ := strings.Cut(s, " ")
	first, more, _ := strings.Cut(rest, " ")
	if first == "-" {
		first = ""
	}
	switch word {
	case "query":
		return Encode('Q', rest), nil
	case "parse":
		return Encode('P', first, more, int16(0)), nil
	case "bind":
		values := strings.Fields(more)
		parts := []any{"", first, int16(0), int16(len(values))}
		for _, v := range values {
			parts = append(parts, int32(len(v)), []byte(v))
		}
		return Encode('B', append(parts, int16(0))...), nil
	case "describe":
		return Encode('D', byte('S'), first), nil
	case "execute":
		return Encode('E', "", int32(0)), nil
	case "close":
		return Encode('C', byte('S'), first), nil
	case "data":
		return Encode('d', []byte(strings.ReplaceAll(rest, `\n`, "\n"))), nil
	case "fail":
		return Encode('f', rest), nil
	}
	if kind, ok := map[string]byte{"sync": 'S', "flush": 'H', "done": 'c'}[word]; ok {
		return Encode(kind), nil
	}
	return nil, fmt.Errorf("no such message: %q", s)
}

// Play sends a step and returns the replies.
func (c *Client) Play(s Step) ([]Message, error) {
	if err := c.Send(s.Send...); err != nil {
		return nil, err
	}
	if s.Replies == 0 {
		return c.Until('Z')
	}
	var all []Message
	for range s.Replies {
		m, err := c.Receive()
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}
