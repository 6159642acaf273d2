package rpc

import (
	"fmt"
	"iter"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// maxChunk is how many bytes of rows go into one message; one row is smaller than
// that, because a log entry is.
const maxChunk = 900 << 10

// tables are the parts of the state that can be asked for.
var tables = []table{
	tableOf[armor.Environment]{TableEnvironments, func(s *armor.State) *armor.Table[armor.Environment] { return &s.Environments },
		func(v armor.Environment) string { return v.Name }, nil},
	tableOf[armor.TrustAnchor]{TableAnchors, func(s *armor.State) *armor.Table[armor.TrustAnchor] { return &s.Anchors },
		func(v armor.TrustAnchor) string { return v.Certificate.Fingerprint.String() }, nil},
	tableOf[armor.CertRecord]{TableInventory, func(s *armor.State) *armor.Table[armor.CertRecord] { return &s.Inventory },
		func(v armor.CertRecord) string { return v.Certificate.Fingerprint.String() }, indexKeys},
	tableOf[armor.Revocation]{TableRevocations, func(s *armor.State) *armor.Table[armor.Revocation] { return &s.Revocations },
		func(v armor.Revocation) string { return v.Selector.MarshalKey() }, nil},
	tableOf[armor.IdentityConfig]{TableIdentities, func(s *armor.State) *armor.Table[armor.IdentityConfig] { return &s.Identities },
		func(v armor.IdentityConfig) string { return armor.ObjectKey(v.Environment, v.Name) }, indexGrants},
	tableOf[armor.Database]{TableDatabases, func(s *armor.State) *armor.Table[armor.Database] { return &s.Databases },
		func(v armor.Database) string { return armor.ObjectKey(v.Environment, v.Name) }, nil},
	tableOf[armor.Pool]{TablePools, func(s *armor.State) *armor.Table[armor.Pool] { return &s.Pools },
		func(v armor.Pool) string { return v.Key() }, nil},
	tableOf[armor.Share]{TableShares, func(s *armor.State) *armor.Table[armor.Share] { return &s.Shares },
		func(v armor.Share) string { return armor.ShareKey(v.Pool, v.Node) }, nil},
	tableOf[armor.Member]{TableMembers, func(s *armor.State) *armor.Table[armor.Member] { return &s.Members },
		func(v armor.Member) string { return string(v.ID) }, nil},
	tableOf[armor.Tombstone]{TableTombstones, func(s *armor.State) *armor.Table[armor.Tombstone] { return &s.Tombstones },
		func(v armor.Tombstone) string { return string(v.ID) }, nil},
	tableOf[armor.JoinToken]{TableTokens, func(s *armor.State) *armor.Table[armor.JoinToken] { return &s.Tokens },
		func(v armor.JoinToken) string { return v.Hash.String() }, nil},
	tableOf[armor.JoinRequest]{TableJoins, func(s *armor.State) *armor.Table[armor.JoinRequest] { return &s.Joins },
		func(v armor.JoinRequest) string { return string(v.Node) }, nil},
	tableOf[armor.Operator]{TableOperators, func(s *armor.State) *armor.Table[armor.Operator] { return &s.Operators },
		func(v armor.Operator) string { return v.Name }, nil},
}

// table is one line of the list above.
type table interface {
	name() Table
	rows(s *armor.State) iter.Seq[reflect.Value]
	// collect reads the rows of a chunk; fill puts all that were collected into s.
	collect(chunk protoreflect.Message, into map[Table][]reflect.Value) error
	fill(s *armor.State, rows []reflect.Value)
}

type tableOf[V any] struct {
	title  Table
	pick   func(*armor.State) *armor.Table[V]
	key    func(V) string
	derive func(*armor.State) // fills the index that follows from the table; may be nil
}

func (t tableOf[V]) name() Table { return t.title }

func (t tableOf[V]) rows(s *armor.State) iter.Seq[reflect.Value] {
	return func(yield func(reflect.Value) bool) {
		for v := range t.pick(s).Values() {
			if !yield(reflect.ValueOf(v)) {
				return
			}
		}
	}
}

func (t tableOf[V]) collect(chunk protoreflect.Message, into map[Table][]reflect.Value) error {
	list := chunk.Get(chunkField(t.title)).List()
	for i := range list.Len() {
		row := reflect.New(reflect.TypeFor[V]()).Elem()
		if err := fillStruct(row, list.Get(i).Message()); err != nil {
			return fmt.Errorf("%w: row %d of %s: %w", armor.ErrInvalid, i, t.title, err)
		}
		into[t.title] = append(into[t.title], row)
	}
	return nil
}

func (t tableOf[V]) fill(s *armor.State, rows []reflect.Value) {
	all := make(map[string]*V, len(rows))
	for _, row := range rows {
		v := row.Addr().Interface().(*V)
		all[t.key(*v)] = v
	}
	*t.pick(s) = armor.Table[V]{}.Edit(all)
	if t.derive != nil {
		t.derive(s)
	}
}

func indexKeys(s *armor.State) {
	bound := map[string]*string{}
	for r := range s.Inventory.Values() {
		bound[r.Certificate.Key.String()] = &r.Environment
	}
	s.KeyEnvironments = armor.Table[string]{}.Edit(bound)
}

func indexGrants(s *armor.State) {
	named := map[string]*string{}
	for i := range s.Identities.Values() {
		named[armor.ObjectKey(i.Environment, string(i.ID))] = &i.Name
	}
	s.Grants = armor.Table[string]{}.Edit(named)
}

func chunkField(t Table) protoreflect.FieldDescriptor {
	return (&armorpb.StateChunk{}).ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(t))
}

