package password

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Client is a client as far as its password goes; see Wire.
type Client interface {
	// Send writes messages.
	Send(messages []byte) error
	// Next reads the body of the client's next message, which has to be a SASL message.
	Next() (body []byte, err error)
	// SetDeadline has Send and Next fail with os.ErrDeadlineExceeded from then on. It may be
	// called while they run.
	SetDeadline(t time.Time) error
}

// Wire is a client at the other end of a connection.
type Wire struct{ net.Conn }

// Send writes messages.
func (w Wire) Send(messages []byte) error {
	_, err := w.Write(messages)
	return err
}

// Next reads the body of a SASL message and not a byte more. Anything else that a client
// could send, a second startup packet among it, is refused by a *armor.Denial.
func (w Wire) Next() ([]byte, error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(w, head[:1]); err != nil {
		return nil, err
	}
	if head[0] != pgwire.Password {
		return nil, &armor.Denial{Reason: armor.ReasonProtocol, Message: fmt.Sprintf("expected SASL response, got message type %d", head[0])}
	}
	if _, err := io.ReadFull(w, head[1:]); err != nil {
		return nil, err
	}
	h, err := pgwire.ClientHeader(head[:])
	if err != nil || h.Body > pgwire.MaxSASL {
		return nil, &armor.Denial{Reason: armor.ReasonProtocol, Message: "invalid message length"}
	}
	body := make([]byte, h.Body)
	_, err = io.ReadFull(w, body)
	return body, err
}
