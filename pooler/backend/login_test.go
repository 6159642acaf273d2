package backend

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
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

// TestServersThatKnowNoFenceAreLoggedInToWithout: they are too old, or their platform
// cannot do it. Anything else is no reason to try again.
func TestServersThatKnowNoFenceAreLoggedInToWithout(t *testing.T) {
	for knows, logins := range map[string]int{"tcp and query": 1, "tcp": 2, "nothing": 3} {
		onStage(t, func(t *testing.T, s *stage) {
			s.target.Database.Hosts = []string{"127.0.0.1:5432"}
			s.fake.Refuse = func(packet string) []byte {
				tcp, query := strings.Contains(packet, "tcp_user_timeout"), strings.Contains(packet, "client_connection_check_interval")
				if query && knows != "tcp and query" || tcp && knows == "nothing" {
					return refusalOf("42704")
				}
				return nil
			}
			s.open().End(t.Context())
			if got := s.fake.Logins(); got != logins || s.fake.Most() != 1 {
				t.Errorf("one that knows %s: %d logins, %d at once", knows, got, s.fake.Most())
			}
		})
	}
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Refuse = func(string) []byte { return refusalOf("53300") }
		_, left, err := s.Open(t.Context(), s.target)
		if e := Refusal(err); e == nil || e.Code != "53300" || s.fake.Logins() != 1 {
			t.Errorf("%d logins: %v", s.fake.Logins(), err)
		}
		left.End(t.Context())
	})
}

func refusalOf(code string) []byte {
	return pgtest.Encode('E', "SFATAL", "C"+code, "Mno", byte(0))
}

// TestFailedLoginIsOverWhenPostgreSQLHasEndedIt.
func TestFailedLoginIsOverWhenPostgreSQLHasEndedIt(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Refuse, s.fake.Linger = func(string) []byte { return refusalOf("53300") }, 7*time.Second
		_, left, err := s.Open(t.Context(), s.target)
		if err == nil || left == nil {
			t.Fatalf("left %v, %v", left, err)
		}
		if took := s.took(func() { left.End(t.Context()) }); took != 7*time.Second {
			t.Errorf("its end took %s", took)
		}
	})
	var none *Leftover
	none.End(t.Context()) // nothing was dialled
}

// TestNothingOfTheEnvironmentReachesPostgreSQL: what a login says is the configuration's.
func TestNothingOfTheEnvironmentReachesPostgreSQL(t *testing.T) {
	for name, value := range map[string]string{
		"PGAPPNAME": "spy", "PGOPTIONS": "-c spy=1", "PGUSER": "spy", "PGDATABASE": "spy", "PGHOST": "spy", "PGPASSWORD": "spy",
		"PGTZ": "spy", "PGTARGETSESSIONATTRS": "standby",
	} {
		t.Setenv(name, value)
	}
	onStage(t, func(t *testing.T, s *stage) {
		s.target.Parameters = map[string]string{"DateStyle": "German"}
		packet := ""
		s.fake.Refuse = func(p string) []byte { packet = p; return nil }
		s.open().End(t.Context())
		words := map[string]string{}
		for pair := range slices.Chunk(strings.Split(strings.TrimRight(packet[4:], "\x00"), "\x00"), 2) {
			words[pair[0]] = pair[1]
		}
		want := map[string]string{"user": role, "database": "orders", "DateStyle": "German", "options": fenceQuery}
		if !maps.Equal(words, want) {
			t.Errorf("the login says %q, want %q", words, want)
		}
	})
}

// TestBothSidesOfOneDial: pgconn gets a connection once, and closing it closes nothing
// until it is ours.
func TestBothSidesOfOneDial(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		one := oneDial{dial: s.dial, note: attempt{home: s.Dialer}.note}
		conn, err := one.open(t.Context(), "unix", "/memory")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.open(t.Context(), "unix", "/memory"); !errors.Is(err, errOneDial) {
			t.Errorf("a second one: %v", err)
		}
		conn.Close()
		if _, err := conn.Write([]byte{0}); errors.Is(err, net.ErrClosed) {
			t.Error("it was closed")
		}
		one.made.kept.Store(true)
		conn.Close()
		if _, err := conn.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it was not closed: %v", err)
		}
	})
}
