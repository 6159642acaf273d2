package backend

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// LoginError is why there is no server connection: what the client may read, and all of
// it for the log.
type LoginError struct {
	*armor.Denial
	Cause   error
	Passing bool // waiting may help
	Away    bool // and nothing can be had before: PostgreSQL is not running, or it starts or stops
}

// Error is the cause in full, for the log.
func (e *LoginError) Error() string { return e.Cause.Error() }

// Unwrap leads to the denial and to the cause.
func (e *LoginError) Unwrap() []error { return []error{e.Denial, e.Cause} }

// notReady is about what a login lacks that no other attempt would find.
func notReady(cause error) error {
	return &LoginError{Cause: cause, Denial: &armor.Denial{
		Reason: armor.ReasonNotReady, Message: "the pool is not ready on this node",
		Detail: "The node lacks what it needs to log in to PostgreSQL.",
	}}
}

// Unreachable tells the client what PostgreSQL has said, and of other failures only
// that there was one: they name hosts.
func Unreachable(cause error) error {
	d := &armor.Denial{Reason: armor.ReasonServerLogin, Message: "PostgreSQL cannot be reached"}
	if e := Refusal(cause); e != nil {
		d.Message = "PostgreSQL has refused a connection of the pool"
		d.Detail = fmt.Sprintf("PostgreSQL says: %s (SQLSTATE %s).", e.Message, e.Code)
	}
	return &LoginError{Denial: d, Cause: cause}
}

// Refusal returns PostgreSQL's own words about a login that it has refused; nil if that
// is not why the login has failed.
func Refusal(err error) *pgwire.Error {
	e, told := errors.AsType[*pgconn.PgError](err)
	if !told {
		return nil
	}
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
}

// sqlState is that of a Refusal; empty for none.
func sqlState(err error) string {
	if e := Refusal(err); e != nil {
		return e.Code
	}
	return ""
}

// Passing reports whether a login that has failed like this is worth waiting for.
func Passing(err error) bool {
	failed, ok := errors.AsType[*LoginError](err)
	return ok && failed.Passing
}

// Away reports whether a login has failed since PostgreSQL is not running, or starts or stops.
func Away(err error) bool {
	failed, ok := errors.AsType[*LoginError](err)
	return ok && failed.Away
}

// isAway is Away of one host: nothing listens there, what listens breaks off, or PostgreSQL says
// so (PostgreSQL, "Class 57 — Operator Intervention").
func isAway(err error) bool {
	if failed, ok := errors.AsType[*LoginError](err); ok && failed.Reason == armor.ReasonNotReady {
		return false
	}
	for _, sign := range []error{syscall.ECONNREFUSED, syscall.ENOENT, syscall.ECONNRESET, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return strings.HasPrefix(sqlState(err), "57P")
}

// mayPass reports whether a host that would not do may do in a while.
func mayPass(err error) bool {
	if failed, ok := errors.AsType[*LoginError](err); ok && failed.Reason == armor.ReasonNotReady {
		return false
	}
	e := Refusal(err)
	return e == nil || strings.HasPrefix(e.Code, "57") // it starts, or ends
}
