package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
)

// table is what a section of a snapshot holds: the rows of one table.
type table interface {
	name() string
	// write gives the encoding of each row, in the order of their keys.
	write(w *world, row func([]byte) error) error
	// read puts the rows of a section into a draft, whose table is empty.
	read(d *draft, payload []byte) error
}

// tables are the sections of a snapshot, in order: those of the state, and the memory of
// requests where it stands since the first level. A table that comes later stands behind it.
var tables = allTables()

// stateTables is how many tables the state of level 1 had, and firstTables how many a
// snapshot of it has: each of these has a section, with rows or without.
const (
	stateTables = 13
	firstTables = stateTables + 1
)

func allTables() []table {
	var all []table
	for i, t := range armor.Tables() {
		if i == stateTables {
			all = append(all, memoryTable{})
		}
		all = append(all, stateTable{t})
	}
	return all
}

// stateTable is a table of armor.State.
type stateTable struct{ of armor.AnyTable }

func (t stateTable) name() string { return t.of.Name() }

func (t stateTable) write(w *world, row func([]byte) error) error {
	for r := range t.of.Rows(w.state) {
		b, err := wire.Log.Marshal(r)
		if err != nil {
			return err
		}
		if err := row(b); err != nil {
			return err
		}
	}
	return nil
}

func (t stateTable) read(d *draft, payload []byte) error {
	rows, err := splitRows(payload)
	if err != nil {
		return err
	}
	add, done := t.of.Fill(d.State)
	err = inParts(rows, t.decode, func(p part) error {
		for _, r := range p.rows {
			if !add(r) {
				return fmt.Errorf("two rows have key %q", r.Key())
			}
		}
		d.entries.merge(p.entries)
		return nil
	})
	if err != nil {
		return err
	}
	done()
	return nil
}

// part is some rows of a table, decoded, and the sum of their hashes.
type part struct {
	rows    []armor.Row
	entries sum
	err     error
}

func (t stateTable) decode(encoded [][]byte, first int) (p part) {
	for i, b := range encoded {
		row := t.of.New()
		if err := wire.Log.Unmarshal(b, row); err != nil {
			p.err = fmt.Errorf("row %d: %w", first+i, err)
			return p
		}
		p.rows = append(p.rows, row)
		p.entries.add(entryHash(t.name(), row.Key(), reflect.ValueOf(row).Elem().Interface()))
	}
	return p
}

// partSize is how many rows are decoded at a time.
const partSize = 4096

// inParts decodes rows on all processors and takes the parts in their order. It ends with
// the first error.
func inParts(rows [][]byte, decode func(rows [][]byte, first int) part, take func(part) error) error {
	turns := make(chan chan part, runtime.GOMAXPROCS(0))
	stop := make(chan struct{})
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(stop)
	workers.Go(func() {
		defer close(turns)
		for first := 0; first < len(rows); first += partSize {
			turn := make(chan part, 1)
			select {
			case turns <- turn:
			case <-stop:
				return
			}
			workers.Go(func() { turn <- decode(rows[first:min(first+partSize, len(rows))], first) })
		}
	})
	for turn := range turns {
		p := <-turn
		if p.err != nil {
			return p.err
		}
		if err := take(p); err != nil {
			return err
		}
	}
	return nil
}

// memoryTable is the memory of requests.
type memoryTable struct{}

func (memoryTable) name() string { return requestsTable }

func (memoryTable) write(w *world, row func([]byte) error) error {
	for o := range w.requests.Values() {
		message := &fsmpb.Outcome{}
		wire.Log.Fill(message, o)
		b, err := deterministic.Marshal(message)
		if err != nil {
			return err
		}
		if err := row(b); err != nil {
			return err
		}
	}
	return nil
}

func (memoryTable) read(d *draft, payload []byte) error {
	rows, err := splitRows(payload)
	if err != nil {
		return err
	}
	for i, b := range rows {
		o, err := readOutcome(b)
		if err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
		if d.requests.Has(o.Key()) {
			return fmt.Errorf("two rows have key %q", o.Key())
		}
		d.remember(o)
	}
	return nil
}

func readOutcome(b []byte) (o outcome, err error) {
	var message fsmpb.Outcome
	if err := wire.Log.UnmarshalMessage(b, &message); err != nil {
		return o, err
	}
	if err := wire.Log.Read(&o, &message); err != nil {
		return o, err
	}
	if int(o.Code) >= len(codes) {
		return o, fmt.Errorf("%w: outcome of code %d", ErrCannotApply, o.Code)
	}
	return o, nil
}

// A table's payload is its rows, each with its length as a uvarint before it.

func appendRow(payload, row []byte) []byte {
	return append(binary.AppendUvarint(payload, uint64(len(row))), row...)
}

func splitRows(payload []byte) (rows [][]byte, err error) {
	for len(payload) > 0 {
		length, size := binary.Uvarint(payload)
		if size <= 0 || length > uint64(len(payload)-size) || length > MaxEntry {
			return nil, fmt.Errorf("row %d: %w", len(rows), errLongRow)
		}
		end := size + int(length)
		rows = append(rows, payload[size:end])
		payload = payload[end:]
	}
	return rows, nil
}

var errLongRow = errors.New("it is longer than its table, or than an entry")
