package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// acceptPause is how long the port rests after it could not accept, which is mostly for
// want of file descriptors.
const acceptPause = 50 * time.Millisecond

func (l *Link) accept(ctx context.Context, running *sync.WaitGroup) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		raw, err := l.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if raw != nil {
				raw.Close()
			}
			return
		case err != nil:
			<-l.slots
			l.cfg.Logger.Warn("cannot accept a node's connection", armor.KeyErr, err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
			continue
		}
		running.Go(func() {
			l.handshake(ctx, raw)
			<-l.slots
		})
	}
}

// handshake proves who came and hands the connection to its protocol's listener.
func (l *Link) handshake(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tracked := l.track(raw)
	conn := tls.Server(tracked, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient:     l.serverConfig,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		l.cfg.Logger.Warn("refused a node's connection", armor.KeySource, raw.RemoteAddr().String(), armor.KeyErr, err)
		tracked.Close()
		return
	}
	state := conn.ConnectionState()
	l.proven(tracked, state)
	if r := l.routeOf(state.NegotiatedProtocol); r == nil || !r.deliver(ctx, conn) {
		conn.Close()
	}
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
