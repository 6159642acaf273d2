package fsm

import (
	"time"

	"github.com/armordb/armordb/armor"
)

// world is one immutable version of all that the log has led to: the published state,
// and what only the machine needs.
type world struct {
	state *armor.State
	memory
	// configured is the last revision that changed environments, databases, pools
	// or identities: what Apply.IfRevision is held against.
	configured uint64
	// level is the latest of an entry that was applied, accepted or refused: a build that
	// applies only earlier ones has to stop there.
	level uint32
	// entries covers every table but the derived ones.
	entries sum
	// extra are the optional sections of a snapshot that this build does not know;
	// they are kept for the next one.
	extra []section
}

// draft is a world being changed by one command. It is either finished or dropped:
// that makes every command all or nothing.
type draft struct {
	*armor.State        // the next one; nobody else has seen it
	term         uint64 // of the entry that is being applied
	level        uint32 // of the same: what its kind means
	by           string // its principal
	// judged is the time that the request's life and its operator's certificate are held
	// against: log time, but for what must work while log time is wrong.
	judged time.Time

	memory
	configured uint64
	latest     uint32 // the world's level
	entries    sum
	extra      []section
}

// edit opens a draft of the world. Tables are immutable values, so the copy is small.
func (w *world) edit() *draft {
	next := *w.state
	return &draft{State: &next, memory: w.memory, configured: w.configured, latest: w.level, entries: w.entries, extra: w.extra}
}

// finish closes the draft.
func (d *draft) finish() *world {
	return &world{state: d.State, memory: d.memory, configured: d.configured, level: d.latest, entries: d.entries, extra: d.extra}
}

// put puts rows into a table of the draft, and into the state's digest.
func put[V armor.Row](d *draft, t *armor.TableOf[V], rows ...V) {
	for _, row := range rows {
		if old, had := t.Find(d.State, row); had {
			d.entries.subtract(entryHash(t.Name(), old.Key(), old))
		}
		d.entries.add(entryHash(t.Name(), row.Key(), row))
	}
	t.Put(d.State, rows...)
}

// change puts a row and reports whether it is another than before.
func change[V armor.Row](d *draft, t *armor.TableOf[V], row V) bool {
	if old, had := t.Find(d.State, row); had && same(old, row) {
		return false
	}
	put(d, t, row)
	return true
}

// remove takes the row that has the key of like out of a table of the draft, and reports
// whether there was one.
func remove[V armor.Row](d *draft, t *armor.TableOf[V], like V) bool {
	old, had := t.Find(d.State, like)
	if had {
		d.entries.subtract(entryHash(t.Name(), old.Key(), old))
		t.Remove(d.State, old)
	}
	return had
}
