package pgtest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Fake is a PostgreSQL that asks for no password and does what a test tells it to.
// It lives in memory, and so in testing/synctest bubbles.
type Fake struct {
	// Answer replies to a message of a client; nil is Fake.Simple. It is called from
	// the goroutine of the connection, which ends when it returns false.
	Answer func(b *Backend, m Message) bool
	// Refuse, when it returns a message, refuses a login with that startup packet. The
	// connection ends Linger later.
	Refuse func(packet string) []byte
	Linger time.Duration
	// Report returns what else is reported at a login, as messages; nil: nothing.
	Report func() []byte
	// Buffer is how many bytes a connection holds each way; default 64 KiB.
	Buffer int

	all sync.WaitGroup

	mu       sync.Mutex // guards below
	logins   int
	open     int
	most     int
	backends map[uint32]*Backend
}

// Backend is one connection of a Fake.
type Backend struct {
	*PipeConn
	PID      uint32
	Canceled chan struct{} // holds a token for each cancel request
	Status   byte          // of the next ReadyForQuery
}

// Dial is a backend.Dial.
func (f *Fake) Dial(context.Context, string, string) (net.Conn, error) {
	size := f.Buffer
	if size == 0 {
		size = 64 << 10
	}
	ours, theirs := Pipe(size)
	f.all.Go(func() {
		defer ours.Close()
		f.serve(ours)
	})
	return theirs, nil
}

// Wait returns when all connections have ended.
func (f *Fake) Wait() { f.all.Wait() }

// Logins is how many logins were tried.
func (f *Fake) Logins() int { f.mu.Lock(); defer f.mu.Unlock(); return f.logins }

// Open is how many connections are logged in.
func (f *Fake) Open() int { f.mu.Lock(); defer f.mu.Unlock(); return f.open }

// Most is how many connections were logged in at once at most.
func (f *Fake) Most() int { f.mu.Lock(); defer f.mu.Unlock(); return f.most }

func (f *Fake) serve(conn *PipeConn) {
	packet, err := readPacket(conn)
	if err != nil {
		return
	}
	if binary.BigEndian.Uint32(packet) == 80877102 {
		f.cancel(binary.BigEndian.Uint32(packet[4:]))
		return
	}
	b := f.enter(conn)
	defer f.leave(b)
	if f.Refuse != nil {
		if refusal := f.Refuse(string(packet)); refusal != nil {
			b.Say(refusal)
			time.Sleep(f.Linger)
			return
		}
	}
	b.Say(Encode('R', int32(0)), Encode('S', "client_encoding", "UTF8"), Encode('S', "application_name", ""))
	if f.Report != nil {
		b.Say(f.Report())
	}
	b.Say(Encode('K', int32(b.PID), int32(b.PID)), Encode('Z', byte('I')))
	f.talk(b)
}

func (f *Fake) talk(b *Backend) {
	for {
		m, err := ReadMessage(b)
		if err != nil || m.Type == 'X' {
			return
		}
		if f.Answer != nil {
			if !f.Answer(b, m) {
				return
			}
			continue
		}
		f.Simple(b, m)
	}
}

// Simple answers a query with its own text as the only value, and follows BEGIN,
// COMMIT and ROLLBACK.
func (f *Fake) Simple(b *Backend, m Message) {
	if m.Type != 'Q' {
		return
	}
	sql := strings.TrimSuffix(string(m.Body), "\x00")
	switch sql {
	case "":
		b.Say(Encode('I'), Encode('Z', b.Status))
		return
	case "BEGIN":
		b.Status = 'T'
	case "COMMIT", "ROLLBACK":
		b.Status = 'I'
	case "DISCARD ALL":
	default:
		b.Say(Encode('T', int16(1), "text", int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)),
			Encode('D', int16(1), int32(len(sql)), []byte(sql)))
	}
	word, _, _ := strings.Cut(sql, " ")
	if sql == "DISCARD ALL" {
		word = sql
	}
	b.Say(Encode('C', word), Encode('Z', b.Status))
}

// Say writes messages. Whether the other side still takes them shows at the next
// read.
func (b *Backend) Say(messages ...[]byte) {
	for _, m := range messages {
		_, _ = b.Write(m)
	}
}

func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	_, err := io.ReadFull(r, packet)
	return packet, err
}

func (f *Fake) enter(conn *PipeConn) *Backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.backends == nil {
		f.backends = map[uint32]*Backend{}
	}
	f.logins++
	f.open++
	f.most = max(f.most, f.open)
	b := &Backend{PipeConn: conn, PID: uint32(1000 + f.logins), Canceled: make(chan struct{}, 16), Status: 'I'}
	f.backends[b.PID] = b
	return b
}

func (f *Fake) leave(b *Backend) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	delete(f.backends, b.PID)
}

func (f *Fake) cancel(pid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.backends[pid]; b != nil {
		select {
		case b.Canceled <- struct{}{}:
		default:
		}
	}
}
