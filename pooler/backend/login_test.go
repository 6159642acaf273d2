package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestHostsAreTakenApart(t *testing.T) {
	for s, want := range map[string]string{
		"db.internal:5432": "db.internal 5432", "[::1]:5433": "::1 5433", "/run/postgresql:5432": "/run/postgresql 5432",
	} {
		host, port, err := splitHost(s)
		if got := fmt.Sprintf("%s %d", host, port); err != nil || got != want {
			t.Errorf("%q: got %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "db", "db:", ":5432", "db:0", "db:70000", "db:x", "::1:5432"} {
		if host, port, err := splitHost(s); err == nil {
			t.Errorf("%q: got %q %d", s, host, port)
		}
	}
}

func TestWhatTheClientReadsOfAFailedLoginNamesNoHost(t *testing.T) {
	secret := fmt.Errorf("dial tcp 10.1.2.3:5432: %w", errors.New("no route to host"))
	for _, err := range []error{Unreachable(secret), notReady(secret)} {
		told, ok := errors.AsType[*armor.Denial](err)
		if !ok || strings.Contains(told.Message+told.Detail+told.Hint, "10.1.2.3") {
			t.Errorf("the client reads %+v", told)
		}
		if !strings.Contains(err.Error(), "10.1.2.3") {
			t.Errorf("the operator reads %v", err)
		}
	}
}
