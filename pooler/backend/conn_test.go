package backend

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgtest"
	"github.com/armordb/armordb/pooler/pgwire"
)

const role = "orders_rw"

// stage is a Dialer in a bubble, in front of a PostgreSQL that lives in memory.
type stage struct {
	*Dialer
	t      *testing.T
	fake   *pgtest.Fake
	target Target
	log    bytes.Buffer
	line   func(net.Conn) net.Conn // what stands between, if anything
	dialed func(address string)    // is told; nil: nobody is

	mu    sync.Mutex
	asked []string // queries that PostgreSQL has seen
}

// onStage runs a test in a bubble, and sees to it that nothing stays behind.
func onStage(t *testing.T, test func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, fake: &pgtest.Fake{}}
		s.fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
			s.mu.Lock()
			s.asked = append(s.asked, strings.TrimRight(string(m.Body), "\x00"))
			s.mu.Unlock()
			s.fake.Simple(b, m)
			return true
		}
		d, err := New(Config{
			Dial: s.dial, Secrets: safe{},
			LoginTimeout: 15 * time.Second, ResetTimeout: 5 * time.Second, EndTimeout: 5 * time.Second, VanishedFor: FencedAfter,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Dialer = d
		s.target = Target{
			Database: armor.Database{
				Name: "orders", DBName: "orders", TLSMode: armor.TLSDisable, Hosts: []string{"/memory:5432"}, Roles: []armor.RoleAuth{{Role: role}},
			},
			Role: role, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		}
		test(t, s)
		s.fake.Wait()
	})
}

func (s *stage) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.dialed != nil {
		s.dialed(address)
	}
	conn, err := s.fake.Dial(ctx, network, address)
	if err == nil && s.line != nil {
		conn = s.line(conn)
	}
	return conn, err
}

// open logs in; the login must succeed.
func (s *stage) open() *Conn {
	s.t.Helper()
	c, left, err := s.Open(s.t.Context(), s.target)
	if err != nil || left != nil {
		s.t.Fatalf("left %v: %v", left, err)
	}
	return c
}

// backend is the other side of a connection.
func (s *stage) backend(c *Conn) *pgtest.PipeConn { return c.Raw().(*pgtest.PipeConn) }

func (s *stage) took(do func()) time.Duration {
	began := time.Now()
	do()
	return time.Since(began)
}

// safe has one password, a certificate for nobody and no CA.
type safe struct{ Secrets }

func (safe) Password(name armor.SecretName, _ string) ([]string, error) {
	if name != "orders" {
		return nil, armor.ErrNotFound
	}
	return []string{"new", "old"}, nil
}

func TestConnAnswersWhatIsAskedAndEnds(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		c := s.open()
		if got, _ := c.State().Params().Get("client_encoding"); got != "UTF8" || c.PID() == 0 || !c.Clean() || !c.Quiet() {
			t.Errorf("logged in with encoding %q as %d", got, c.PID())
		}
		x := core.Exchange{Keep: 1}
		err := c.Ask(t.Context(), pgwire.AppendQuery(nil, "SELECT 7"), &x, time.Second)
		if err != nil || x.Seen != 1 || x.Rows[0][0] != "SELECT 7" {
			t.Errorf("got %+v, %v", x, err)
		}
		if took := s.took(func() { c.End(t.Context()) }); took > 0 || s.fake.Open() != 0 {
			t.Errorf("the end took %s, %d are open", took, s.fake.Open())
		}
	})
}

// TestAskEndsWithItsContext, and in time.
func TestAskEndsWithItsContext(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Answer = func(b *pgtest.Backend, _ pgtest.Message) bool { <-b.Canceled; return false }
		for _, c := range []struct{ cut, patience time.Duration }{{time.Second, time.Minute}, {time.Minute, time.Second}} {
			conn := s.open()
			ctx, stop := context.WithTimeout(t.Context(), c.cut)
			var err error
			took := s.took(func() { err = conn.Ask(ctx, pgwire.AppendQuery(nil, "SELECT 7"), &core.Exchange{}, c.patience) })
			if stop(); err == nil || took != time.Second {
				t.Errorf("took %s: %v", took, err)
			}
			conn.Doubt(err)
			conn.End(t.Context())
		}
	})
}

// TestEndCancelsWhatRunsAndReadsTheEnd: a closed socket does not stop a backend.
func TestEndCancelsWhatRunsAndReadsTheEnd(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Answer = func(b *pgtest.Backend, _ pgtest.Message) bool {
			<-b.Canceled
			time.Sleep(12 * time.Second) // it is slow to notice
			return false
		}
		c := s.open()
		if _, err := c.Stream().Write(pgwire.AppendQuery(nil, "SELECT 7")); err != nil {
			t.Fatal(err)
		}
		c.Doubt(nil)
		if took := s.took(func() { c.End(t.Context()) }); took != 12*time.Second || s.fake.Open() != 0 {
			t.Errorf("the end took %s, %d are open", took, s.fake.Open())
		}
		if n := strings.Count(s.log.String(), "does not end and keeps its place"); n != 2 {
			t.Errorf("%d lines, of attempts 1 and 2 of 3: %s", n, s.log.String())
		}
	})
}

// broken is a network that has gone away: reading fails, and not by an end.
type broken struct{ *pgtest.PipeConn }

