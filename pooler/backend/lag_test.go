package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestLagIsWhatIsKnown: a standby that streams is as fresh as what it has replayed, one that was
// cut off as old as its last transaction.
func TestLagIsWhatIsKnown(t *testing.T) {
	const hour, blink = time.Hour, 50 * time.Millisecond
	for what, c := range map[string]struct {
		first, second look
		want          string // of the first look, and of the second
	}{
		"idle":                 {look{true, 9, 9, hour}, look{true, 9, 9, hour}, "0s 0s"},
		"idle since its start": {look{true, 9, 9, -1}, look{true, 9, 9, -1}, "0s 0s"},
		"behind":               {look{true, 9, 7, hour}, look{true, 9, 7, hour}, "1h0m0s 1h0m0s"},
		"just written to":      {look{true, 9, 7, hour}, look{true, 9, 9, 0}, "1h0m0s 0s"},
		"written to all the time, in one transaction":    {look{true, 9, 7, hour}, look{true, 12, 10, hour}, "1h0m0s 50ms"},
		"written to all the time, since its start":       {look{true, 9, 7, -1}, look{true, 12, 10, -1}, "? 50ms"},
		"written to all the time, in small transactions": {look{true, 9, 7, time.Millisecond}, look{true, 12, 10, time.Millisecond}, "1ms 1ms"},
		"cut off":                  {look{false, 9, 9, hour}, look{false, 9, 9, hour}, "1h0m0s 1h0m0s"},
		"cut off at the first":     {look{false, 9, 9, hour}, look{true, 9, 9, hour}, "1h0m0s 0s"},
		"cut off at the second":    {look{true, 9, 7, hour}, look{false, 9, 9, hour}, "1h0m0s 1h0m0s"},
		"cut off since its start":  {look{false, -1, 9, -1}, look{false, -1, 9, -1}, "? ?"},
		"has just begun to stream": {look{true, 5, 9, hour}, look{true, 6, 9, hour}, "1h0m0s 1h0m0s"},
		"has received nothing":     {look{true, -1, 9, hour}, look{true, -1, 9, hour}, "1h0m0s 1h0m0s"},
	} {
		got := said(c.first.lag()) + " " + said(c.second.lagSince(c.first, blink))
		if got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}

func said(lag time.Duration, known bool) string {
	if !known {
		return "?"
	}
	return lag.String()
}

func TestAnswersAboutLagAreRead(t *testing.T) {
	for row, want := range map[string]string{
		"t 9 7 1500000": "{true 9 7 1500000000}", "f   ": "{false -1 -1 -1}", "t 9 9 -20": "{true 9 9 0}",
		"t 9 9": "", "t x 9 0": "",
	} {
		l, err := lookOf([][]string{strings.Split(row, " ")})
		if got := fmt.Sprint(l); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %s, %v, want %s", row, got, err, want)
		}
	}
	if _, err := lookOf(nil); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("of no row: %v", err)
	}
}

// TestStandbysThatAreTooFarBehindArePassedOver: the next host is tried, in the end the primary if
// a standby is only preferred, and the refusal says how far each was behind, without its address.
func TestStandbysThatAreTooFarBehindArePassedOver(t *testing.T) {
	const asked, fresh, old, unknown = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_wal", "t 9 9 7200000000", "f 9 9 7200000000", "f 9 9 "
	for _, c := range []struct {
		attrs     armor.SessionAttrs
		standbys  []string // what each says; "primary" is none
		want      int      // the host that is chosen; 0: none
		says      string
		questions int
	}{
		{armor.Standby, []string{fresh, old}, 1, "", 1},
		{armor.Standby, []string{old, fresh}, 2, "", 2},
		{armor.Standby, []string{old, "primary", unknown}, 0, "No host of the database is standby now. Behind by more than maxLag (1m0s): " +
			"host 1 of 3 by 2h0m0s, host 3 of 3 by a time that cannot be known.", 2},
		{armor.Standby, []string{"error"}, 0, "host 1 of 1 by a time that cannot be known.", 1},
		{armor.Standby, []string{"t 9 7 7200000000"}, 0, "host 1 of 1 by 2h0m0s.", 2},
		{armor.PreferStandby, []string{old, "primary"}, 2, "", 1},
		{armor.PreferStandby, []string{"primary", fresh}, 2, "", 1},
		{armor.PreferStandby, []string{old}, 0, "host 1 of 1 by 2h0m0s.", 1},
	} {
		onStage(t, func(t *testing.T, s *stage) {
			d := &s.target.Database
			d.Hosts, d.TargetSessionAttrs, d.MaxLag = nil, c.attrs, time.Minute
			for i := range c.standbys {
				d.Hosts = append(d.Hosts, fmt.Sprintf("/host%d:5432", i+1))
			}
			s.standbys(c.standbys)
			conn, left, err := s.Open(t.Context(), s.target)
			chosen, detail := 0, ""
			if conn != nil {
				chosen = int(conn.to.address[len("/host")] - '0')
				conn.End(t.Context())
			}
			if told, ok := errors.AsType[*LoginError](err); ok {
				detail = told.Detail
			}
			left.End(t.Context())
			questions := 0
			for _, sql := range s.asked {
				if strings.HasPrefix(sql, asked) {
					questions++
				}
			}
			said := strings.HasSuffix(detail, c.says) && (c.says == "") == (err == nil) && !strings.Contains(detail, "/host")
			if chosen != c.want || !said || questions != c.questions {
				t.Errorf("%s of %q: host %d after %d questions, %q: %v", c.attrs, c.standbys, chosen, questions, detail, err)
			}
			if err != nil && (!Passing(err) || !strings.Contains(err.Error(), "/host1")) {
				t.Errorf("the operator reads %v", err)
			}
		})
	}
}

// TestPhysicalReplicationIsNotAsked: it cannot be.
func TestPhysicalReplicationIsNotAsked(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		d := &s.target.Database
		d.Hosts, d.TargetSessionAttrs, d.MaxLag = []string{"/host1:5432"}, armor.Standby, time.Minute
		s.target.Parameters = map[string]string{"replication": "true"}
		s.standbys([]string{"error"})
		s.open().End(t.Context())
	})
}

// standbys has the hosts in their order be standbys that say this of themselves.
func (s *stage) standbys(say []string) {
	host, now := func(address string) string { return say[address[len("/host")]-'1'] }, ""
	s.dialed = func(address string) { now = host(address) }
	s.fake.Report = func() []byte {
		if now == "primary" {
			return append(pgtest.Encode('S', "in_hot_standby", "off"), pgtest.Encode('S', "default_transaction_read_only", "off")...)
		}
		return pgtest.Encode('S', "in_hot_standby", "on")
	}
	s.fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		s.asked = append(s.asked, string(m.Body))
		if now == "error" {
			b.Say(refusalOf("57014"), pgtest.Encode('Z', byte('I')))
			return true
		}
		b.Say(rowOf(strings.Split(now, " ")), pgtest.Encode('C', "SELECT 1"), pgtest.Encode('Z', byte('I')))
		return true
	}
}

func rowOf(values []string) []byte {
	parts := []any{int16(len(values))}
	for _, v := range values {
		if v == "" {
			parts = append(parts, int32(-1))
			continue
		}
		parts = append(parts, int32(len(v)), []byte(v))
	}
	return pgtest.Encode('D', parts...)
}
