//go:build linux

package loop

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Driver is pooler.Driver with event loops. Client connections must run over what
// Client has made, server connections over what Server has made.
type Driver struct {
	workers []*worker
	turn    atomic.Uint64
	log     *slog.Logger
}

var _ pooler.Driver = (*Driver)(nil)

// New makes a driver with so many loops; it starts nothing.
func New(loops int, log *slog.Logger) (*Driver, error) {
	if loops < 1 {
		return nil, fmt.Errorf("%w: %d loops", armor.ErrInvalid, loops)
	}
	d := &Driver{log: log}
	for range loops {
		w, err := newWorker(log)
		if err != nil {
			return nil, fmt.Errorf("make an event loop: %w", err)
		}
		d.workers = append(d.workers, w)
	}
	return d, nil
}

// Run runs the loops until ctx ends; sessions must have ended before.
func (d *Driver) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, w := range d.workers {
		all.Go(w.run)
	}
	<-ctx.Done()
	for _, w := range d.workers {
		w.post(func() { w.stopping = true })
	}
	all.Wait()
	return nil
}

// Drive hands one session to a loop.
func (d *Driver) Drive(h *pooler.Handover) {
	conn, secured, err := take(h.Client)
	if err != nil {
		d.log.Error("session cannot be driven by an event loop", armor.KeyErr, err)
		h.Client.Close()
		if h.Server != nil {
			h.Server.Discard()
		}
		return
	}
	w := d.workers[d.turn.Add(1)%uint64(len(d.workers))]
	s := &session{line: line{w: w, conn: conn, tls: secured, ready: true}, h: h, core: h.Session, leave: h.GoOn()}
	cut := func(cause error, confirm func()) {
		if !s.post(func() { s.cutSoon(cause, confirm) }) {
			confirm()
		}
	}
	if cause := h.Guest.HandOver(cut); cause != nil {
		s.early = cause
	}
	if !s.post(s.begin) {
		h.Client.Close()
		s.leave(nil)
		return
	}
	h.OnDrain(func(e *pgwire.Error) { s.post(func() { s.drainSoon(e) }) })
	h.OnQueued(func(e *pgwire.Error) { s.post(func() { s.queued(e) }) })
	h.OnTimeOuts(func() { s.post(s.watch) })
	if h.LookEvery() > 0 {
		s.post(s.watch)
	}
}

// take finds the connection below TLS, if there is TLS, and gives its file descriptor
// to us.
func take(c net.Conn) (*Conn, *tls.Conn, error) {
	secured, _ := c.(*tls.Conn)
	if secured != nil {
		c = secured.NetConn()
	}
	conn, ok := c.(*Conn)
	if !ok {
		return nil, nil, fmt.Errorf("client connection over %T", c)
	}
	return conn, secured, conn.Detach()
}
