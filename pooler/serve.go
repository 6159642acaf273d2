package pooler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// farewell bounds the writing of a last message, and the reading of a first one that
// will be refused.
const farewell = time.Second

// ServeConn serves a client that has proved who it is, and returns when its session
// has ended or goes on by itself (Guest.GoOn). ctx ends, with the cause, when the session is cut before the driver has
// it.
func (p *Pooler) ServeConn(ctx context.Context, conn net.Conn, g Guest) {
	packet, err := readStartup(ctx, conn, p.cfg.StartupTimeout)
	switch {
	case errors.Is(err, armor.ErrInvalid):
		refuse(conn, startupError(nil, err))
		return
	case err != nil:
		return // there is nobody to talk to
	case pgwire.IsCancel(packet):
		if key, err := pgwire.ParseCancel(packet); err == nil {
			g.Cancel(ctx, key)
		}
		return // PostgreSQL does not answer either
	}
	h, err := p.logIn(ctx, conn, g, packet)
	if err != nil {
		refuse(conn, wireError(err))
		return
	}
	defer func() {
		if !h.goesOn {
			p.forget(h.client)
		}
	}()
	h.driver.Drive(h)
}

// refuse tells a client why it is not served. The edge closes the connection.
func refuse(conn net.Conn, e *pgwire.Error) {
	_ = conn.SetWriteDeadline(time.Now().Add(farewell)) // a dead connection needs none
	_, _ = conn.Write(pgwire.AppendError(nil, e))       // it is refused whether it reads that or not
}

// logIn takes a client from its startup packet to its first ReadyForQuery.
func (p *Pooler) logIn(ctx context.Context, conn net.Conn, g Guest, packet []byte) (*Handover, error) {
	startup, err := pgwire.ParseStartup(packet)
	if err != nil {
		return nil, startupError(packet, err)
	}
	r := newRequest(startup)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := r.readReplication(); err != nil {
		return nil, err
	}
	access, err := g.Admit(r.database, r.role, r.replication)
	if err != nil {
		return nil, err
	}
	if err := r.readSettings(); err != nil {
		return nil, err
	}
	if err := r.makeTerms(access.Pool.Mode); err != nil {
		return nil, err
	}
	c, err := p.register(access, conn, &r, g)
	if err != nil {
		return nil, err
	}
	h, err := p.admit(ctx, conn, c, access, &r)
	if err != nil {
		p.forget(c)
	}
	return h, err
}

// admit lets a client in once it has proved all that its grant asks for.
func (p *Pooler) admit(ctx context.Context, conn net.Conn, c *client, access armor.Access, r *request) (*Handover, error) {
	if err := p.prove(ctx, c, access, r); err != nil {
		return nil, err
	}
	if armor.IsConsole(access.Database.Name) {
		return p.welcomeToConsole(conn, c, r)
	}
	return p.welcome(ctx, conn, c, r)
}

// register makes the client known to Drain, unless the node takes none any more or has
// enough of its kind.
func (p *Pooler) register(access armor.Access, conn net.Conn, r *request, g Guest) (*client, error) {
	of := partOf(access, r.role, r.terms)
	pl, refused := p.poolFor(access, of)
	if refused != nil {
		return nil, g.Refuse(refused)
	}
	c := &client{
		home: p, pool: pl, borrower: borrower{part: of, terms: r.terms, id: p.nextID.Add(1), owner: ownerOf(g), application: r.application,
			isolation: access.Pool.Isolation},
		guest: g, ending: &ending{Guest: g}, conn: conn, since: time.Now(),
		mode: r.terms.mode(access.Pool.Mode), state: access.Pool.OnState, keepSettings: access.Pool.KeepSettings,
		environment: access.Environment, bounds: boundsOf(access),
	}
	c.pinning.c = c
	if refused := p.roster.enter(c, access); refused != nil {
		return nil, g.Refuse(refused)
	}
	return c, nil
}

// forget takes a client out of all books.
func (p *Pooler) forget(c *client) {
	p.keys.remove(c)
	p.roster.leave(c)
}

// welcome answers the startup packet. In session mode, and when it cannot be known
// otherwise what PostgreSQL reports to such a client, that takes a server connection.
func (p *Pooler) welcome(ctx context.Context, conn net.Conn, c *client, r *request) (*Handover, error) {
	var server *ServerConn
	var params *core.Params
	var pid uint32
	var err error
	if c.mode == armor.SessionMode {
		if server, err = p.lendForSession(ctx, c, r); err != nil {
			return nil, err
		}
		params, pid = server.State().Params(), server.wire.PID()
	} else if params, err = p.reported(ctx, c, r); err != nil {
		return nil, err
	}
	p.keys.give(c, r.startup, pid)
	c.pool.counted.logins.Add(1)
	_ = conn.SetReadDeadline(time.Time{}) // a dead connection shows at the next use
	if err := c.greet(r, params); err != nil {
		if server != nil {
			server.Discard() // it has the client's settings
		}
		return nil, err
	}
	session := core.New(core.Config{
		ID: c.id, Mode: c.mode, Params: params, Settings: r.wanted(),
		OnState: c.state, KeepSettings: c.keepSettings, Pins: &c.pinning,
		Owner: c.owner, Isolation: c.isolation, Tick: p.ticks,
		Statements: core.NewStatements(p.cfg.StatementMemory),
	})
	return &Handover{Client: conn, Session: session, Guest: c.ending, Server: server, client: c, driver: p.cfg.Driver}, nil
}

