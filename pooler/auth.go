package pooler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// The SASL mechanisms that are offered (RFC 7677; PostgreSQL, "SASL Authentication").
const (
	scramPlain = "SCRAM-SHA-256"
	scramBound = "SCRAM-SHA-256-PLUS"
)

// prove has a client prove what its grant asks for beside its certificate. The edge
// judges the session by it from then on.
func (p *Pooler) prove(ctx context.Context, c *client, access armor.Access, r *request) error {
	switch access.SecondFactor {
	case "":
	case armor.SCRAM:
		err := p.checkPassword(ctx, c, access, r)
		if hook := p.cfg.Hooks.Password; hook != nil {
			hook(passwordResult(err))
		}
		if err != nil {
			return err
		}
	default:
		return c.guest.Refuse(&armor.Denial{
			Reason: armor.ReasonNotReady, Message: fmt.Sprintf("this node cannot check the second factor %q", access.SecondFactor),
		})
	}
	return c.guest.Proved(access.SecondFactor)
}

// passwordResult is one word for metrics.
func passwordResult(err error) string {
	if err == nil {
		return "ok"
	}
	if denial, ok := errors.AsType[*armor.Denial](err); ok {
		return string(denial.Reason)
	}
	return "abandoned"
}

// checkPassword runs the SASL exchange within PasswordTimeout, unless the client has
// failed too often. A cut or a drain ends it.
func (p *Pooler) checkPassword(ctx context.Context, c *client, access armor.Access, r *request) error {
	who := guesserOf(c.guest.Peer())
	if !p.guesses.allow(who) {
		return c.guest.Refuse(&armor.Denial{Reason: armor.ReasonLimit, Message: "too many failed password attempts", Detail: "Wait a minute, then use the right password."})
	}
	ctx, done := c.untilDrain(ctx)
	defer done()
	v, known, err := p.verifierFor(ctx, c, access.Database)
	if err != nil {
		return c.uncheckable(ctx, access.Database, err)
	}
	x := &exchange{conn: c.conn, role: c.part.role, verifier: v, known: known, binding: c.guest.EndPoint()}
	err = x.within(ctx, p.cfg.PasswordTimeout, r)
	denial, denied := errors.AsType[*armor.Denial](err)
	if !denied || denial.ID != "" { // not ours: the cause of a cut has an id
		return err
	}
	if denial.Reason == armor.ReasonPassword {
		p.guesses.failed(who)
		c.pool.lookups.doubt(c.questionOf(access.Database))
	}
	return c.guest.Refuse(denial)
}

// uncheckable is what a client is told when there is nothing to check its password by.
func (c *client) uncheckable(ctx context.Context, d armor.Database, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.home.cfg.Logger.Warn("passwords cannot be checked", armor.KeyDatabase, d.Name, armor.KeyErr, err)
	if denial, ok := errors.AsType[*armor.Denial](err); ok { // PostgreSQL is not to be had
		return c.guest.Refuse(denial)
	}
	return c.guest.Refuse(&armor.Denial{Reason: armor.ReasonNotReady, Message: "this node cannot check passwords for the database"})
}

// untilDrain returns a ctx that also ends when the node is drained, with what the
// client is told then. A drain that comes after done is the driver's.
func (c *client) untilDrain(ctx context.Context) (drained context.Context, done func()) {
	drained, cancel := context.WithCancelCause(ctx)
	c.onDrain(func(e *pgwire.Error) { cancel(e) })
	return drained, func() { cancel(nil) }
}

// exchange is one SASL exchange. A client sends two messages in it and no others:
//
//	AuthenticationSASL ──▶ SASLInitialResponse ──▶ AuthenticationSASLContinue
//	──▶ SASLResponse ──▶ AuthenticationSASLFinal
type exchange struct {
	conn     net.Conn
	role     string
	verifier verifier
	known    bool   // false: the verifier is a decoy, and nothing proves it
	binding  []byte // tls-server-end-point; nil: not to be had
}

// within runs the exchange. The error is a denial without an id, the cause with which
// ctx has ended, or says that the client has left.
func (x *exchange) within(ctx context.Context, patience time.Duration, r *request) error {
	if err := x.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = x.conn.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	err := x.run(r)
	if !stop() {
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &armor.Denial{Reason: armor.ReasonProtocol, Message: "canceling authentication due to timeout", Detail: fmt.Sprintf("No password was proved within %s.", patience)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateProtocol, Message: "the connection ended before a password was proved"}
	}
	return err
}

