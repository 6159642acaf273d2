package pooler_test

import (
	"context"
	"log/slog"
	"net"

	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/loop"
)

func init() { engines["loop"] = loopEngine }

// loopEngine has two loops, so that server connections move between them.
func loopEngine() (engine, error) {
	d, err := loop.New(2, slog.Default())
	if err != nil {
		return engine{}, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return engine{
		driver: d,
		client: func(c net.Conn, tls bool) net.Conn {
			if tls {
				return loop.Client(c)
			}
			return loop.Server(c)
		},
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := backend.DefaultDialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return loop.Server(c), nil
		},
		stop: func() { stop(); <-ended },
	}, nil
}
