package pooler_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
	"github.com/armordb/armordb/pooler/portable"
)

// bubble is a house whose clients and PostgreSQL are in memory and whose time is the
// bubble's.
type bubble struct {
	*house
	fake *pgtest.Fake
	stop func()
}

// inBubble runs a test in a bubble, with a pooler in front of fake.
func inBubble(t *testing.T, fake *pgtest.Fake, test func(b *bubble), options ...option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, fake, options...)
		defer b.close()
		test(b)
	})
}

func newBubble(t *testing.T, fake *pgtest.Fake, options ...option) *bubble {
	h := &house{t: t, secrets: &secrets{}}
	h.database = armor.Database{
		Name: "orders", Environment: "production", DBName: "orders", TLSMode: armor.TLSDisable, Hosts: []string{"/memory:5432"},
		Roles: []armor.RoleAuth{{Role: pgtest.OtherRole}, {Role: pgtest.Role}},
	}
	h.pool = armor.Pool{Name: "orders", Environment: "production", Database: "orders", Mode: armor.TransactionMode, Budget: 2}
	cfg := pooler.Config{Node: 7, Secrets: h.secrets, Driver: portable.New(), Logger: slog.New(slog.DiscardHandler), Dial: fake.Dial}
	for _, o := range options {
		o(h, &cfg)
	}
	p, err := pooler.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Pooler = p
	h.configure()
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return &bubble{house: h, fake: fake, stop: func() { stop(); run.Wait() }}
}

func (b *bubble) close() {
	for _, g := range b.all() {
		g.cut(&armor.Denial{Reason: armor.ReasonShutdown})
	}
	b.serving.Wait()
	b.stop()
	b.fake.Wait()
}

// dial is a client in memory.
func (b *bubble) dial(size int) *pgtest.Client {
	ours, theirs := pgtest.Pipe(size)
	b.start(theirs)
	b.t.Cleanup(func() { ours.Close() })
	return &pgtest.Client{Conn: ours}
}

func (b *bubble) login(role string) *pgtest.Client {
	b.t.Helper()
	c := b.dial(64 << 10)
	b.must(c.Login("user", role, "database", "orders"))
	return c
}

func TestQueryWaitIsWhatThePoolSays(t *testing.T) {
	inBubble(t, &pgtest.Fake{}, func(b *bubble) {
		holders := []*pgtest.Client{b.login(pgtest.Role), b.login(pgtest.Role)}
		for _, c := range holders {
			b.query(c, "BEGIN")
		}
		waiting := b.login(pgtest.Role)
		began := time.Now()
		_, err := waiting.Query("SELECT 1")
		fields := b.wantRefusal(err, "FATAL", "53300")
		if took := time.Since(began); took != armor.DefaultQueryWait {
			t.Errorf("refused after %s", took)
		}
		if want := "no server connection became free within 2m0s"; fields['M'] != want || fields['D'] == "" || fields['H'] == "" {
			t.Errorf("got %v, want %q with detail and hint", fields, want)
		}
	})
}

func TestSessionModeWaitsAtLogin(t *testing.T) {
	inBubble(t, &pgtest.Fake{}, func(b *bubble) {
		holder := b.login(pgtest.Role)
		began := time.Now()
		err := b.dial(64<<10).Login("user", pgtest.Role, "database", "orders")
		b.wantRefusal(err, "FATAL", "53300")
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("refused after %s", took)
		}
		b.must(holder.Send(pgtest.Encode('X')))
		b.login(pgtest.Role)
	}, inMode(armor.SessionMode), withBudget(1), withQueryWait(7*time.Second))
}

