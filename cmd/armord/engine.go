package main

import (
	"context"
	"net"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
)

// engine is what moves the bytes of sessions: a driver, what it must find below TLS on
// both sides, and the work that it does in the background.
type engine struct {
	driver         pooler.Driver
	client, server func(net.Conn) net.Conn // nil: connections as they are
	run            func(ctx context.Context) error
}

// dial opens connections to PostgreSQL that the engine can drive.
func (e engine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := backend.DefaultDialer.DialContext(ctx, network, address)
	if err != nil || e.server == nil {
		return c, err
	}
	return e.server(c), nil
}