// greet says that the client is in (PostgreSQL, "Start-up"), and what its pool has to tell
// everybody.
func (c *client) greet(r *request, params *core.Params) error {
	b := pgwire.AppendAuthOK(r.negotiation())
	for name, value := range params.All() {
		b = pgwire.AppendParameterStatus(b, name, value)
	}
	b = pgwire.AppendBackendKeyData(b, c.key)
	if text := c.loginNotice(); text != "" {
		b = pgwire.AppendNotice(b, &pgwire.Error{Severity: pgwire.SeverityNotice, Code: "00000", Message: text})
	}
	b = pgwire.AppendReady(b, 'I')
	if err := c.conn.SetWriteDeadline(time.Now().Add(farewell)); err != nil {
		return err
	}
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	return c.conn.SetWriteDeadline(time.Time{})
}

// loginNotice is what the client is told when it has logged in, if anything.
func (c *client) loginNotice() string {
	if !c.borrows() {
		return ""
	}
	return c.pool.config().LoginNotifyMessage
}

// lendForSession lends a server connection with the client's settings in force: it has
// logged in with them, but for an application's name.
func (p *Pooler) lendForSession(ctx context.Context, c *client, r *request) (*ServerConn, error) {
	server, err := p.await(ctx, c)
	if err != nil || c.terms.once() || r.application == "" {
		return server, err
	}
	name := core.NewSettings(map[string]string{"application_name": r.application})
	if err := p.apply(ctx, server, c.guest, name.SQL()); err != nil {
		return nil, err
	}
	return server, nil
}

// reported returns what PostgreSQL reports to a client with these settings. It is asked once
// for each combination of them, unless all server connections are lent: then it is guessed,
// and the client is told what differs at its first transaction.
func (p *Pooler) reported(ctx context.Context, c *client, r *request) (*core.Params, error) {
	statements := r.statements()
	params := c.pool.paramsFor(c.part, statements)
	if params == nil {
		var err error
		if params, err = p.ask(ctx, c, r, statements); err != nil {
			return nil, err
		}
	}
	if r.application != "" {
		params = c.pool.namedFor(c.part, params, r.application)
	}
	return params, nil
}

// ask applies the settings to a server connection and sees what it reports.
func (p *Pooler) ask(ctx context.Context, c *client, r *request, statements string) (*core.Params, error) {
	server, err := p.awaitBriefly(ctx, c)
	switch base := c.pool.paramsFor(c.part, ""); {
	case errors.Is(err, errAllLent) && base != nil:
		return r.guess(base), nil
	case errors.Is(err, errAllLent): // nobody has logged in yet
		server, err = p.await(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	if params := c.pool.paramsFor(c.part, statements); params != nil { // somebody was faster
		server.Release(nil)
		return params, nil
	}
	if err := p.takeFromOthers(ctx, server, c.guest); err != nil {
		return nil, err
	}
	if err := p.apply(ctx, server, c.guest, statements); err != nil {
		return nil, err
	}
	params := server.State().Params()
	server.State().Apply(core.NewSettings(r.settings), c.owner)
	c.pool.learn(server, statements, params)
	server.Release(nil)
	return params, nil
}

// takeFromOthers resets a server connection that is lent to a client that is logging in: it may
// have another client's settings. It gives the connection back when it returns an error, which
// the client may read.
func (p *Pooler) takeFromOthers(ctx context.Context, server *ServerConn, g Guest) error {
	if err := g.Live(); err != nil {
		server.Release(nil)
		return err
	}
	err := server.wire.Reset(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		server.Discard()
		return context.Cause(ctx)
	}
	if said, ok := errors.AsType[*backend.LoginError](err); ok {
		server.Discard()
		return said
	}
	if refused, ok := errors.AsType[*pgwire.Error](err); ok {
		server.Discard()
		refused.Severity = pgwire.SeverityFatal
		return refused
	}
	server.Lost(err)
	return backend.Unreachable(err)
}

// await lends the client a server connection, or returns the cause with which it was
// cut meanwhile.
func (p *Pooler) await(ctx context.Context, c *client) (*ServerConn, error) {
	c.guest.SetState("waiting")
	server, err := c.pool.await(ctx, &c.borrower)
	if err != nil && ctx.Err() == nil {
		return nil, c.refusal(err)
	}
	return server, err
}

// brief is how long a login waits for a server connection that it does not need for long.
const brief = 500 * time.Millisecond

var errAllLent = errors.New("all server connections are lent")

// awaitBriefly is await, but it gives up with errAllLent.
func (p *Pooler) awaitBriefly(ctx context.Context, c *client) (*ServerConn, error) {
	ctx, stop := context.WithTimeoutCause(ctx, brief, errAllLent)
	defer stop()
	return p.await(ctx, c)
}

// apply runs statements on a server connection that is lent to a client that is
// logging in. It gives the connection back when it returns an error, which the client
// may read: it is PostgreSQL's own if that has refused a setting.
func (p *Pooler) apply(ctx context.Context, server *ServerConn, g Guest, statements string) error {
	if statements == "" {
		return nil
	}
	if err := g.Live(); err != nil {
		server.Release(nil)
		return err
	}
	var x core.Exchange
	err := server.wire.Ask(ctx, pgwire.AppendQuery(nil, statements), &x, p.cfg.ResetTimeout)
	switch {
	case ctx.Err() != nil:
		server.Discard()
		return context.Cause(ctx)
	case err != nil:
		server.Lost(err)
		return backend.Unreachable(err)
	case x.Err != nil:
		server.Release(nil)
		x.Err.Severity = pgwire.SeverityFatal
		return x.Err
	}
	return nil
}

// Drain ends every session at its next idle boundary. One that is in its login, or comes
// to it still, ends behind its first transaction, or after a second without one. It
// returns once none is left, or with the cause when ctx ends first.
func (p *Pooler) Drain(ctx context.Context) error {
	clients, empty := p.roster.drain()
	for _, c := range clients {
		c.drainNow()
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain %d sessions: %w", p.roster.count(), context.Cause(ctx))
	}
}
