package pooler_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// closed stands in a transcript for the end of the connection.
const closed = '!'

// side is where a program can be played: PostgreSQL itself, or the pooler.
type side struct {
	network, address, database string
	identity                   armor.Identity // that clients have proved; empty: none
}

// player plays one program over one connection.
type player struct {
	*pgtest.Client
	side
	split  *rand.Rand
	until  time.Time
	number []byte // of this play

	transcript []pgtest.Message
	ready      int // ReadyForQuery that are due
	replies    int // due in the cycle that is open
	pending    []byte
	over       bool
}

// playNumber stands in a query for the number of the play, so that PostgreSQL's activity
// tells it from that of another.
const playNumber = "00000000"

var plays atomic.Uint64

// play plays a program and returns all that was answered, from the login on, and the
// process id in BackendKeyData. An error says what did not come.
func (h *house) play(p program, on side, patience time.Duration) (transcript []pgtest.Message, own uint32, err error) {
	c, err := h.loginTo(on, p.startup...)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	until := time.Now().Add(patience)
	if err := c.SetDeadline(until); err != nil {
		return nil, 0, err
	}
	pl := &player{Client: c, side: on, split: rand.New(rand.NewPCG(p.split, 1)), until: until}
	pl.number = fmt.Appendf(nil, "%08d", plays.Add(1))
	for _, name := range slices.Sorted(maps.Keys(c.Parameters)) {
		pl.transcript = append(pl.transcript, pgtest.Message{Type: 'S', Body: []byte(name + "\x00" + c.Parameters[name] + "\x00")})
	}
	for _, b := range p.blocks {
		for _, s := range b {
			if err := pl.step(h, s); err != nil {
				return pl.transcript, c.PID, fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return pl.transcript, c.PID, pl.leave()
}

func (p *player) step(h *house, s step) error {
	if p.over {
		return nil
	}
	p.pending = append(p.pending, p.numbered(s.bytes)...)
	if s.ready {
		p.ready++
	}
	if s.replies {
		p.replies++
	}
	if s.await == nothing {
		return nil
	}
	wrote := make(chan error, 1)
	go func(b []byte) { wrote <- p.write(b) }(p.pending)
	p.pending = nil
	err := p.read(h, s)
	if failed := <-wrote; err == nil && !p.over {
		err = failed
	}
	return err
}

func (p *player) numbered(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte(playNumber), p.number)
}

// write cuts what is sent into pieces, some of which go out by themselves.
func (p *player) write(b []byte) error {
	most := 1 << p.split.IntN(18)
	for len(b) > 0 {
		n := min(len(b), 1+p.split.IntN(most))
		if _, err := p.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		switch p.split.IntN(20) {
		case 0:
			time.Sleep(time.Duration(p.split.IntN(300)) * time.Microsecond)
		case 1, 2, 3, 4:
			runtime.Gosched()
		}
		if len(b) > 64*most {
			most *= 2 // a large one is not sent byte by byte to its end
		}
	}
	return nil
}

// read reads until what the step waits for has come.
func (p *player) read(h *house, s step) error {
	marked, canceled := false, s.await != untilCancel
	for !p.satisfied(s, marked) {
		if !canceled {
			if err := p.cancel(h, string(p.numbered([]byte(s.mark)))); err != nil {
				return err
			}
			canceled = true
		}
		m, err := p.Receive()
		if err != nil {
			p.over = true
			if isTimeout(err) {
				return err
			}
			p.transcript = append(p.transcript, pgtest.Message{Type: closed})
			return nil
		}
		p.note(m)
		marked = marked || s.await == untilMark && m.Type == 'N' && strings.Contains(m.Fields()['M'], s.mark)
		if marked && m.Type == 'Z' {
			p.ready = 0
		}
	}
	return nil
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

func (p *player) note(m pgtest.Message) {
	p.transcript = append(p.transcript, m)
	switch m.Type {
	case 'Z':
		p.ready--
		p.replies = 0
	case '1', '2', '3', 'T', 'n', 'C', 'I', 's':
		p.replies--
	}
}

// satisfied reports whether what the step waits for has come.
func (p *player) satisfied(s step, marked bool) bool {
	var last byte
	if n := len(p.transcript); n > 0 {
		last = p.transcript[n-1].Type
	}
	switch s.await {
	case untilMark:
		return marked && last == 'Z'
	case untilReply:
		return last == 'G' || last == 'E' && !s.ready || p.replies <= 0 && !s.ready || s.ready && p.ready <= 0
	}
	return p.ready <= 0
}

// cancel waits until PostgreSQL runs the query, and cancels it.
func (p *player) cancel(h *house, query string) error {
	observer := h.observer()
	defer observer.Close()
	sql := "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query = '" + query + "'"
	for {
		running, err := observer.Query(sql)
		if err != nil {
			return err
		}
		if len(running) > 0 {
			break
		}
		if time.Now().After(p.until) {
			return fmt.Errorf("PostgreSQL does not run %s", query)
		}
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(p.until); err != nil {
		return err
	}
	if err := c.Send(pgtest.CancelRequest(p.PID, p.Secret)); err != nil {
		return err
	}
	if _, err := c.Receive(); err != io.EOF { // PostgreSQL sends two signals: the next query must not meet one
		return fmt.Errorf("a cancel request was answered: %w", err)
	}
	return nil
}

// leave ends the session and waits until the other side has ended it, too.
func (p *player) leave() error {
	if p.over {
		return nil
	}
	if err := p.Send(pgtest.Encode('X')); err != nil {
		return err
	}
	for {
		m, err := p.Receive()
		if err != nil {
			return nil // it is over, however
		}
		p.transcript = append(p.transcript, m)
	}
}

// sides are PostgreSQL itself, where a client proves the usual role's password, and
// the pooler.
func (h *house) sides() (direct, through side) {
	return side{network: "unix", address: h.server.SocketFile(), database: pgtest.Database},
		side{network: "tcp", address: h.address, database: "orders"}
}

func (s side) dial() (*pgtest.Client, error) {
	conn, err := net.Dial(s.network, s.address)
	if err != nil {
		return nil, err
	}
	return &pgtest.Client{Conn: conn, Password: pgtest.Password}, conn.SetDeadline(time.Now().Add(patience))
}

// loginTo logs in as one who has proved the side's identity.
func (h *house) loginTo(s side, startup ...string) (*pgtest.Client, error) {
	c, err := s.dial()
	if err != nil {
		return nil, err
	}
	if s.identity != "" {
		h.proves(c, s.identity)
	}
	return c, c.Login(append([]string{"user", pgtest.Role, "database", s.database}, startup...)...)
}

func (s side) login(startup ...string) (*pgtest.Client, error) {
	c, err := s.dial()
	if err != nil {
		return nil, err
	}
	return c, c.Login(append([]string{"user", pgtest.Role, "database", s.database}, startup...)...)
}
