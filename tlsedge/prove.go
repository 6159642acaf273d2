package tlsedge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
	"github.com/armordb/armordb/armor/pki"
)

// client is a connection whose peer has proved possession of a key.
type client struct {
	conn *tls.Conn
	peer armor.Peer
	// fault is a breach of the leaf profile, to be told by FATAL.
	fault  *armor.Denial
	served *tls.Certificate // what it was shown
}

// lastHandshakes is how long handshakes that are under way may take when the edge ends.
// Their clients are served as any other.
const lastHandshakes = 5 * time.Second

// prove brings an accepted connection to the point where the client has proved
// possession of its key, or to its end. ctx ends when the edge does.
func (e *Edge) prove(ctx context.Context, conn net.Conn, place *door.Place) (client, bool) {
	began := time.Now()
	_ = conn.SetDeadline(began.Add(e.cfg.HandshakeTimeout)) // a dead connection shows on the next read
	hurried := make(chan struct{})
	hurry := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = conn.SetDeadline(earlier(began.Add(e.cfg.HandshakeTimeout), time.Now().Add(lastHandshakes)))
	})
	c, outcome := e.greet(context.WithoutCancel(ctx), conn, place)
	if outcome == OutcomeProven {
		outcome = e.enter(place)
	}
	e.outcome(fated(outcome, place), began)
	if !hurry() {
		<-hurried // else its deadline might come after the next line
	}
	return c, outcome == OutcomeProven && conn.SetDeadline(time.Time{}) == nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// enter takes a proven client in, if there is room. From here on it has no place at the
// door.
func (e *Edge) enter(place *door.Place) Outcome {
	if !place.Proven() {
		return OutcomeEvicted
	}
	if e.open.Add(1) > int64(e.cfg.MaxSessions) {
		e.open.Add(-1)
		return OutcomeLimited
	}
	return OutcomeProven
}

// fated is the outcome, unless it was the door that has closed the connection.
func fated(o Outcome, place *door.Place) Outcome {
	switch place.Fate() {
	case door.Evicted:
		return OutcomeEvicted
	case door.Silent:
		return OutcomeTimeout
	}
	return o
}

func (e *Edge) greet(ctx context.Context, conn net.Conn, place *door.Place) (client, Outcome) {
	conn, outcome := e.unproxied(conn, place)
	if outcome != "" {
		return client{}, outcome
	}
	o, err := negotiate(conn, place.Spoke)
	if err != nil {
		return client{}, failure(o, err)
	}
	switch o.intent {
	case wantTLS:
		return e.handshake(ctx, o)
	case wantCancel:
		return client{}, e.cancelPlain(ctx, o.key, door.AddressOf(conn))
	case wantPlaintext:
		e.refusePlaintext(conn)
		return client{}, OutcomePlaintext
	}
	return client{}, OutcomeGarbage
}

// refusePlaintext tells a client that asks for no TLS what to do.
func (e *Edge) refusePlaintext(conn net.Conn) {
	e.denied(armor.ReasonPlaintext)
	answer := fatal("28000", "this server accepts only TLS connections with a client certificate",
		"Set sslmode=verify-full, sslrootcert, sslcert and sslkey.")
	if _, err := conn.Write(answer); err == nil {
		linger(conn)
	}
}

func (e *Edge) handshake(ctx context.Context, o opening) (client, Outcome) {
	p := &proof{edge: e, terms: e.termsNow(), direct: o.direct}
	under := e.cfg.Wrap(o.conn)
	conn := tls.Server(under, p.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		e.handshakeFailed(under, p, err)
		return client{}, OutcomeAlert
	}
	presented := conn.ConnectionState().PeerCertificates
	c := client{conn: conn, peer: peerOf(presented, p.chains, door.AddressOf(o.conn)), fault: profileFault(presented), served: p.served}
	// The connection would keep the parsed certificates, some 20 kB, for its life.
	clear(presented)
	return c, OutcomeProven
}

// handshakeFailed tells the operators; the client got a TLS alert and nobody knows
// who it is, so what it claimed to be is logged, and kept, as unproven.
func (e *Edge) handshakeFailed(conn net.Conn, p *proof, err error) {
	if len(p.shown) > 0 {
		e.denied(armor.ReasonUntrusted)
	}
	logged := e.failures.Allow()
	u := e.unproven.note(p.claimed(err, door.AddressOf(conn)), p.leaf(), logged, p.cure)
	if logged {
		e.cfg.Logger.With(shown(u)...).Info("client handshake failed",
			armor.KeySource, conn.RemoteAddr().String(), armor.KeyErr, err, armor.KeyRevision, p.terms.revision)
	}
	linger(conn)
}

// lingerTime is for an alert or FATAL to arrive; see linger.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger lets the other side read our last words: closing while bytes of its own
// are unread would reset the connection and take them away.
func linger(conn net.Conn) {
	if closeWrite(conn) != nil {
		return
	}
	if conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, lingerBytes) // whatever comes, we are done
}

func peerOf(presented []*x509.Certificate, chains [][]armor.Certificate, source netip.AddrPort) armor.Peer {
	leaf := presented[0]
	return armor.Peer{
		Leaf: pki.Facts(leaf, chains[0][0].Key), Chains: chains, Source: source, ServerAuth: pki.ServesToo(leaf),
	}
}

// profileFault words a breach of the leaf profile. Whether serverAuth is allowed
// depends on the anchor, which State.Decide looks at.
func profileFault(presented []*x509.Certificate) *armor.Denial {
	leaf := presented[0]
	err := pki.CheckLeaf(leaf, pki.Profile{SVID: true})
	if err == nil {
		return nil
	}
	return &armor.Denial{
		Reason:  armor.ReasonProfile,
		Message: "client " + err.Error(),
		Detail:  fmt.Sprintf("Certificate serial %s.", leaf.SerialNumber.Text(16)),
	}
}
