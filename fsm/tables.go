package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
)

// table is what a section of a snapshot holds: the rows of one table.
type table interface {
	name() string
	// rows counts them.
	rows(w *world) int
	// write writes the rows in the order of their keys, each with its length before it.
	write(w *world, out io.Writer) error
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

func (t stateTable) rows(w *world) int { return t.of.Len(w.state) }

func (t stateTable) write(w *world, out io.Writer) error {
	return inParts(chunked(t.of.Rows(w.state)), encodeRows, func(e encoded) error {
		if e.err != nil {
			return e.err
		}
		_, err := out.Write(e.rows)
		return err
	})
}

// encoded are some rows of a table as they are written.
type encoded struct {
	rows []byte
	err  error
}

func encodeRows(rows []armor.Row) (e encoded) {
	const usual = 128 // bytes of a row
	e.rows = make([]byte, 0, usual*len(rows))
	var b []byte
	for _, row := range rows {
		var err error
		if b, err = wire.Log.Append(b[:0], row); err != nil {
			e.err = fmt.Errorf("row %s: %w", row.Key(), err)
			return e
		}
		e.rows = appendRow(e.rows, b)
	}
	return e
}

func (t stateTable) read(d *draft, payload []byte) error {
	rows, err := splitRows(payload)
	if err != nil {
		return err
	}
	add, done := t.of.Fill(d.State)
	err = inParts(chunked(slices.Values(rows)), t.decode, func(p decoded) error {
		for _, r := range p.rows {
			if !add(r) {
				return fmt.Errorf("two rows have key %q", r.Key())
			}
		}
		d.entries.merge(p.entries)
		return p.err
	})
	if err != nil {
		return err
	}
	done()
	return nil
}

// decoded are some rows of a table, and the sum of their hashes.
type decoded struct {
	rows    []armor.Row
	entries sum
	err     error
}

func (t stateTable) decode(rows [][]byte) (d decoded) {
	for _, b := range rows {
		row := t.of.New()
		if err := wire.Log.Unmarshal(b, row); err != nil {
			d.err = err
			return d
		}
		d.rows = append(d.rows, row)
		d.entries.add(entryHash(t.name(), row.Key(), reflect.ValueOf(row).Elem().Interface()))
	}
	return d
}

// memoryTable is the memory of requests.
type memoryTable struct{}

func (memoryTable) name() string { return requestsTable }

func (memoryTable) rows(w *world) int { return w.requests.Len() }

func (memoryTable) write(w *world, out io.Writer) error {
	for o := range w.requests.Values() {
		message := &fsmpb.Outcome{}
		wire.Log.Fill(message, o)
		b, err := deterministic.Marshal(message)
		if err != nil {
			return err
		}
		if _, err := out.Write(appendRow(nil, b)); err != nil {
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
		if size <= 0 || length == 0 || length > uint64(len(payload)-size) || length > MaxEntry {
			return nil, fmt.Errorf("row %d: %w", len(rows), errRowLength)
		}
		end := size + int(length)
		rows = append(rows, payload[size:end])
		payload = payload[end:]
	}
	return rows, nil
}

var errRowLength = errors.New("it is empty, or longer than its table or an entry")
