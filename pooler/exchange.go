package pooler

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

// refresh makes the connection fit for the next client: it takes what PostgreSQL has
// said meanwhile, makes sure by a ping that a cancel request has had its effect, and
// resets what a client may have left behind. If it fails the connection is to be ended.
func (w *wire) refresh(ping bool) error {
	err := w.refreshed(ping)
	if err != nil {
		w.busy = true
	}
	return err
}

func (w *wire) refreshed(ping bool) error {
	defer w.stream.SetDeadline(time.Time{}) //nolint:errcheck // a broken connection shows at the next use
	if !w.quiet() || len(w.rest) > 0 {
		if err := w.inspect(); err != nil {
			return fmt.Errorf("read from an idle server connection: %w", err)
		}
	}
	if err := w.stream.SetDeadline(time.Now().Add(w.home.ResetTimeout)); err != nil {
		return err
	}
	if ping {
		if err := w.converse(pgwire.AppendQuery(nil, ""), &core.Exchange{}); err != nil {
			return fmt.Errorf("ask for an answer after a cancel request: %w", err)
		}
	}
	if !w.state.Dirty() {
		return nil
	}
	if err := w.reset(); err != nil {
		return fmt.Errorf("reset a server connection: %w", err)
	}
	return nil
}

func (w *wire) reset() error {
	var x core.Exchange
	if err := w.converse(pgwire.AppendQuery(nil, resetQuery), &x); err != nil {
		return err
	}
	if x.Err != nil {
		return x.Err
	}
	w.state.WasReset()
	return nil
}

// inspect reads what has arrived on an idle connection.
func (w *wire) inspect() error {
	if err := w.stream.SetReadDeadline(time.Now().Add(inspectFor)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := w.state.FromIdle(w.rest)
		if err != nil {
			return err
		}
		w.rest = append([]byte(nil), w.rest[n:]...)
		if len(w.rest) == 0 && w.quiet() {
			return nil
		}
		n, err = w.stream.Read(buf)
		w.rest = append(w.rest, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && len(w.rest) == 0:
			return nil
		default:
			w.failed(err)
			return err
		}
	}
}

// ask sends a request of the pooler's own on a connection that is idle and collects the
// answer in x, within patience and until ctx ends.
func (w *wire) ask(ctx context.Context, request []byte, x *core.Exchange, patience time.Duration) error {
	if err := w.stream.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.stream.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	err := w.converse(request, x)
	if stop() && err == nil {
		err = w.stream.SetDeadline(time.Time{})
	}
	return err
}

// converse sends a request and collects its answer. The caller sets the deadline.
func (w *wire) converse(request []byte, x *core.Exchange) error {
	if _, err := w.stream.Write(request); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := w.state.FromExchange(w.rest, x)
		if err != nil {
			return err
		}
		if w.rest = append([]byte(nil), w.rest[n:]...); x.Done {
			return nil
		}
		n, err = w.stream.Read(buf)
		w.rest = append(w.rest, buf[:n]...)
		if err != nil && n == 0 {
			w.failed(err)
			return err
		}
	}
}
