package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

// acceptPause is how long the port rests after it could not accept, which is mostly for
// want of file descriptors.
const acceptPause = 50 * time.Millisecond

// accept never waits for a handshake: when there are too many, the door closes one.
func (l *Link) accept(ctx context.Context, running *sync.WaitGroup) {
	for {
		raw, err := l.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if raw != nil {
				raw.Close()
			}
			return
		case err != nil:
			l.cfg.Logger.Warn("cannot accept a node's connection", armor.KeyErr, err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
			continue
		}
		if place := l.door.Enter(door.AddressOf(raw).Addr(), raw); place != nil {
			running.Go(func() { l.handshake(ctx, raw, place) })
		}
	}
}

// handshake proves who came and hands the connection to its protocol's listener.
func (l *Link) handshake(ctx context.Context, raw net.Conn, place *door.Place) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tracked := l.track(place.Guard())
	conn := tls.Server(tracked, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient:     l.serverConfig,
	})
	err := conn.HandshakeContext(ctx)
	if err == nil {
		err = l.welcome(tracked, raw, place, conn.ConnectionState())
	}
	if err != nil {
		if l.refusals.Allow() {
			l.cfg.Logger.Warn("refused a node's connection", armor.KeySource, raw.RemoteAddr().String(), armor.KeyErr, err)
		}
		tracked.Close()
		return
	}
	if r := l.routeOf(conn.ConnectionState().NegotiatedProtocol); r == nil || !r.deliver(ctx, conn) {
		conn.Close()
	}
}

var errEvicted = fmt.Errorf("%w: it made room for another connection", armor.ErrExhausted)

// welcome gives a connection whose handshake is over its place inside. Who has proved
// nothing, as it has yet to join, goes from one door to the next.
func (l *Link) welcome(tracked *trackedConn, raw net.Conn, place *door.Place, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		place.Leave()
		seat := l.joiners.Enter(door.AddressOf(raw).Addr(), raw)
		if seat == nil || !tracked.seated(seat) {
			return errEvicted
		}
		return nil
	}
	if !place.Proven() {
		return errEvicted
	}
	return l.believe(tracked, claim{chain: state.PeerCertificates, alpn: state.NegotiatedProtocol})
}

// serverConfig answers one hello. A client that speaks nothing but the join protocol
// may come without a certificate, and reaches nothing else.
func (l *Link) serverConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	certificate, err := l.certificate()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{certificate},
	}
	if joins(hello.SupportedProtos) {
		cfg.NextProtos = []string{Join}
		return cfg, nil
	}
	cfg.NextProtos = certified
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = l.verifyClient
	return cfg, nil
}

func (l *Link) certificate() (tls.Certificate, error) {
	certificate, err := l.cfg.Certificate()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of this node: %w", err)
	}
	return *certificate, nil
}
