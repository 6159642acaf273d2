package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/armordb/armordb/armor"
)

// overTheWire is what a client makes of a handler's error.
func overTheWire(err error) error {
	s := status.Convert(toStatus(err))
	return fromStatus(status.FromProto(s.Proto()).Err())
}

func TestEverySentinelSurvivesTheWire(t *testing.T) {
	for _, k := range kinds {
		sent := fmt.Errorf("commit request 7: %w: the disk is full", k.err)
		got := overTheWire(sent)
		if got.Error() != sent.Error() {
			t.Errorf("%s: %q became %q", k.name, sent, got)
		}
		for _, other := range kinds {
			if errors.Is(got, other.err) != (other.err == k.err) {
				t.Errorf("%s: errors.Is(%s) = %v", k.name, other.name, errors.Is(got, other.err))
			}
		}
	}
}

// The table must name every sentinel of armor/errors.go: the file itself is asked.
func TestTheTableNamesEverySentinel(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../armor/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Err") {
			declared++
		}
		return true
	})
	named := 0
	for _, k := range kinds {
		if k.err != context.Canceled && k.err != context.DeadlineExceeded {
			named++
		}
	}
	if declared == 0 || declared != named {
		t.Errorf("armor/errors.go declares %d sentinels, the table names %d", declared, named)
	}
}

func TestDetailsSurviveTheWire(t *testing.T) {
	moved, ok := errors.AsType[*armor.NotLeaderError](overTheWire(fmt.Errorf("propose: %w", &armor.NotLeaderError{Leader: "n2"})))
	if !ok || moved.Leader != "n2" {
		t.Errorf("leader %v", moved)
	}
	sent := &armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked", Detail: "d", Hint: "h", ID: "7"}
	got := overTheWire(sent)
	denial, ok := errors.AsType[*armor.Denial](got)
	if !ok || *denial != *sent || !errors.Is(got, armor.ErrRevoked) || got.Error() != sent.Error() {
		t.Errorf("denial %+v", denial)
	}
	both := overTheWire(fmt.Errorf("%w: %w", armor.ErrUncertain, context.DeadlineExceeded))
	if !errors.Is(both, armor.ErrUncertain) || !errors.Is(both, context.DeadlineExceeded) {
		t.Errorf("two kinds: %v", both)
	}
	if err := overTheWire(nil); err != nil {
		t.Errorf("success became %v", err)
	}
	if long := overTheWire(errors.New(strings.Repeat("ä", 4*maxFailureText))); len(long.Error()) > maxFailureText+8 {
		t.Errorf("a text of %d bytes", len(long.Error()))
	}
}

func TestErrorsOfTheTransportAreTold(t *testing.T) {
	for code, want := range map[codes.Code]error{
		codes.Unavailable: armor.ErrUnavailable, codes.DeadlineExceeded: context.DeadlineExceeded, codes.Canceled: context.Canceled,
		codes.ResourceExhausted: armor.ErrExhausted, codes.Unimplemented: armor.ErrInvalid, codes.Internal: armor.ErrUnavailable,
	} {
		got := fromStatus(status.Error(code, "words"))
		if !errors.Is(got, want) || strings.Contains(got.Error(), "rpc error") || !strings.Contains(got.Error(), "words") {
			t.Errorf("%s became %v", code, got)
		}
	}
}

func TestOnlyWhatIsKnownNotToHaveRunIsCertain(t *testing.T) {
	certain := []error{
		nil, &transportError{kind: armor.ErrUnavailable, unsent: true}, overTheWire(armor.ErrNoQuorum), overTheWire(armor.ErrDenied),
		overTheWire(&armor.NotLeaderError{}), overTheWire(fmt.Errorf("%w: %w", armor.ErrNoQuorum, context.DeadlineExceeded)),
	}
	for _, err := range certain {
		if mayHaveRun(err) {
			t.Errorf("%v counts as possibly done", err)
		}
	}
	unsure := []error{
		fromStatus(status.Error(codes.Unavailable, "")), fromStatus(status.Error(codes.DeadlineExceeded, "")), overTheWire(errPanicked),
		overTheWire(context.DeadlineExceeded), overTheWire(fmt.Errorf("%w: %w", armor.ErrUncertain, armor.ErrUnavailable)),
	}
	for _, err := range unsure {
		if !mayHaveRun(err) {
			t.Errorf("%v counts as not done", err)
		}
	}
}
