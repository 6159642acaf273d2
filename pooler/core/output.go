package core

// Output is what a Session wants done after one event. The driver does it in this
// order: write ToServer, write ToClient, then what Server and Client say.
//
// A driver owns its Outputs and uses one for event after event, so that sessions
// need no buffers. Whatever an event put into it aliases the event's input or the
// Output itself, and is valid until the next event that uses this Output.
type Output struct {
	ToClient Bytes
	ToServer Bytes

	// Server says what to do about the server connection.
	Server ServerWish
	// Client says what to do about the client connection.
	Client ClientWish
	// Again is what was consumed of the client's and is to be fed again, after Retry.
	Again []byte
	// Need, when not zero, is how many bytes the next event of the same side must
	// bring at least, the unconsumed ones included.
	Need int
}

// ServerWish is what a Session wants of its server connection.
type ServerWish uint8

const (
	// Keep: nothing changes.
	Keep ServerWish = iota
	// Want: the client's next message needs a server connection. The driver gets one
	// and calls Granted, or cannot and calls Refuse; then it feeds the bytes that
	// were not consumed.
	Want
	// Wait: too many replies are owed already. The driver feeds the bytes that were
	// not consumed again after the next event from the server.
	Wait
	// Release: the server connection goes back to its pool. When Server.Dirty says so
	// it must be reset before it is lent again.
	Release
	// Discard: the server connection is in an unknown state and must be ended.
	Discard
	// Retry: as Discard, and the driver feeds Again to FromClient, in front of what was not
	// consumed: the connection could not be made fit for the client, which is to notice
	// nothing of it.
	Retry
	// Ask: the driver calls Session.Ask as soon as it can write to the server, and writes what
	// that says: PostgreSQL is to be asked for the state of the client's session.
	Ask
)

// ClientWish is what a Session wants of its client connection.
type ClientWish uint8

const (
	// GoOn: nothing changes.
	GoOn ClientWish = iota
	// Hangup: close it once ToClient is written.
	Hangup
	// Reset: close it at once so that the client sees a reset, not an end: it is in
	// the middle of a message.
	Reset
)

// reset prepares for the next event.
func (o *Output) reset() {
	o.ToClient.reset()
	o.ToServer.reset()
	o.Server, o.Client, o.Need, o.Again = Keep, GoOn, 0, nil
}

// Bytes is a sequence of byte slices to be written in order: stretches of the
// input that pass unchanged, and what the Session composed.
type Bytes struct {
	parts [][]byte
	own   []byte // composed bytes; parts alias it
	size  int
}

// Parts returns the slices in order. Neighbours in the same array are one slice.
func (b *Bytes) Parts() [][]byte { return b.parts }

// Len is the number of bytes in all.
func (b *Bytes) Len() int { return b.size }

// AppendTo appends all bytes to dst.
func (b *Bytes) AppendTo(dst []byte) []byte {
	for _, p := range b.parts {
		dst = append(dst, p...)
	}
	return dst
}

func (b *Bytes) reset() {
	clear(b.parts)
	b.parts, b.own, b.size = b.parts[:0], b.own[:0], 0
}

// pass adds input bytes as they are.
func (b *Bytes) pass(p []byte) {
	if len(p) == 0 {
		return
	}
	b.size += len(p)
	if n := len(b.parts); n > 0 && continues(b.parts[n-1], p) {
		b.parts[n-1] = b.parts[n-1][:len(b.parts[n-1])+len(p)]
		return
	}
	b.parts = append(b.parts, p)
}

// continues reports whether q lies right behind p in the same array.
func continues(p, q []byte) bool {
	return cap(p)-len(p) >= len(q) && &p[:len(p)+1][len(p)] == &q[0]
}

// compose adds what fill appends to its argument.
func (b *Bytes) compose(fill func([]byte) []byte) {
	before := len(b.own)
	b.own = fill(b.own)
	b.pass(b.own[before:])
}
