package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// kinds is the one table that carries errors over the wire and back. An error may be
// of several kinds (uncertain, because a deadline passed); the first of the table
// gives the gRPC code, which only proxies and logs look at.
var kinds = []struct {
	name string // on the wire, for ever
	err  error
	code codes.Code
}{
	{"uncertain", armor.ErrUncertain, codes.Aborted},
	{"unconfirmed", armor.ErrUnconfirmed, codes.Aborted},
	{"not-leader", armor.ErrNotLeader, codes.FailedPrecondition},
	{"no-quorum", armor.ErrNoQuorum, codes.Unavailable},
	{"invalid", armor.ErrInvalid, codes.InvalidArgument},
	{"not-found", armor.ErrNotFound, codes.NotFound},
	{"conflict", armor.ErrConflict, codes.AlreadyExists},
	{"revoked", armor.ErrRevoked, codes.PermissionDenied},
	{"denied", armor.ErrDenied, codes.PermissionDenied},
	{"expired", armor.ErrExpired, codes.FailedPrecondition},
	{"stale", armor.ErrStale, codes.Unavailable},
	{"draining", armor.ErrDraining, codes.Unavailable},
	{"exhausted", armor.ErrExhausted, codes.ResourceExhausted},
	{"shutting-down", armor.ErrShuttingDown, codes.Unavailable},
	{"unavailable", armor.ErrUnavailable, codes.Unavailable},
	{"deadline", context.DeadlineExceeded, codes.DeadlineExceeded},
	{"canceled", context.Canceled, codes.Canceled},
}

// maxFailureText bounds an error's words on the wire: gRPC puts them into headers.
const maxFailureText = 4096

// failureOf is what crosses the wire of an error.
func failureOf(err error) *armorpb.Failure {
	f := &armorpb.Failure{Message: wire.MendText(err.Error())}
	if len(f.Message) > maxFailureText {
		f.Message = wire.MendText(f.Message[:maxFailureText]) + "…"
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			f.Kinds = append(f.Kinds, k.name)
		}
	}
	if moved, ok := errors.AsType[*armor.NotLeaderError](err); ok {
		f.Leader = string(moved.Leader)
	}
	if denial, ok := errors.AsType[*armor.Denial](err); ok {
		f.Denial = toMessage[armorpb.Denial](*denial)
	}
	return f
}

// errorOf is failureOf's inverse: the same words, and errors.Is and errors.As answer
// as before. A kind that this build does not know is passed over.
func errorOf(f *armorpb.Failure) error {
	e := &remoteError{message: f.Message}
	for _, k := range kinds {
		for _, name := range f.Kinds {
			if name == k.name && k.err != armor.ErrNotLeader {
				e.kinds = append(e.kinds, k.err)
			} else if name == k.name {
				e.kinds = append(e.kinds, &armor.NotLeaderError{Leader: armor.NodeID(f.Leader)})
			}
		}
	}
	if f.Denial != nil {
		if denial, err := fromMessage[armor.Denial](f.Denial); err == nil {
			e.kinds = append(e.kinds, &denial)
		}
	}
	return e
}

// remoteError is an error that the other end returned.
type remoteError struct {
	message string
	kinds   []error
}

func (e *remoteError) Error() string   { return e.message }
func (e *remoteError) Unwrap() []error { return e.kinds }

// toStatus makes the gRPC status of a handler's error.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, made := status.FromError(err); made {
		return err
	}
	code := codes.Unknown
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			code = k.code
			break
		}
	}
	failure := failureOf(err)
	s, detailErr := status.New(code, failure.Message).WithDetails(failure)
	if detailErr != nil { // only for code OK
		panic(fmt.Sprintf("rpc: status of %v: %v", err, detailErr))
	}
	return s.Err()
}

// fromStatus turns what a gRPC call returned into an error of package armor: the
// handler's own, or a transportError when no handler's answer came.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, detail := range s.Details() {
		if f, ok := detail.(*armorpb.Failure); ok {
			return errorOf(f)
		}
	}
	return &transportError{message: s.Message(), kind: transportKind(s.Code())}
}

// transportError is a call that brought no handler's answer. Whether the handler ran
// is not known, unless unsent is set.
type transportError struct {
	message string
	kind    error
	unsent  bool // the call never left
}

func (e *transportError) Error() string { return e.kind.Error() + ": " + e.message }
func (e *transportError) Unwrap() error { return e.kind }

// transportKind reads the codes that gRPC itself gives.
func transportKind(code codes.Code) error {
	switch code {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	case codes.ResourceExhausted:
		return armor.ErrExhausted
	case codes.PermissionDenied, codes.Unauthenticated:
		return armor.ErrDenied
	case codes.Unimplemented, codes.InvalidArgument:
		return armor.ErrInvalid
	default:
		return armor.ErrUnavailable
	}
}

// mayHaveRun reports whether err leaves open whether the call was carried out: it was
// lost on its way, or the handler ended without saying what became of it.
func mayHaveRun(err error) bool {
	if errors.Is(err, armor.ErrUncertain) {
		return true
	}
	if lost, ok := errors.AsType[*transportError](err); ok {
		return !lost.unsent && !errors.Is(lost, armor.ErrInvalid)
	}
	told, ok := errors.AsType[*remoteError](err)
	return ok && !told.definite()
}

// definite reports whether the other end said more than that it gave up.
func (e *remoteError) definite() bool {
	return slices.ContainsFunc(e.kinds, func(kind error) bool {
		return kind != context.DeadlineExceeded && kind != context.Canceled
	})
}
