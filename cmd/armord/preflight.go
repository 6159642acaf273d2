package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// preflight finds out whether the node could serve: that its ports are free and its certificate is
// good. It comes before the node asks to join, and before a member takes part in its cluster: one that is
// counted on and ends at once may cost the others their quorum.
func (c home) preflight(log *slog.Logger) error {
	if _, err := openKeyPair(c.Client.CertFile, c.Client.KeyFile, log); err != nil {
		return fmt.Errorf("what clients shall see: %w", err)
	}
	return errors.Join(
		isFree("clients", "client.listen", "tcp", c.Client.Listen),
		isFree("other nodes", "peer.listen", "tcp", c.Peer.Listen),
		isFree("gossip", "gossip.listen", "tcp", c.Gossip.Listen),
		isFree("gossip", "gossip.listen", "udp", c.Gossip.Listen),
	)
}

// isFree takes a port for a moment. The one who listens there later says so if it was lost meanwhile.
func isFree(what, field, network, address string) error {
	var taken interface{ Close() error }
	var err error
	if network == "udp" {
		taken, err = net.ListenPacket(network, address)
	} else {
		taken, err = net.Listen(network, address)
	}
	if err != nil {
		return fmt.Errorf("listen for %s (%s): %w", what, field, err)
	}
	return taken.Close()
}
