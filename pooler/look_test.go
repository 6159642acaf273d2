package pooler_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

func pidsOf(all []armor.HostBackends) (pids []uint32) {
	for _, h := range all {
		pids = append(pids, h.PIDs...)
	}
	return pids
}

// TestALookSeesWhatOthersHaveAndStaysWithinTheShare: another node's connections, and its own but for the one that
// it looks with, on a place like any client's.
func TestALookSeesWhatOthersHaveAndStaysWithinTheShare(t *testing.T) {
	theirs := formerLife(t, 2, filepath.Join(t.TempDir(), "theirs"), postgres.TCP())
	register := filepath.Join(t.TempDir(), "connections")
	own := openRegister(t, register)
	h := newHouse(t, withHost(postgres.TCP()), withBudget(1), func(_ *house, c *pooler.Config) { c.Register = own })
	c := h.dial()
	h.must(c.Login("user", pgtest.Role, "database", "orders"))
	observer := h.observer()
	for range 3 {
		seen, err := h.Look(t.Context(), h.pool.Key())
		h.must(err)
		for _, other := range theirs {
			if !slices.Contains(pidsOf(seen), other.PID()) {
				t.Errorf("%d is not among %v", other.PID(), seen)
			}
		}
		if n := h.backends(observer); n > 2+1 {
			t.Errorf("%d backends: 2 of another node and a share of 1", n)
		}
	}
	mine := own.Backends()
	if len(mine) != 1 || mine[0].Host != postgres.TCP() || len(mine[0].PIDs) != 1 {
		t.Errorf("own server connections: %v", mine)
	}
	theirs[0].Close()
	h.await("one is gone", func() bool {
		seen, err := h.Look(t.Context(), h.pool.Key())
		h.must(err)
		return !slices.Contains(pidsOf(seen), theirs[0].PID())
	})
}

// TestALookGoesToEveryHost, one after the other in one place; what nobody answers for is an error.
func TestALookGoesToEveryHost(t *testing.T) {
	theirs := formerLife(t, 1, filepath.Join(t.TempDir(), "theirs"), postgres.Socket())
	h := newHouse(t, withHost(postgres.TCP()), withBudget(1), func(h *house, c *pooler.Config) {
		h.database.Hosts = []string{postgres.TCP(), postgres.Socket()}
		c.Secrets = &secrets{passwords: []string{pgtest.Password}, hosts: h.database.Hosts}
	})
	seen, err := h.Look(t.Context(), h.pool.Key())
	h.must(err)
	if len(seen) != 2 || !slices.Contains(seen[1].PIDs, theirs[0].PID()) {
		t.Errorf("seen %v, not %d", seen, theirs[0].PID())
	}
	h.await("its place is free again", func() bool { return h.Held()[h.pool.Key()] <= 1 })
	h.database.Hosts = append(h.database.Hosts, "127.0.0.1:1")
	h.Configure([]armor.Database{h.database}, []armor.Pool{h.pool})
	if _, err := h.Look(t.Context(), h.pool.Key()); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("with a host where nobody answers: %v", err)
	}
	if _, err := h.Look(t.Context(), "production/none"); err == nil {
		t.Error("looked at a pool that is not there")
	}
}

// TestADeadHostIsPassedOverIfAnotherAnswers: where none does, it may be this node that is cut off.
func TestADeadHostIsPassedOverIfAnotherAnswers(t *testing.T) {
	for _, c := range []struct {
		hosts []string
		seen  int
	}{{[]string{postgres.TCP(), "127.0.0.1:1"}, 1}, {[]string{"127.0.0.1:1"}, 0}} {
		h := newHouse(t, withHost(postgres.TCP()), withBudget(1), func(h *house, cfg *pooler.Config) {
			h.database.Hosts = c.hosts
			cfg.Secrets = &secrets{passwords: []string{pgtest.Password}, hosts: c.hosts}
			cfg.VanishedFor = time.Millisecond
		})
		h.SetLimits(nil) // or it would first wait for a place of its share
		if _, err := h.Look(t.Context(), h.pool.Key()); err == nil {
			t.Errorf("%v: believed dead at once", c.hosts)
		}
		time.Sleep(2 * time.Millisecond)
		if seen, err := h.Look(t.Context(), h.pool.Key()); len(seen) != c.seen || (err == nil) != (c.seen > 0) {
			t.Errorf("%v: %v, %v", c.hosts, seen, err)
		}
	}
}

func TestWhoWaitsReadsWhatIsWithheld(t *testing.T) {
	h := newHouse(t, withBudget(2))
	h.SetLimits(nil)
	h.SetWithheld([]armor.Withheld{{Pool: h.pool.Key(), Node: "n3", Count: 2, Why: "it was removed"}})
	if s := h.status(); !strings.Contains(s.NotReady, "no share of the pool: 2 withheld for node n3: it was removed") {
		t.Errorf("status: %q", s.NotReady)
	}
	h.SetWithheld(nil)
	if s := h.status(); strings.Contains(s.NotReady, "withheld") {
		t.Errorf("status: %q", s.NotReady)
	}
}
