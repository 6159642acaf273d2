package armor

import (
	"fmt"
	"time"
)

// Reason is why a client was refused or cut: one word that metrics, logs and
// armorctl explain share. The table of reasons and SQLSTATEs is in
// docs/refusals.md.
type Reason string

const (
	ReasonRevoked      Reason = "revoked"       // the certificate, its key, its identity or its issuer is
	ReasonExpired      Reason = "expired"       // the certificate is past its end
	ReasonNotYetValid  Reason = "not_yet_valid" // the certificate is before its beginning
	ReasonLifetime     Reason = "lifetime"      // the certificate lives longer than its environment allows
	ReasonUntrusted    Reason = "untrusted"     // the issuer is not trusted any more
	ReasonDistrusted   Reason = "distrusted"    // the issuer's place was taken by another in a rotation
	ReasonBinding      Reason = "binding"       // the issuer may not vouch for this identity
	ReasonKeyReuse     Reason = "key_reuse"     // the key belongs to another environment
	ReasonUnregistered Reason = "unregistered"  // not in the inventory of an environment that requires it
	ReasonProfile      Reason = "profile"       // the leaf is not a client certificate as we demand it
	ReasonEnvironment  Reason = "environment"   // a database of another environment
	ReasonDatabase     Reason = "database"      // a database that is not granted, or does not exist
	ReasonRole         Reason = "role"          // a role that is not granted
	ReasonAddress      Reason = "address"       // an address that is not granted
	ReasonStale        Reason = "stale"         // this node cannot prove that it knows every revocation
	ReasonDraining     Reason = "draining"      // the node is drained, or the grant leads through another pool now
	ReasonShutdown     Reason = "shutdown"      // the node is being stopped
	ReasonPlaintext    Reason = "plaintext"     // asked for no TLS
	ReasonProtocol     Reason = "protocol"      // bytes that are not PostgreSQL's protocol
	ReasonNotReady     Reason = "not_ready"     // the pool cannot be served on this node yet
	ReasonQueryWait    Reason = "query_wait"    // no server connection became free in time
	ReasonServerLost   Reason = "server_lost"   // the server connection broke
	ReasonServerLogin  Reason = "server_login"  // PostgreSQL refused our login
	ReasonLimit        Reason = "limit"         // as many sessions, attempts or databases as there may be
	ReasonNoDatabase   Reason = "no_database"   // PostgreSQL has no database of the name that the template was asked for
	ReasonDisabled     Reason = "disabled"      // an operator has closed the pool to new clients on this node
	ReasonKilled       Reason = "killed"        // an operator has ended the session
	// The time-outs of a pool: see Pool.
	ReasonClientIdle         Reason = "client_idle"
	ReasonIdleInTransaction  Reason = "idle_in_transaction" // idle inside of a transaction
	ReasonQueryTimeout       Reason = "query_timeout"       // waiting for an answer of PostgreSQL
	ReasonTransactionTimeout Reason = "transaction_timeout" // in one transaction

	ReasonPassword       Reason = "password"        // the second factor was not proved
	ReasonChannelBinding Reason = "channel_binding" // it was, but over another TLS connection than ours
	ReasonSecondFactor   Reason = "second_factor"   // a live session's grant has come to ask for one

	ReasonReplication Reason = "replication" // a replication connection that no grant allows
)

// Denial is a refusal as the client reads it, and the cause with which a live
// session is cut. Its texts never name operators or other clients.
type Denial struct {
	Reason  Reason
	Message string // one line, lower case, as PostgreSQL words its errors
	Detail  string
	Hint    string
	// ID is what the client hands to the operator: `armorctl explain ID`. The
	// edge sets it when the denial is recorded.
	ID string
}

// Error is the message, without detail and hint.
func (d *Denial) Error() string { return d.Message }

// Is ties reasons to the sentinel errors.
func (d *Denial) Is(target error) bool {
	switch target {
	case ErrRevoked:
		return d.Reason == ReasonRevoked
	case ErrStale:
		return d.Reason == ReasonStale
	case ErrDraining:
		return d.Reason == ReasonDraining
	case ErrShuttingDown:
		return d.Reason == ReasonShutdown
	case ErrDenied:
		return d.Reason != ReasonStale && d.Reason != ReasonDraining && d.Reason != ReasonShutdown
	}
	return false
}

// WithID returns a copy that carries the denial id in its hint.
func (d *Denial) WithID(id string) *Denial {
	c := *d
	c.ID = id
	c.Hint = fmt.Sprintf("Give denial id %s to an operator: armorctl explain %s", id, id)
	return &c
}

func deny(reason Reason, message string, leaf Certificate) *Denial {
	return &Denial{Reason: reason, Message: message, Detail: leafDetail(leaf)}
}

// deny refuses what a client asked for; its text is formatted as by fmt.Sprintf.
func (f Facts) deny(reason Reason, format string, args ...any) *Denial {
	return deny(reason, fmt.Sprintf(format, args...), f.Peer.Leaf)
}

// ShutdownDenial ends the sessions that are left when a node ends.
func ShutdownDenial() *Denial {
	return &Denial{
		Reason:  ReasonShutdown,
		Message: "this node is shutting down",
		Detail:  "Connect again: another node will serve you.",
	}
}

func revokedDenial(leaf Certificate, r Revocation) *Denial {
	what := map[SelectorKind]string{
		SelectCertificate: "client certificate is revoked",
		SelectKey:         "the key of the client certificate is revoked",
		SelectIdentity:    fmt.Sprintf("identity %q is revoked", leaf.Identity),
		SelectIssuer:      "the issuer of the client certificate is revoked",
	}[r.Selector.Kind]
	return deny(ReasonRevoked, what, leaf)
}

// unconfirmedDenial refuses a certificate of an identity whose key was out.
func unconfirmedDenial(leaf Certificate, r Revocation) *Denial {
	return deny(ReasonRevoked, fmt.Sprintf("identity %q was revoked for key compromise at %s, and this certificate was not registered since",
		leaf.Identity, r.At.UTC().Format(time.RFC3339)), leaf)
}

// distrustedDenial refuses a certificate of a CA whose place another has taken.
func distrustedDenial(leaf Certificate, old, successor string) *Denial {
	d := deny(ReasonDistrusted, fmt.Sprintf("the issuer of the client certificate, CA %q, is not trusted any more", old), leaf)
	if successor != "" {
		d.Detail += fmt.Sprintf(" CA %q has taken its place: get a certificate of it.", successor)
	}
	return d
}

func leafDetail(leaf Certificate) string {
	return fmt.Sprintf("Certificate serial %s, identity %s.", leaf.ID.Serial, leaf.Identity)
}
