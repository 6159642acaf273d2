package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// inspectFor is how long an idle connection on which something has arrived is read:
// what has arrived may be a TLS record without content, or half a message.
const inspectFor = 200 * time.Millisecond

// Refresh makes the connection fit for the next client: it takes what PostgreSQL has
// said meanwhile, makes sure by a ping that a cancel request has had its effect, rolls back a
// transaction whose client has gone, and resets what a client may have left behind. If it fails the connection is to be ended.
func (c *Conn) Refresh(ping bool) error {
	err := c.refreshed(ping)
	if err != nil {
		c.busy = true
	}
	return err
}

func (c *Conn) refreshed(ping bool) error {
	defer c.stream.SetDeadline(time.Time{}) //nolint:errcheck // a broken connection shows at the next use
	if !c.Quiet() || len(c.rest) > 0 {
		if err := c.inspect(); err != nil {
			return fmt.Errorf("read from an idle server connection: %w", err)
		}
	}
	if err := c.stream.SetDeadline(time.Now().Add(c.home.cfg.ResetTimeout)); err != nil {
		return err
	}
	if c.state.Open() {
		if err := c.converse(pgwire.AppendQuery(nil, "ROLLBACK"), &core.Exchange{}); err != nil {
			return fmt.Errorf("roll back what a client has left: %w", err)
		}
	}
	if ping {
		if err := c.converse(pgwire.AppendQuery(nil, ""), &core.Exchange{}); err != nil {
			return fmt.Errorf("ask for an answer after a cancel request: %w", err)
		}
	}
	if !c.state.Dirty() {
		return nil
	}
	if err := c.reset(); err != nil {
		return fmt.Errorf("reset a server connection: %w", err)
	}
	return nil
}

// Reset takes off a connection that is idle what a client may have left there, in the
// configured time and until ctx ends. If it fails the connection is to be ended.
func (c *Conn) Reset(ctx context.Context) error {
	return c.within(ctx, c.home.cfg.ResetTimeout, c.reset)
}

// reset is Reset where the caller has set the deadline.
func (c *Conn) reset() error {
	if err := c.run(ResetQuery); err != nil {
		return err
	}
	c.state.WasReset()
	return c.connected()
}

// run runs a query of which nothing but its success is wanted. The caller sets the deadline.
func (c *Conn) run(sql string) error {
	var x core.Exchange
	if err := c.converse(pgwire.AppendQuery(nil, sql), &x); err != nil {
		return err
	}
	if x.Err != nil {
		return x.Err
	}
	return nil
}

// inspect reads what has arrived on an idle connection.
func (c *Conn) inspect() error {
	if err := c.stream.SetReadDeadline(time.Now().Add(inspectFor)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.state.FromIdle(c.rest)
		if err != nil {
			return err
		}
		c.rest = append([]byte(nil), c.rest[n:]...)
		if len(c.rest) == 0 && c.Quiet() {
			return nil
		}
		n, err = c.stream.Read(buf)
		c.rest = append(c.rest, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && len(c.rest) == 0:
			return nil
		default:
			c.failed(err)
			return err
		}
	}
}

// Ask sends a request of the pooler's own on a connection that is idle and collects the
// answer in x, within patience and until ctx ends.
func (c *Conn) Ask(ctx context.Context, request []byte, x *core.Exchange, patience time.Duration) error {
	return c.within(ctx, patience, func() error { return c.converse(request, x) })
}

// within does something on the connection, within patience and until ctx ends.
func (c *Conn) within(ctx context.Context, patience time.Duration, do func() error) error {
	if err := c.stream.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.stream.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	err := do()
	if stop() && err == nil {
		err = c.stream.SetDeadline(time.Time{})
	}
	return err
}

// converse sends a request and collects its answer. The caller sets the deadline.
func (c *Conn) converse(request []byte, x *core.Exchange) error {
	if _, err := c.stream.Write(request); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.state.FromExchange(c.rest, x)
		if err != nil {
			return err
		}
		if c.rest = append([]byte(nil), c.rest[n:]...); x.Done {
			return nil
		}
		n, err = c.stream.Read(buf)
		c.rest = append(c.rest, buf[:n]...)
		if err != nil && n == 0 {
			c.failed(err)
			return err
		}
	}
}