func (x *exchange) run(r *request) error {
	if err := x.offer(r); err != nil {
		return err
	}
	body, err := readSASL(x.conn)
	if err != nil {
		return err
	}
	mechanism, message, err := pgwire.SASLInitial(body)
	if err != nil {
		return malformedSASL()
	}
	conversation, err := x.converse(mechanism, message)
	if err != nil {
		return err
	}
	challenge, err := conversation.Step(string(message))
	if err != nil || conversation.AuthzID() != "" { // a role to become is none of SCRAM's business here
		return x.failure(challenge)
	}
	if _, err := x.conn.Write(pgwire.AppendAuthSASLContinue(nil, challenge)); err != nil {
		return err
	}
	if body, err = readSASL(x.conn); err != nil {
		return err
	}
	if message, err = pgwire.SASLResponse(body); err != nil {
		return malformedSASL()
	}
	outcome, err := conversation.Step(string(message))
	if err != nil || !conversation.Valid() || !x.known {
		return x.failure(outcome)
	}
	_, err = x.conn.Write(pgwire.AppendAuthSASLFinal(nil, outcome))
	return err
}

// offer asks for the password. What is to be said about the protocol's version comes
// before.
func (x *exchange) offer(r *request) error {
	b := appendNegotiation(nil, r.startup)
	r.startup.Minor, r.startup.Options = r.startup.Spoken(), nil // it is told once
	mechanisms := []string{scramPlain}
	if x.binding != nil {
		mechanisms = []string{scramBound, scramPlain}
	}
	_, err := x.conn.Write(pgwire.AppendAuthSASL(b, mechanisms...))
	return err
}

// converse begins a conversation in a mechanism that was offered. Its first message
// must bind to the channel if, and only if, the mechanism says so.
func (x *exchange) converse(mechanism string, first []byte) (*scram.ServerConversation, error) {
	server, err := newScramServer(x.verifier)
	if err != nil {
		return nil, err
	}
	channel := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: x.binding}
	binds := first[0] == 'p'
	switch {
	case mechanism == scramBound && x.binding != nil && binds:
		return server.NewConversationWithChannelBindingRequired(channel), nil
	case mechanism == scramPlain && x.binding != nil && !binds:
		return server.NewConversationWithChannelBinding(channel), nil // a 'y' says that our offer was tampered with
	case mechanism == scramPlain && !binds:
		return server.NewConversation(), nil
	case mechanism == scramPlain || mechanism == scramBound && x.binding != nil:
		return nil, malformedSASL()
	}
	return nil, &armor.Denial{Reason: armor.ReasonProtocol, Message: "client selected an invalid SASL authentication mechanism"}
}

// newScramServer checks one verifier. The name inside of the SCRAM messages is not
// looked at, as in PostgreSQL: the startup packet has said which role it is.
func newScramServer(v verifier) (*scram.Server, error) {
	return scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v.StoredCredentials, nil })
}

// failure turns what SCRAM says of itself into what a client of PostgreSQL is told. A
// wrong password and a role without one read alike.
func (x *exchange) failure(said string) *armor.Denial {
	switch {
	case said == scram.ErrInvalidProof, !x.known && strings.HasPrefix(said, "v="):
		return &armor.Denial{Reason: armor.ReasonPassword, Message: `password authentication failed for user "` + x.role + `"`}
	case said == scram.ErrChannelBindingsDontMatch:
		return &armor.Denial{Reason: armor.ReasonChannelBinding, Message: "SCRAM channel binding check failed", Detail: "The client's TLS connection does not end here: somebody may be in between."}
	case said == scram.ErrServerDoesSupportChannelBinding:
		return &armor.Denial{
			Reason: armor.ReasonChannelBinding, Message: "SCRAM channel binding negotiation error",
			Detail: "The client supports SCRAM channel binding but thinks the server does not. However, this server does support channel binding.",
		}
	}
	return malformedSASL()
}

func malformedSASL() *armor.Denial {
	return &armor.Denial{Reason: armor.ReasonProtocol, Message: "malformed SCRAM message"}
}

// readSASL reads the body of a SASL message and not a byte more. Anything else that a
// client could send, a second startup packet among it, ends the session.
func readSASL(conn net.Conn) ([]byte, error) {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:1]); err != nil {
		return nil, err
	}
	if head[0] != pgwire.Password {
		return nil, &armor.Denial{Reason: armor.ReasonProtocol, Message: fmt.Sprintf("expected SASL response, got message type %d", head[0])}
	}
	if _, err := io.ReadFull(conn, head[1:]); err != nil {
		return nil, err
	}
	h, err := pgwire.ClientHeader(head[:])
	if err != nil || h.Body > pgwire.MaxSASL {
		return nil, &armor.Denial{Reason: armor.ReasonProtocol, Message: "invalid message length"}
	}
	body := make([]byte, h.Body)
	_, err = io.ReadFull(conn, body)
	return body, err
}
