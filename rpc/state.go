package rpc

import (
	"fmt"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// maxChunk is how many bytes of rows go into one message; one row is smaller than
// that, because a log entry is.
const maxChunk = 900 << 10

// Table is a table of the state that can be asked for: one of armor.Tables.
type Table interface {
	// Name is the table's name in the API.
	Name() string
}

// tablesNamed returns the tables asked for, all of them for none. ErrInvalid for a
// name that is none of them.
func tablesNamed(names []string) ([]armor.AnyTable, error) {
	all := armor.Tables()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(t armor.AnyTable) bool { return t.Name() == name }) {
			return nil, fmt.Errorf("%w: the state has no table %.40q", armor.ErrInvalid, name)
		}
	}
	return slices.DeleteFunc(all, func(t armor.AnyTable) bool { return !slices.Contains(names, t.Name()) }), nil
}

// sendState cuts the asked tables into chunks; next is where a page of them ends.
func sendState(s *armor.State, asked []armor.AnyTable, next string, send func(*armorpb.StateChunk) error) error {
	chunk, size := &armorpb.StateChunk{Head: headOf(s)}, 0
	for _, t := range asked {
		rows := &armorpb.TableRows{Table: t.Name()}
		chunk.Tables = append(chunk.Tables, rows)
		for row := range t.Rows(s) {
			encoded, err := codec.Marshal(row)
			if err != nil {
				return fmt.Errorf("row %s of %s: %w", row.Key(), t.Name(), err)
			}
			if size > 0 && size+len(encoded) > maxChunk {
				if err := send(chunk); err != nil {
					return err
				}
				rows = &armorpb.TableRows{Table: t.Name()}
				chunk, size = &armorpb.StateChunk{Tables: []*armorpb.TableRows{rows}}, 0
			}
			rows.Rows = append(rows.Rows, encoded)
			size += len(encoded)
		}
	}
	chunk.Last, chunk.Next = true, next
	return send(chunk)
}

func headOf(s *armor.State) *armorpb.StateHead {
	return &armorpb.StateHead{
		Revision: s.Revision, Time: wire.TimeMessage(s.Time), NextIndex: uint32(s.NextIndex),
		Cluster: toMessage[wire.Cluster](s.Cluster),
	}
}

// receiveState puts the chunks together again, and returns where a page ends that was asked
// for. ErrUnavailable when the stream ends before the last one.
func receiveState(receive func() (*armorpb.StateChunk, error)) (_ *armor.State, next string, _ error) {
	s := &armor.State{}
	filling := fillings(s)
	for first := true; ; first = false {
		chunk, err := receive()
		if err != nil {
			return nil, "", err
		}
		if first {
			if err := setHead(s, chunk.GetHead()); err != nil {
				return nil, "", err
			}
		}
		for _, part := range chunk.Tables {
			if f, known := filling[part.Table]; known {
				if err := f.take(part.Rows); err != nil {
					return nil, "", err
				}
			}
		}
		if chunk.Last {
			next = chunk.Next
			break
		}
	}
	for _, f := range filling {
		f.done()
	}
	return s, next, nil
}

// filling is a table that is being received.
type filling struct {
	table armor.AnyTable
	add   func(armor.Row) bool
	done  func()
}

func fillings(s *armor.State) map[string]filling {
	all := map[string]filling{}
	for _, t := range armor.Tables() {
		add, done := t.Fill(s)
		all[t.Name()] = filling{t, add, done}
	}
	return all
}

func (f filling) take(rows [][]byte) error {
	for i, encoded := range rows {
		row := f.table.New()
		if err := codec.Unmarshal(encoded, row); err != nil {
			return fmt.Errorf("%w: row %d of %s: %w", armor.ErrInvalid, i, f.table.Name(), err)
		}
		f.add(row)
	}
	return nil
}

func setHead(s *armor.State, head *armorpb.StateHead) (err error) {
	s.Revision, s.NextIndex = head.GetRevision(), uint16(head.GetNextIndex())
	if s.Time, err = codec.TimeOf(head.GetTime()); err != nil {
		return fmt.Errorf("%w: time of the state: %w", armor.ErrInvalid, err)
	}
	s.Cluster, err = fromMessage[armor.Cluster](head.GetCluster())
	return err
}
