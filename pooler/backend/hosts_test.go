package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

func TestHostsAreTriedInTheOrderOfLibpq(t *testing.T) {
	for _, c := range []struct {
		attrs armor.SessionAttrs
		first string
		want  string
	}{
		{armor.AnySession, "", "a:any b:any c:any"},
		{armor.ReadWrite, "", "a:read-write b:read-write c:read-write"},
		{armor.Primary, "c", "c:primary a:primary b:primary"},
		{armor.Standby, "gone", "a:standby b:standby c:standby"},
		{armor.PreferStandby, "", "a:standby b:standby c:standby a:any b:any c:any"},
	} {
		d := armor.Database{Hosts: []string{"a", "b", "c"}, TargetSessionAttrs: c.attrs}
		var got []string
		for _, try := range tries(d, c.first) {
			want := string(try.want)
			if try.want == armor.AnySession {
				want = "any"
			}
			got = append(got, try.host+":"+want)
		}
		if strings.Join(got, " ") != c.want || !slices.Equal(d.Hosts, []string{"a", "b", "c"}) {
			t.Errorf("%q, first %q: got %v, want %s", c.attrs, c.first, got, c.want)
		}
	}
}

func TestOneHostDoesNotTakeTheTimeOfTheOthers(t *testing.T) {
	for _, c := range []struct {
		whole time.Duration
		hosts int
		want  time.Duration
	}{
		{15 * time.Second, 1, 15 * time.Second}, {15 * time.Second, 3, 5 * time.Second},
		{15 * time.Second, 20, 3 * time.Second}, {time.Second, 4, time.Second},
	} {
		if got := perHost(c.whole, c.hosts); got != c.want {
			t.Errorf("%s for %d hosts: %s each, want %s", c.whole, c.hosts, got, c.want)
		}
	}
}

func TestServersQualifyByWhatTheyReport(t *testing.T) {
	all := []armor.SessionAttrs{armor.AnySession, armor.ReadWrite, armor.ReadOnly, armor.Primary, armor.Standby}
	for _, c := range []struct {
		standby, readOnly string
		fits              []armor.SessionAttrs
	}{
		{"off", "off", []armor.SessionAttrs{armor.AnySession, armor.ReadWrite, armor.Primary}},
		{"off", "on", []armor.SessionAttrs{armor.AnySession, armor.ReadOnly, armor.Primary}},
		{"on", "off", []armor.SessionAttrs{armor.AnySession, armor.ReadOnly, armor.Standby}},
		{"on", "on", []armor.SessionAttrs{armor.AnySession, armor.ReadOnly, armor.Standby}},
	} {
		params := core.NewParams(map[string]string{"in_hot_standby": c.standby, "default_transaction_read_only": c.readOnly})
		for _, want := range all {
			if err := qualifies(params, want); (err == nil) != slices.Contains(c.fits, want) || err != nil && !errors.Is(err, errMisfit) {
				t.Errorf("standby %s, read only %s as %q: %v", c.standby, c.readOnly, want, err)
			}
		}
	}
	if err := qualifies(core.NewParams(nil), armor.Primary); err == nil || !strings.Contains(err.Error(), "PostgreSQL 14") || mayPass(err) {
		t.Errorf("of a server that reports nothing: %v", err)
	}
}

// TestAMisfitIsWorthWaitingFor: it is about to be promoted, most likely.
func TestAMisfitIsWorthWaitingFor(t *testing.T) {
	misfit, refused, missing := errMisfit, Unreachable(errors.New("no such role")), notReady(armor.ErrNotFound)
	for _, c := range []struct {
		attrs  armor.SessionAttrs
		causes []error
		want   bool
	}{
		{armor.Primary, []error{misfit}, true},
		{armor.Primary, []error{missing, misfit}, true},
		{armor.Primary, []error{missing}, false},
		{armor.AnySession, []error{refused}, false},
		{armor.AnySession, []error{missing}, false},
		{armor.AnySession, []error{Unreachable(fmt.Errorf("dial: %w", syscall.ECONNREFUSED))}, true},
		{armor.AnySession, []error{Unreachable(&pgconn.PgError{Code: "57P03"})}, true},
		{armor.AnySession, []error{Unreachable(&pgconn.PgError{Code: "28P01"})}, false},
	} {
		if err := noHost(armor.Database{TargetSessionAttrs: c.attrs}, c.causes); Passing(err) != c.want {
			t.Errorf("%q after %v: %v", c.attrs, c.causes, err)
		}
	}
}

// TestMisfitsAreLeftInGoodOrder: each host's connection ends before the next is dialled,
// and the last one is the caller's to end.
func TestMisfitsAreLeftInGoodOrder(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.target.Database.Hosts = []string{"/one:5432", "/two:5432"}
		s.target.Database.TargetSessionAttrs = armor.Primary
		c, left, err := s.Open(t.Context(), s.target)
		if c != nil || err == nil || left == nil || s.fake.Logins() != 2 || s.fake.Most() != 1 {
			t.Errorf("%d logins, %d at once, left %v: %v", s.fake.Logins(), s.fake.Most(), left, err)
		}
		left.End(t.Context())
	})
}

func TestPromotionShowsOnce(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		c := s.open()
		c.standby = "on"
		if !c.Changed() || c.Changed() {
			t.Error("it did not show, or twice")
		}
		c.End(t.Context())
	})
}
