package password

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// exchange is one SASL exchange. A client sends two messages in it and no others:
//
//	AuthenticationSASL ──▶ SASLInitialResponse ──▶ AuthenticationSASLContinue
//	──▶ SASLResponse ──▶ AuthenticationSASLFinal
type exchange struct {
	client  Client
	role    string
	found   Found // not Known: its verifier is a decoy, and nothing proves it
	binding []byte
	preface []byte
}

// within runs the exchange. The error is a denial without an id, the cause with which
// ctx has ended, or says that the client has left.
func (x *exchange) within(ctx context.Context, patience time.Duration) error {
	if err := x.client.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = x.client.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	err := x.run()
	if !stop() {
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &armor.Denial{
			Reason: armor.ReasonProtocol, Message: "canceling authentication due to timeout",
			Detail: fmt.Sprintf("No password was proved within %s.", patience),
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: "08P01", Message: "the connection ended before a password was proved"}
	}
	return err
}

func (x *exchange) run() error {
	if err := x.offer(); err != nil {
		return err
	}
	body, err := x.client.Next()
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
	if err := x.client.Send(pgwire.AppendAuthSASLContinue(nil, challenge)); err != nil {
		return err
	}
	if body, err = x.client.Next(); err != nil {
		return err
	}
	if message, err = pgwire.SASLResponse(body); err != nil {
		return malformedSASL()
	}
	outcome, err := conversation.Step(string(message))
	if err != nil || !conversation.Valid() || !x.found.Known {
		return x.failure(outcome)
	}
	return x.client.Send(pgwire.AppendAuthSASLFinal(nil, outcome))
}

// offer asks for the password.
func (x *exchange) offer() error {
	mechanisms := []string{scramPlain}
	if x.binding != nil {
		mechanisms = []string{scramBound, scramPlain}
	}
	return x.client.Send(pgwire.AppendAuthSASL(x.preface, mechanisms...))
}

// converse begins a conversation in a mechanism that was offered. Its first message
// must bind to the channel if, and only if, the mechanism says so.
func (x *exchange) converse(mechanism string, first []byte) (*scram.ServerConversation, error) {
	server, err := newScramServer(x.found.Verifier)
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
func newScramServer(v Verifier) (*scram.Server, error) {
	return scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v.stored, nil })
}

// failure turns what SCRAM says of itself into what a client of PostgreSQL is told. A
// wrong password and a role without one read alike.
func (x *exchange) failure(said string) *armor.Denial {
	switch {
	case said == scram.ErrInvalidProof, !x.found.Known && strings.HasPrefix(said, "v="):
		return &armor.Denial{Reason: armor.ReasonPassword, Message: `password authentication failed for user "` + x.role + `"`}
	case said == scram.ErrChannelBindingsDontMatch:
		return &armor.Denial{
			Reason: armor.ReasonChannelBinding, Message: "SCRAM channel binding check failed",
			Detail: "The client's TLS connection does not end here: somebody may be in between.",
		}
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
