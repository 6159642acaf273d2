package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Connect is what is run on a connection when it has logged in, and again when it was reset.
type Connect struct {
	Query string   // armor.Pool.ConnectQuery; empty: nothing is
	Keep  []string // armor.Pool.KeepSettings: what it may set, though no text shows it
	// Settings are put in force again behind it: they are the client's, and the login's own.
	Settings map[string]string
}

// givenRows bounds how many settings a connectQuery may be found to have set.
const givenRows = 1000

// begin makes a connection that has just logged in what it is after a reset.
func (c *Conn) begin(ctx context.Context) error {
	err := c.within(ctx, c.home.cfg.LoginTimeout, c.connected)
	if _, said := errors.AsType[*LoginError](err); err == nil || said {
		return err
	}
	return Unreachable(fmt.Errorf("run the pool's connectQuery: %w", err))
}

// connected runs the query and asks what it has set. The caller sets the deadline.
func (c *Conn) connected() error {
	if c.connect.Query == "" {
		return nil
	}
	err := c.run(c.connect.Query)
	if e, refused := errors.AsType[*pgwire.Error](err); refused {
		return connectRefused(e)
	}
	if err != nil {
		return err
	}
	if own := core.NewSettings(c.connect.Settings).SQL(); own != "" {
		if err := c.run(own); err != nil {
			return err
		}
	}
	x := core.Exchange{Keep: givenRows}
	if err := c.converse(pgwire.AppendQuery(nil, core.AskGiven(c.connect.Query, c.connect.Keep)), &x); err != nil {
		return err
	}
	if x.Err != nil {
		return x.Err
	}
	return c.state.Give(c.connect.Query, x.Rows)
}

// connectRefused is a login that has failed by what the pool is configured to run, with
// PostgreSQL's words, and not its SQLSTATE: a client would take that for an answer to its own.
func connectRefused(e *pgwire.Error) error {
	return &LoginError{
		Cause: fmt.Errorf("run the pool's connectQuery: PostgreSQL says: %s (SQLSTATE %s)", e.Message, e.Code),
		Denial: &armor.Denial{
			Reason: armor.ReasonNotReady, Message: "the pool is not ready on this node",
			Detail: fmt.Sprintf("PostgreSQL has refused the pool's connectQuery: %s (SQLSTATE %s).", e.Message, e.Code),
		},
	}
}
