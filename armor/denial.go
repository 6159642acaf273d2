package armor

import "fmt"

// Reason is why a client was refused or cut: one word that metrics, logs and
// armorctl explain share. The table of reasons and SQLSTATEs is in
// docs/refusals.md.
type Reason string

const (
	ReasonRevoked      Reason = "revoked"
	ReasonExpired      Reason = "expired"
	ReasonNotYetValid  Reason = "not_yet_valid"
	ReasonLifetime     Reason = "lifetime"
	ReasonUntrusted    Reason = "untrusted"
	ReasonBinding      Reason = "binding"
	ReasonKeyReuse     Reason = "key_reuse"
	ReasonUnregistered Reason = "unregistered"
	ReasonProfile      Reason = "profile" // the leaf is not a client certificate as we demand it
	ReasonEnvironment  Reason = "environment"
	ReasonDatabase     Reason = "database"
	ReasonRole         Reason = "role"
	ReasonAddress      Reason = "address"
	ReasonStale        Reason = "stale"
	ReasonDraining     Reason = "draining"
	ReasonShutdown     Reason = "shutdown"
	ReasonPlaintext    Reason = "plaintext" // asked for no TLS
	ReasonProtocol     Reason = "protocol"
	ReasonNotReady     Reason = "not_ready"    // the pool cannot be served on this node yet
	ReasonQueryWait    Reason = "query_wait"   // no server connection became free in time
	ReasonServerLost   Reason = "server_lost"  // the server connection broke
	ReasonServerLogin  Reason = "server_login" // PostgreSQL refused our login
	ReasonLimit        Reason = "limit"
	ReasonNoDatabase   Reason = "no_database" // PostgreSQL has no database of the name that the template was asked for
	ReasonDisabled     Reason = "disabled"    // an operator has closed the pool to new clients on this node
	ReasonKilled       Reason = "killed"      // an operator has ended the session
	// The time-outs of a pool: see Pool.
	ReasonClientIdle         Reason = "client_idle"
	ReasonIdleInTransaction  Reason = "idle_in_transaction"
	ReasonQueryTimeout       Reason = "query_timeout"
	ReasonTransactionTimeout Reason = "transaction_timeout"

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

func revokedDenial(leaf Certificate, r Revocation) *Denial {
	what := map[SelectorKind]string{
		SelectCertificate: "client certificate is revoked",
		SelectKey:         "the key of the client certificate is revoked",
		SelectIdentity:    fmt.Sprintf("identity %q is revoked", leaf.Identity),
		SelectIssuer:      "the issuer of the client certificate is revoked",
	}[r.Selector.Kind]
	return deny(ReasonRevoked, what, leaf)
}

func leafDetail(leaf Certificate) string {
	return fmt.Sprintf("Certificate serial %s, identity %s.", leaf.ID.Serial, leaf.Identity)
}