// tablesNamed returns the tables asked for, all of them for none. ErrInvalid for a
// name that is none of them.
func tablesNamed(names []string) ([]table, error) {
	if len(names) == 0 {
		return tables, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(tables, func(t table) bool { return string(t.name()) == name }) {
			return nil, fmt.Errorf("%w: the state has no table %.40q", armor.ErrInvalid, name)
		}
	}
	var asked []table
	for _, t := range tables {
		if slices.Contains(names, string(t.name())) {
			asked = append(asked, t)
		}
	}
	return asked, nil
}

// sendState cuts the asked tables into chunks.
func sendState(s *armor.State, asked []table, send func(*armorpb.StateChunk) error) error {
	chunk, size := &armorpb.StateChunk{Head: headOf(s)}, 0
	for _, t := range asked {
		field := chunkField(t.name())
		for row := range t.rows(s) {
			element := chunk.ProtoReflect().NewField(field).List().NewElement()
			fillMessage(element.Message(), row)
			bytes := proto.Size(element.Message().Interface())
			if size > 0 && size+bytes > maxChunk {
				if err := send(chunk); err != nil {
					return err
				}
				chunk, size = &armorpb.StateChunk{}, 0
			}
			chunk.ProtoReflect().Mutable(field).List().Append(element)
			size += bytes
		}
	}
	chunk.Last = true
	return send(chunk)
}

func headOf(s *armor.State) *armorpb.StateHead {
	return &armorpb.StateHead{
		Revision: s.Revision, Time: timeMessage(s.Time), NextIndex: uint32(s.NextIndex),
		Cluster: toMessage(&armorpb.Cluster{}, s.Cluster),
	}
}

// receiveState puts the chunks together again. ErrUnavailable when the stream ends
// before the last one.
func receiveState(receive func() (*armorpb.StateChunk, error)) (*armor.State, error) {
	s := &armor.State{}
	rows := map[Table][]reflect.Value{}
	for first := true; ; first = false {
		chunk, err := receive()
		if err != nil {
			return nil, err
		}
		if first {
			if err := setHead(s, chunk.GetHead()); err != nil {
				return nil, err
			}
		}
		for _, t := range tables {
			if err := t.collect(chunk.ProtoReflect(), rows); err != nil {
				return nil, err
			}
		}
		if chunk.Last {
			break
		}
	}
	for _, t := range tables {
		t.fill(s, rows[t.name()])
	}
	return s, nil
}

func setHead(s *armor.State, head *armorpb.StateHead) (err error) {
	s.Revision, s.NextIndex = head.GetRevision(), uint16(head.GetNextIndex())
	if s.Time, err = timeOf(head.GetTime()); err != nil {
		return fmt.Errorf("%w: time of the state: %w", armor.ErrInvalid, err)
	}
	s.Cluster, err = fromMessage[armor.Cluster](head.GetCluster())
	return err
}
