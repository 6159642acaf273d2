package pooler_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

// What follows plays random programs to PostgreSQL itself and through the pooler and
// compares what is answered, message by message. ARMOR_DIFFER_SEED is the seed of the
// first program, ARMOR_DIFFER_COUNT how many there are for each claim.

func TestSessionModeCannotBeToldFromPostgreSQL(t *testing.T) {
	d := newDiffer(t, armor.SessionMode)
	d.search(differCount(100), 1)
}

func TestTransactionModeDiffersAsDocumentedOnly(t *testing.T) {
	d := newDiffer(t, armor.TransactionMode)
	d.search(differCount(100), 1)
}

// TestKeptStateCannotBeToldFromASession: in transaction mode, with functions and blocks of code
// that leave something.
func TestKeptStateCannotBeToldFromASession(t *testing.T) {
	d := newDiffer(t, armor.TransactionMode, withBudget(3), keepsState(3))
	d.search(differCount(100), 1)
}

// TestIdentitiesThatShareConnectionsDoNotMeet: the same of two identities, in turn on the
// connections that are not kept.
func TestIdentitiesThatShareConnectionsDoNotMeet(t *testing.T) {
	d := newDiffer(t, armor.TransactionMode, withBudget(5), keepsState(4)) // one is free for logins
	d.identities = []armor.Identity{"spiffe://production.example/app/one", "spiffe://production.example/app/two"}
	d.search(differCount(20), 4)
}

// keepsState keeps app.tenant too where only a block of code has set it.
func keepsState(pins int) option {
	return withPool(func(p *armor.Pool) {
		p.OnState, p.MaxPinned, p.KeepSettings = armor.KeepState, pins, []string{"app.tenant"}
	})
}

// TestClientsThatShareConnectionsDoNotMeet: in transaction mode, more clients than
// server connections.
func TestClientsThatShareConnectionsDoNotMeet(t *testing.T) {
	d := newDiffer(t, armor.TransactionMode, withBudget(2))
	d.search(differCount(20), 5)
}

func differCount(usual int) int {
	n, err := strconv.Atoi(os.Getenv("ARMOR_DIFFER_COUNT"))
	if err != nil {
		return usual
	}
	return n
}

func differSeed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("ARMOR_DIFFER_SEED"), 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// differ compares PostgreSQL with a pooler in front of it.
type differ struct {
	*house
	direct, through side
	housekeeper     *pgtest.Client
	patience        time.Duration    // for one program
	identities      []armor.Identity // of the clients, in turn; empty: they have none
}

func newDiffer(t *testing.T, mode armor.PoolMode, options ...option) *differ {
	t.Helper()
	d := &differ{house: newHouse(t, append([]option{inMode(mode), quiet}, options...)...), patience: patience}
	d.direct, d.through = d.sides()
	d.housekeeper = d.superuser(pgtest.Database)
	return d
}

// search plays count rounds of as many programs at once as there are clients, and
// fails at the first that differs.
func (d *differ) search(count, clients int) {
	d.t.Helper()
	seed, programs, found := d.first(count, clients)
	if found != nil {
		d.report(seed, programs, found)
	}
}

// first returns the first round that differs, if any does.
func (d *differ) first(count, clients int) (seed uint64, programs []program, found *difference) {
	d.t.Helper()
	for seed = differSeed(); count > 0; seed, count = seed+1, count-1 {
		programs = make([]program, clients)
		for i := range programs {
			programs[i] = newGenerator(seed*100+uint64(i), d.pool, fmt.Sprint("w", i)).program()
		}
		found, err := d.compare(programs, "")
		if err != nil {
			d.t.Fatalf("seed %d: %v", seed, err)
		}
		if found != nil {
			return seed, programs, found
		}
	}
	return 0, nil, nil
}

// difference is where two transcripts part.
type difference struct {
	at              int // the number of messages that are the same
	direct, through []pgtest.Message
	program         int   // which one
	err             error // of the player
}

func (f *difference) String() string {
	from := max(0, f.at-6)
	show := func(all []pgtest.Message) string {
		var b strings.Builder
		for _, m := range all[min(from, len(all)):min(f.at+4, len(all))] {
			text := m.String()
			b.WriteString("  " + text[:min(len(text), 200)] + "\n")
		}
		return b.String()
	}
	detail := ""
	if f.at < len(f.direct) && f.at < len(f.through) && f.direct[f.at].String() == f.through[f.at].String() {
		detail = fmt.Sprintf("which is\n  %.500q\nand\n  %.500q\n", f.direct[f.at].Body, f.through[f.at].Body)
	}
	return fmt.Sprintf("after %d equal messages, PostgreSQL says\n%sand through the pooler\n%s%s",
		f.at, show(f.direct), show(f.through), detail)
}

// parting returns the first difference of two transcripts, or nil.
func parting(direct, through []pgtest.Message) *difference {
	for i := range max(len(direct), len(through)) {
		if i >= len(direct) || i >= len(through) || direct[i].Type != through[i].Type || !bytes.Equal(direct[i].Body, through[i].Body) {
			return &difference{at: i, direct: direct, through: through}
		}
	}
	return nil
}

// compare plays programs on both sides, all of them at once, and returns the first
// difference. but names an entry of the normaliser that is not applied. An error is
// PostgreSQL's.
func (d *differ) compare(programs []program, but string) (*difference, error) {
	if err := d.furnish(len(programs)); err != nil {
		return nil, err
	}
	direct, err := d.hear(programs, d.direct, but)
	if err == nil {
		err = d.furnish(len(programs))
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL itself: %w", err)
	}
	through, err := d.hear(programs, d.through, but)
	for i := range programs {
		if found := parting(direct[i], through[i]); found != nil {
			found.program, found.err = i, err
			return found, nil
		}
	}
	return nil, err
}

// hear plays programs on one side, all of them at once.
func (d *differ) hear(programs []program, on side, but string) ([][]pgtest.Message, error) {
	heard, errs := make([][]pgtest.Message, len(programs)), make([]error, len(programs))
	var playing sync.WaitGroup
	for i, p := range programs {
		on := on
		if len(d.identities) > 0 && on == d.through {
			on.identity = d.identities[i%len(d.identities)]
		}
		playing.Go(func() {
			all, own, err := d.play(p, on, d.patience)
			heard[i], errs[i] = normalise(own, d.pool.Mode, but, all), err
		})
	}
	playing.Wait()
	return heard, errors.Join(errs...)
}

// furnish makes the clients' tables as they are at the beginning of a program.
func (d *differ) furnish(clients int) error {
	var sql strings.Builder
	fmt.Fprintf(&sql, `DO $$ BEGIN CREATE ROLE differ_role; EXCEPTION WHEN duplicate_object THEN END $$; GRANT differ_role TO %s;`, pgtest.Role)
	for i := range clients {
		fmt.Fprintf(&sql, `DROP TABLE IF EXISTS made_w%[1]d; CREATE TABLE IF NOT EXISTS differ_w%[1]d (id int PRIMARY KEY, v text);
			ALTER TABLE differ_w%[1]d OWNER TO %[2]s; TRUNCATE differ_w%[1]d; INSERT INTO differ_w%[1]d VALUES (1, 'one'), (5, NULL), (25, 'é');`, i, pgtest.Role)
	}
	_, err := d.housekeeper.Query(sql.String())
	return err
}

// quiet keeps the pooler's log for itself: there is too much of it.
func quiet(_ *house, c *pooler.Config) { c.Logger = slog.New(slog.DiscardHandler) }
