package pooler

import (
	"context"
	"errors"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// SQLSTATEs that we use (PostgreSQL, "Error Codes").
const (
	stateUnsupported    = "0A000"
	stateConnection     = "08006"
	stateProtocol       = "08P01"
	stateAuthorization  = "28000"
	statePassword       = "28P01"
	stateTooMany        = "53300"
	stateCanceled       = "57014"
	stateShutdown       = "57P01"
	stateNotNow         = "57P03"
	stateUnknownSetting = "42704"
	stateNoDatabase     = "3D000"
	stateNotAllowed     = "42501"
	stateNotInState     = "55000"
	stateBadValue       = "22023"
	stateInternal       = "XX000"

	stateIdleSession        = "57P05"
	stateIdleInTransaction  = "25P03"
	stateTransactionTimeout = "25P04"
)

// sqlStates is docs/refusals.md. A reason that is not in it is about authorization.
var sqlStates = map[armor.Reason]string{
	armor.ReasonStale:       stateNotNow,
	armor.ReasonNotReady:    stateNotNow,
	armor.ReasonQueryWait:   stateTooMany,
	armor.ReasonLimit:       stateTooMany,
	armor.ReasonShutdown:    stateShutdown,
	armor.ReasonDraining:    stateShutdown,
	armor.ReasonServerLost:  stateConnection,
	armor.ReasonServerLogin: stateConnection,
	armor.ReasonProtocol:    stateProtocol,
	armor.ReasonPassword:    statePassword,
	armor.ReasonDisabled:    stateNotNow,
	armor.ReasonNoDatabase:  stateNoDatabase,
	armor.ReasonKilled:      stateShutdown,

	armor.ReasonClientIdle:         stateIdleSession,
	armor.ReasonIdleInTransaction:  stateIdleInTransaction,
	armor.ReasonQueryTimeout:       stateCanceled,
	armor.ReasonTransactionTimeout: stateTransactionTimeout,
}

// wireError is the FATAL with which a client is refused or cut because of err. What
// is neither a denial nor already on its way to the client stays unexplained:
// it may name hosts.
func wireError(err error) *pgwire.Error {
	if denial, ok := errors.AsType[*armor.Denial](err); ok {
		return denialError(denial)
	}
	if own, ok := errors.AsType[*pgwire.Error](err); ok {
		return own
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, armor.ErrShuttingDown) {
		return denialError(armor.ShutdownDenial())
	}
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateInternal, Message: "internal error"}
}

func denialError(d *armor.Denial) *pgwire.Error {
	code, ok := sqlStates[d.Reason]
	if !ok {
		code = stateAuthorization
	}
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: code, Message: d.Message, Detail: d.Detail, Hint: d.Hint}
}

const connectAgain = "Connect again: another node will serve you."

func drainingDenial() *armor.Denial {
	return &armor.Denial{Reason: armor.ReasonDraining, Message: "this node is being drained", Detail: connectAgain}
}

// canceledError answers a client that cancels while it waits for a server connection,
// in PostgreSQL's words.
func canceledError() *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityError, Code: stateCanceled, Message: "canceling statement due to user request"}
}