var errUnreachable = errors.New("no route to host")

func (broken) Read([]byte) (int, error) { return 0, errUnreachable }

// TestConnThatBreaksCountsAsOpenUntilPostgreSQLHasNoticed.
func TestConnThatBreaksCountsAsOpenUntilPostgreSQLHasNoticed(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		c := s.open()
		c.raw = broken{s.backend(c)}
		c.Doubt(errUnreachable)
		if took := s.took(func() { c.End(t.Context()) }); took != FencedAfter {
			t.Errorf("it counted as open for %s", took)
		}
	})
}

func TestConnThatHasEndedIsNotEndedAgain(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Answer = func(*pgtest.Backend, pgtest.Message) bool { return false }
		c := s.open()
		err := c.Ask(t.Context(), pgwire.AppendQuery(nil, "SELECT 7"), &core.Exchange{}, time.Minute)
		if err == nil {
			t.Fatal("answered")
		}
		if took := s.took(func() { c.End(t.Context()) }); took > 0 {
			t.Errorf("the end took %s", took)
		}
	})
}

// TestRefreshTakesWhatWasSaidMeanwhile: a ParameterStatus, whole or in two parts; a last
// word makes the connection of no use.
func TestRefreshTakesWhatWasSaidMeanwhile(t *testing.T) {
	status := pgtest.Encode('S', "client_encoding", "LATIN1")
	half := append(slices.Clone(status), 'N', 0, 0)
	for name, said := range map[string][]byte{"whole": status, "with half of the next": half} {
		onStage(t, func(t *testing.T, s *stage) {
			c := s.open()
			c.Unread(said)
			err, whole := c.Refresh(false), name == "whole"
			if got, _ := c.State().Params().Get("client_encoding"); got != "LATIN1" || (err == nil) != whole || c.Clean() != whole {
				t.Errorf("%s: encoding %q, clean %t, %v", name, got, c.Clean(), err)
			}
			c.End(t.Context())
		})
	}
	onStage(t, func(t *testing.T, s *stage) {
		c := s.open()
		c.Unread(pgtest.Encode('E', "SFATAL", "C57P01", "Mterminating connection", byte(0)))
		if err := c.Refresh(false); err == nil || !strings.Contains(err.Error(), "57P01") {
			t.Errorf("got %v", err)
		}
		c.End(t.Context())
	})
}

// TestRefreshResetsOnlyWhatIsDirty, and asks for an answer after a cancel request.
func TestRefreshResetsOnlyWhatIsDirty(t *testing.T) {
	for _, c := range []struct {
		dirty, ping bool
		want        string
	}{{false, false, ""}, {false, true, "''"}, {true, false, "'DISCARD ALL'"}, {true, true, "'' 'DISCARD ALL'"}} {
		onStage(t, func(t *testing.T, s *stage) {
			conn := s.open()
			if c.dirty {
				soil(t, conn)
			}
			if err := conn.Refresh(c.ping); err != nil || !conn.Clean() {
				t.Errorf("%+v: clean %t, %v", c, conn.Clean(), err)
			}
			var asked []string
			for _, sql := range s.asked {
				asked = append(asked, "'"+sql+"'")
			}
			if got := strings.Join(asked, " "); got != c.want {
				t.Errorf("%+v: PostgreSQL was asked %s", c, got)
			}
			conn.End(t.Context())
		})
	}
}

// soil has a session leave a setting on the connection.
func soil(t *testing.T, c *Conn) {
	t.Helper()
	session := core.New(core.Config{
		ID: 1, Mode: armor.TransactionMode, OnState: armor.PinState, Params: c.State().Params(), Statements: core.NewStatements(1 << 20),
	})
	var out core.Output
	session.FromClient(pgtest.Encode('Q', "LISTEN x"), &out)
	session.Granted(c.State(), &out)
	session.FromClient(pgtest.Encode('Q', "LISTEN x"), &out)
	session.FromServer(append(pgtest.Encode('C', "LISTEN"), pgtest.Encode('Z', byte('I'))...), &out)
	if !c.State().Dirty() {
		t.Fatal("the connection is clean")
	}
}

// TestCancelReachesTheBackend, whoever has the connection meanwhile.
func TestCancelReachesTheBackend(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
			<-b.Canceled
			s.fake.Simple(b, m)
			return true
		}
		c := s.open()
		asked := make(chan error, 1)
		go func() {
			asked <- c.Ask(t.Context(), pgwire.AppendQuery(nil, "SELECT 7"), &core.Exchange{}, time.Hour)
		}()
		synctest.Wait()
		if err := errors.Join(c.Cancel(t.Context()), <-asked); err != nil {
			t.Error(err)
		}
		c.End(t.Context())
	})
}

// TestCancelEndsWithItsContext: PostgreSQL's side of the request may never close.
func TestCancelEndsWithItsContext(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		c := s.open()
		var theirs net.Conn
		c.home.cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, other := pgtest.Pipe(1 << 10)
			theirs = other
			return ours, nil
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		var err error
		if took := s.took(func() { err = c.Cancel(ctx) }); err == nil || took != 10*time.Second {
			t.Errorf("took %s: %v", took, err)
		}
		theirs.Close()
		c.End(t.Context())
	})
}