func TestLoginsBackOff(t *testing.T) {
	fake := &pgtest.Fake{Refuse: func(string) []byte {
		return pgtest.Encode('E', "SFATAL", "VFATAL", "C28P01", "Mpassword authentication failed", byte(0))
	}}
	inBubble(t, fake, func(b *bubble) {
		began, last := time.Now(), time.Duration(0)
		for attempt := 1; attempt <= 8; attempt++ {
			for fake.Logins() < attempt {
				b.wantRefusal(b.dial(64<<10).Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
				time.Sleep(50 * time.Millisecond)
			}
			at := time.Since(began)
			longest := min(time.Second<<max(attempt-2, 0), 15*time.Second)
			if gap := at - last; attempt > 1 && (gap < longest/2 || gap > longest+time.Second/2) {
				t.Errorf("login %d came %s after the one before, want up to %s", attempt, gap, longest)
			}
			last = at
		}
	})
}

// TestLoginsThatFailTogetherBackOffOnce: a server that is full refuses all logins that are
// under way, which says no more than one of them.
func TestLoginsThatFailTogetherBackOffOnce(t *testing.T) {
	fake := &pgtest.Fake{Refuse: func(string) []byte {
		time.Sleep(100 * time.Millisecond) // until all of them are under way
		return pgtest.Encode('E', "SFATAL", "VFATAL", "C53300", "Msorry, too many clients already", byte(0))
	}}
	const together = 5
	inBubble(t, fake, func(b *bubble) {
		var clients sync.WaitGroup
		for range together {
			clients.Go(func() {
				b.wantRefusal(b.dial(64<<10).Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
			})
		}
		clients.Wait()
		if n := fake.Logins(); n != together {
			t.Fatalf("%d logins, want %d at once", n, together)
		}
		began := time.Now()
		for fake.Logins() == together {
			b.wantRefusal(b.dial(64<<10).Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
			time.Sleep(50 * time.Millisecond)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("PostgreSQL was asked again after %s, want 1 s", took)
		}
	}, withBudget(together))
}

// TestPlaceIsTakenUntilTheEndIsRead: PostgreSQL goes on with a query although its
// client has gone; the place is free when it has closed, not when we have.
func TestPlaceIsTakenUntilTheEndIsRead(t *testing.T) {
	const stubborn = 47 * time.Second
	fake := &pgtest.Fake{}
	fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		if string(m.Body) == "SELECT forever\x00" {
			time.Sleep(stubborn) // deaf to cancel, Terminate and the half-close
			return false
		}
		fake.Simple(b, m)
		return true
	}
	inBubble(t, fake, func(b *bubble) {
		for range 5 {
			began := time.Now()
			c := b.login(pgtest.Role)
			b.must(c.Send(pgtest.Encode('Q', "SELECT forever")))
			synctest.Wait()
			c.Close()
			next := b.login(pgtest.Role)
			b.query(next, "SELECT 1")
			if took := time.Since(began); took != stubborn {
				t.Errorf("the place was free after %s", took)
			}
		}
		if most := fake.Most(); most != 1 {
			t.Errorf("%d connections at once with a budget of 1", most)
		}
	}, withBudget(1))
}

func TestPlaceOfARefusedLoginIsTakenUntilItsEndIsRead(t *testing.T) {
	fake := &pgtest.Fake{Linger: time.Minute, Refuse: func(string) []byte {
		return pgtest.Encode('E', "SFATAL", "VFATAL", "C53300", "Mtoo many", byte(0))
	}}
	inBubble(t, fake, func(b *bubble) {
		began := time.Now()
		b.wantRefusal(b.dial(64<<10).Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
		if took := time.Since(began); took != 0 {
			t.Errorf("the client was told after %s", took)
		}
		time.Sleep(time.Minute - time.Second)
		if n := b.Held()[b.pool.Key()]; n != 1 {
			t.Errorf("held %d while the backend lives", n)
		}
		time.Sleep(2 * time.Second) // the pool tries again by itself, once the place is free
		if most := fake.Most(); most != 1 {
			t.Errorf("%d connections at once with a budget of 1", most)
		}
	}, withBudget(1))
}

// TestOlderServersAreLoggedInToWithoutFences: PostgreSQL before 14 does not know
// client_connection_check_interval.
func TestOlderServersAreLoggedInToWithoutFences(t *testing.T) {
	var seen []string
	fake := &pgtest.Fake{Linger: time.Second, Refuse: func(packet string) []byte {
		seen = append(seen, packet)
		if strings.Contains(packet, "client_connection_check_interval") {
			return pgtest.Encode('E', "SFATAL", "VFATAL", "C42704", "Munrecognized configuration parameter", byte(0))
		}
		return nil
	}}
	inBubble(t, fake, func(b *bubble) {
		b.query(b.login(pgtest.Role), "SELECT 1")
		if len(seen) != 2 || strings.Contains(seen[1], "options") {
			t.Errorf("startup packets %q", seen)
		}
		if most := fake.Most(); most != 1 {
			t.Errorf("%d connections at once in one place", most)
		}
	}, withBudget(1))
}

func TestIdleConnectionIsWatched(t *testing.T) {
	backends := make(chan *pgtest.Backend, 4)
	fake := &pgtest.Fake{}
	fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		select {
		case backends <- b:
		default:
		}
		fake.Simple(b, m)
		return true
	}
	inBubble(t, fake, func(b *bubble) {
		c := b.login(pgtest.Role)
		b.query(c, "SELECT 1")
		backend := <-backends
		backend.Say(pgtest.Encode('N', "SNOTICE", "VNOTICE", "C00000", "Mhello", byte(0)), pgtest.Encode('S', "application_name", "x"))
		time.Sleep(time.Second)
		if b.query(c, "SELECT 2"); fake.Logins() != 1 {
			t.Error("a notice cost the connection")
		}
		backend.Say(pgtest.Encode('E', "SFATAL", "VFATAL", "C57P01", "Mbye", byte(0)))
		time.Sleep(time.Second)
		if n := len(b.Held()); n != 0 {
			t.Errorf("held %v after the FATAL", b.Held())
		}
		b.query(c, "SELECT 3")
	})
}

// TestHeldWhileACancelIsUnderWay: the query ends by itself while the cancel request
// for it has not reached PostgreSQL; the connection must not be lent before it has.
func TestHeldWhileACancelIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, dial := make(chan struct{}), make(chan struct{})
		fake := slowFake(answer)
		simple, hit := fake.Answer, ""
		fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
			select {
			case <-b.Canceled: // what comes after a cancel request is what it hits
				hit = string(m.Body)
			default:
			}
			return simple(b, m)
		}
		dials := 0
		b := newBubble(t, fake, withBudget(1), func(_ *house, c *pooler.Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if dials++; dials == 2 {
					<-dial
				}
				return fake.Dial(ctx, network, address)
			}
		})
		defer b.close()
		first, next := b.login(pgtest.Role), b.login(pgtest.Role)
		b.must(first.Send(pgtest.Encode('Q', "slow")))
		synctest.Wait()
		var canceling sync.WaitGroup
		canceling.Go(func() { b.Cancel(context.Background(), keyOf(first), false) })
		synctest.Wait()
		close(answer)
		_, err := first.Answer()
		b.must(err)
		b.must(next.Send(pgtest.Encode('Q', "SELECT next")))
		synctest.Wait()
		if n := b.status().Waiting; n != 1 {
			t.Error("the connection was lent while a cancel request was under way")
		}
		close(dial)
		if got, err := next.Answer(); err != nil || got[0] != "SELECT next" {
			t.Errorf("got %q, %v", got, err)
		}
		if hit != "\x00" {
			t.Errorf("the cancel request hit %q, want our own empty query", hit)
		}
		canceling.Wait()
	})
}

func TestRunEndsAlthoughAServerConnectionDoesNot(t *testing.T) {
	fake := &pgtest.Fake{}
	fake.Answer = func(b *pgtest.Backend, m pgtest.Message) bool {
		time.Sleep(time.Hour)
		return false
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, fake)
		c := b.login(pgtest.Role)
		b.must(c.Send(pgtest.Encode('Q', "SELECT 1")))
		synctest.Wait()
		c.Close()
		b.serving.Wait()
		began := time.Now()
		b.stop()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("Run ended after %s", took)
		}
		b.fake.Wait()
	})
}
