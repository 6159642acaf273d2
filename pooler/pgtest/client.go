package pgtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/xdg-go/scram"
)

// Message is one message of the protocol, in either direction.
type Message struct {
	Type byte
	Body []byte
}

// String is the type and, for errors, the fields that people read.
func (m Message) String() string {
	switch m.Type {
	case 'E', 'N':
		f := m.Fields()
		return fmt.Sprintf("%c %s %s %s", m.Type, f['V'], f['C'], f['M'])
	case 'Z', 'C', 'S', 'D':
		return fmt.Sprintf("%c %s", m.Type, strings.TrimRight(strings.ReplaceAll(string(m.Body), "\x00", " "), " "))
	}
	return string(m.Type)
}

// Fields are those of an ErrorResponse or NoticeResponse.
func (m Message) Fields() map[byte]string {
	fields := map[byte]string{}
	for _, f := range strings.Split(string(m.Body), "\x00") {
		if f != "" {
			fields[f[0]] = f[1:]
		}
	}
	return fields
}

// Encode makes a message of strings (NUL-terminated), byte slices (as they are),
// int16 and int32.
func Encode(kind byte, parts ...any) []byte {
	b := []byte{kind, 0, 0, 0, 0}
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(append(b, p...), 0)
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int16:
			b = binary.BigEndian.AppendUint16(b, uint16(p))
		case int32:
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		default:
			panic(fmt.Sprintf("pgtest: cannot encode a %T", p))
		}
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// Startup makes a startup packet of protocol 3.0 from names and values.
func Startup(parameters ...string) []byte { return StartupOf(0, parameters...) }

// StartupOf does the same for protocol 3.minor.
func StartupOf(minor uint16, parameters ...string) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), 3<<16|uint32(minor))
	for _, p := range parameters {
		b = append(append(b, p...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// Client speaks the protocol message by message.
type Client struct {
	net.Conn
	PID, Secret uint32
	Parameters  map[string]string
	Password    string // proved by SCRAM when it is asked for
	proof       *scram.ClientConversation
}

// Send writes messages at once.
func (c *Client) Send(messages ...[]byte) error {
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	_, err := c.Write(all)
	return err
}

// Receive reads one message.
func (c *Client) Receive() (Message, error) { return ReadMessage(c.Conn) }

// ReadMessage reads one message from r.
func ReadMessage(r io.Reader) (Message, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Message{}, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > 1<<30 {
		return Message{}, fmt.Errorf("message %q of length %d", head[0], size)
	}
	body := make([]byte, size-4)
	_, err := io.ReadFull(r, body)
	return Message{Type: head[0], Body: body}, err
}

// Login sends a startup packet and reads up to the first ReadyForQuery. An ErrorResponse
// is an error.
func (c *Client) Login(parameters ...string) error {
	if err := c.Send(Startup(parameters...)); err != nil {
		return err
	}
	c.Parameters = map[string]string{}
	for {
		m, err := c.Receive()
		if err != nil {
			return err
		}
		switch m.Type {
		case 'R':
			if err := c.prove(m.Body); err != nil {
				return err
			}
		case 'S':
			name, value, _ := strings.Cut(strings.TrimSuffix(string(m.Body), "\x00"), "\x00")
			c.Parameters[name] = value
		case 'K':
			c.PID, c.Secret = binary.BigEndian.Uint32(m.Body), binary.BigEndian.Uint32(m.Body[4:])
		case 'E':
			return &Refusal{m.Fields()}
		case 'Z':
			return nil
		}
	}
}

// The kinds of Authentication messages (PostgreSQL, "Message Formats").
const (
	authOK           = 0
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// prove answers an Authentication message.
func (c *Client) prove(body []byte) error {
	switch kind, rest := binary.BigEndian.Uint32(body), string(body[4:]); kind {
	case authOK:
		return nil
	case authSASL:
		client, err := scram.SHA256.NewClient("", c.Password, "") // PostgreSQL takes the name of the startup packet
		if err != nil {
			return err
		}
		c.proof = client.NewConversation()
		first, err := c.proof.Step("")
		if err != nil {
			return err
		}
		return c.Send(Encode('p', "SCRAM-SHA-256", len(first), []byte(first)))
	case authSASLContinue, authSASLFinal:
		answer, err := c.proof.Step(rest)
		if err != nil || kind == authSASLFinal {
			return err
		}
		return c.Send(Encode('p', []byte(answer)))
	default:
		return fmt.Errorf("authentication of kind %d is asked for", kind)
	}
}

// Refusal is an ErrorResponse as an error.
type Refusal struct{ Fields map[byte]string }

// Error is the severity, the SQLSTATE and the message.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s %s: %s", r.Fields['V'], r.Fields['C'], r.Fields['M'])
}

// Until reads messages up to and including the first of the type.
func (c *Client) Until(kind byte) ([]Message, error) {
	var all []Message
	for {
		m, err := c.Receive()
		if err != nil {
			return all, err
		}
		if all = append(all, m); m.Type == kind {
			return all, nil
		}
	}
}

// Query runs a simple query and returns the first column of its rows. The first
// ErrorResponse is the error.
func (c *Client) Query(sql string) ([]string, error) {
	if err := c.Send(Encode('Q', sql)); err != nil {
		return nil, err
	}
	return c.Answer()
}

// Answer reads up to ReadyForQuery.
func (c *Client) Answer() (column []string, err error) {
	for {
		m, failed := c.Receive()
		if failed != nil {
			if err != nil {
				return column, err
			}
			return column, failed
		}
		switch m.Type {
		case 'D':
			column = append(column, firstColumn(m.Body))
		case 'E':
			if err == nil {
				err = &Refusal{m.Fields()}
			}
		case 'Z':
			return column, err
		}
	}
}

func firstColumn(row []byte) string {
	if len(row) < 6 {
		return ""
	}
	size := int32(binary.BigEndian.Uint32(row[2:]))
	if size < 0 {
		return "NULL"
	}
	return string(row[6 : 6+size])
}

// CancelRequest makes the packet that cancels what runs under the key.
func CancelRequest(pid, secret uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 16)
	b = binary.BigEndian.AppendUint32(b, 80877102)
	b = binary.BigEndian.AppendUint32(b, pid)
	return binary.BigEndian.AppendUint32(b, secret)
}
