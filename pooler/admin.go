package pooler

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// ConsoleConfig is what the admin console tells of the node, and how it ends it.
type ConsoleConfig struct {
	Version    string // of Armor
	MaxClients int    // client connections that the node takes
	// Shutdown has the node end as by a signal: sessions end at their next idle
	// boundary. It must not block. Nil: the console cannot.
	Shutdown func()
}

// compatible is the version of PgBouncer whose commands and columns the console has.
const compatible = "1.25.2"

// console is a session of the admin console: a client that talks to the pooler itself.
// One goroutine reads, acts and answers. It sees and touches the pools of the
// environment that the client's certificate belongs to, and no others.
type console struct {
	home        *Pooler // immutable, as is all down to reader
	client      *client
	conn        net.Conn
	environment string
	admin       bool // may act; else it may only look
	legacy      bool // some old columns beside those of compatible
	reader      *bufio.Reader

	// Only the console's goroutine uses these.
	out        []byte // answers that are not written yet
	statements map[string]*adminStatement
	portals    map[string]*adminPortal
	skipping   bool // until Sync

	mu      sync.Mutex // guards below, and the deadlines of conn
	over    bool       // no further byte is written but why
	cause   error      // why it ends; nil when it ends by itself
	quiet   bool       // nothing is written any more
	confirm func()

	wake        chan struct{} // closed when over
	interrupted chan struct{} // holds a token when a cancel request has come
}

// maxConsoleMessage bounds what the console reads at once, in bytes.
const maxConsoleMessage = 16 << 10

// writePatience is how long a client of the console may take to read an answer.
const writePatience = 30 * time.Second

// newConsolePool is what the console's clients belong to: a pool in name only.
func newConsolePool(a armor.Access, home *Pooler) *pool {
	p := newPool(armor.ObjectKey(a.Environment, a.Database.Name), &home.node)
	p.cfg = armor.Pool{Name: a.Database.Name, Environment: a.Environment, Database: a.Database.Name}
	return p
}

// openConsole logs a client in to the console. The grant has been checked; the role
// says what it may do.
func (p *Pooler) openConsole(conn net.Conn, cl *client, access armor.Access, r *request) (*Handover, error) {
	c := &console{
		home: p, client: cl, conn: conn, environment: access.Environment, admin: r.role == armor.ConsoleAdmin,
		legacy: r.settings["armor.columns"] == "legacy", reader: bufio.NewReader(conn),
		statements: map[string]*adminStatement{}, portals: map[string]*adminPortal{},
		wake: make(chan struct{}), interrupted: make(chan struct{}, 1),
	}
	cl.interrupt = c.interrupt
	p.giveKey(cl, r.startup, 0)
	_ = conn.SetReadDeadline(time.Time{}) // a dead connection shows at the next use
	if err := greet(conn, r, consoleParams(r.application), cl.key); err != nil {
		return nil, err
	}
	return &Handover{Client: conn, Guest: cl.ending, client: cl, console: c}, nil
}

// consoleParams are what PgBouncer reports, and the client's own name.
func consoleParams(application string) *core.Params {
	return core.NewParams(map[string]string{
		"server_version": compatible + "/bouncer", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "GMT",
		"standard_conforming_strings": "on", "is_superuser": "on", "integer_datetimes": "on", "application_name": application,
	})
}

// run serves the client until it leaves or its session is ended.
func (c *console) run() {
	defer c.ended()
	if err := c.client.ending.HandOver(c.cut); err != nil {
		c.end(err, nil)
	}
	c.client.onDrain(func(e *pgwire.Error) { c.end(e, nil) })
	for {
		kind, body, err := c.read()
		if err != nil {
			c.farewell(err)
			return
		}
		if !c.handle(kind, body) {
			return
		}
	}
}

// read reads one message. ErrInvalid is about what the client has sent.
func (c *console) read() (kind byte, body []byte, err error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return 0, nil, err
	}
	h, err := pgwire.ClientHeader(head[:])
	if err == nil && h.Body > maxConsoleMessage {
		err = fmt.Errorf("%w: message of %d bytes is too long for the admin console", armor.ErrInvalid, h.Body)
	}
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, h.Body)
	_, err = io.ReadFull(c.reader, body)
	return h.Type, body, err
}

// farewell tells the client why its session ends, unless it has left.
func (c *console) farewell(err error) {
	c.mu.Lock()
	cause := c.cause
	c.mu.Unlock()
	switch {
	case cause != nil:
		refuse(c.conn, wireError(cause))
	case errors.Is(err, armor.ErrInvalid):
		refuse(c.conn, startupError(nil, err))
	}
}

// flush writes the answers so far. It returns false when the session is over.
func (c *console) flush() bool {
	if cause := c.client.guest.Live(); cause != nil {
		c.end(cause, nil)
	}
	c.mu.Lock()
	over := c.over
	if !over {
		_ = c.conn.SetWriteDeadline(time.Now().Add(writePatience)) // a dead connection fails at the write
	}
	c.mu.Unlock()
	if over {
		c.farewell(nil)
		return false
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err == nil
}

// cut is what the edge, or an operator, ends the session by: see Guest.
func (c *console) cut(cause error, confirm func()) { c.end(cause, confirm) }

// end has the console's goroutine stop, wherever it is.
func (c *console) end(cause error, confirm func()) {
	c.mu.Lock()
	first, quiet := !c.over, c.quiet
	if first {
		c.over, c.cause = true, cause
		close(c.wake)
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))           // a dead connection needs none,
		_ = c.conn.SetWriteDeadline(time.Now().Add(farewell)) // nor here
	}
	if confirm != nil && !quiet {
		c.confirm = confirm
	}
	c.mu.Unlock()
	if confirm != nil && quiet {
		confirm()
	}
}

// ended closes the connection and tells the edge, if it waits, that nothing is written
// any more.
func (c *console) ended() {
	c.conn.Close()
	c.mu.Lock()
	c.quiet = true
	confirm := c.confirm
	c.mu.Unlock()
	if confirm != nil {
		confirm()
	}
}

// interrupt is what a cancel request does.
func (c *console) interrupt() {
	select {
	case c.interrupted <- struct{}{}:
	default:
	}
}

// How waiting for something has ended.
var (
	errInterrupted = errors.New("interrupted")
	errGone        = errors.New("gone")
)

// await waits for what a command is about: until it is done, a cancel request comes,
// or the client leaves or is ended.
func (c *console) await(done <-chan struct{}) error {
	select { // a token of an earlier command is not for this one
	case <-c.interrupted:
	default:
	}
	gone := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, err := c.reader.Peek(1); err != nil && !isTimeout(err) {
			close(gone)
		}
	}()
	defer func() {
		c.readDeadline(time.Unix(1, 0))
		<-watched
		c.readDeadline(time.Time{})
	}()
	select {
	case <-done:
		return nil
	case <-c.interrupted:
		return errInterrupted
	case <-gone:
	case <-c.wake:
	}
	return errGone
}

// readDeadline sets one, unless the end of the session has set its own.
func (c *console) readDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = c.conn.SetReadDeadline(t) // a dead connection shows at the next use
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// atConsole reports whether a client is one of the console's.
func (c *client) atConsole() bool { return c.mode == "" }
