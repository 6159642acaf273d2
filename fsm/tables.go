package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
)

// tables are the sections of a snapshot, in order. A table is only ever added at the
// end, with a new level.
var tables = []table{
	of("environments", &fsmpb.Environment{}, func(d *draft) *edit[armor.Environment] { return &d.environments },
		func(v armor.Environment) string { return v.Name }),
	of("anchors", &fsmpb.TrustAnchor{}, func(d *draft) *edit[armor.TrustAnchor] { return &d.anchors },
		func(v armor.TrustAnchor) string { return v.Certificate.Fingerprint.String() }),
	of("inventory", &fsmpb.CertRecord{}, func(d *draft) *edit[armor.CertRecord] { return &d.inventory },
		func(v armor.CertRecord) string { return v.Certificate.Fingerprint.String() }).
		index(func(d *draft, v armor.CertRecord) {
			d.keyEnvironments.put(v.Certificate.Key.String(), v.Environment)
		}),
	of("revocations", &fsmpb.Revocation{}, func(d *draft) *edit[armor.Revocation] { return &d.revocations },
		func(v armor.Revocation) string { return v.Selector.MarshalKey() }),
	of("identities", &fsmpb.IdentityConfig{}, func(d *draft) *edit[armor.IdentityConfig] { return &d.identities },
		func(v armor.IdentityConfig) string { return armor.ObjectKey(v.Environment, v.Name) }).
		index(func(d *draft, v armor.IdentityConfig) {
			d.grants.put(armor.ObjectKey(v.Environment, string(v.ID)), v.Name)
		}),
	of("databases", &fsmpb.Database{}, func(d *draft) *edit[armor.Database] { return &d.databases },
		func(v armor.Database) string { return armor.ObjectKey(v.Environment, v.Name) }),
	of("pools", &fsmpb.Pool{}, func(d *draft) *edit[armor.Pool] { return &d.pools },
		func(v armor.Pool) string { return v.Key() }),
	of("shares", &fsmpb.Share{}, func(d *draft) *edit[armor.Share] { return &d.shares },
		func(v armor.Share) string { return armor.ShareKey(v.Pool, v.Node) }),
	of("members", &fsmpb.Member{}, func(d *draft) *edit[armor.Member] { return &d.members },
		func(v armor.Member) string { return string(v.ID) }),
	of("tombstones", &fsmpb.Tombstone{}, func(d *draft) *edit[armor.Tombstone] { return &d.tombstones },
		func(v armor.Tombstone) string { return string(v.ID) }),
	of("tokens", &fsmpb.JoinToken{}, func(d *draft) *edit[armor.JoinToken] { return &d.tokens },
		func(v armor.JoinToken) string { return v.Hash.String() }),
	of("joins", &fsmpb.JoinRequest{}, func(d *draft) *edit[armor.JoinRequest] { return &d.joins },
		func(v armor.JoinRequest) string { return string(v.Node) }),
	of("operators", &fsmpb.Operator{}, func(d *draft) *edit[armor.Operator] { return &d.operators },
		func(v armor.Operator) string { return v.Name }),
	requestTable{},
}

// table is one line of the list above.
type table interface {
	name() string
	rows(w *world) ([]byte, error)       // the section's payload
	read(d *draft, payload []byte) error // its inverse, into an empty draft
}

// tableOf is a table whose rows are words of package armor.
type tableOf[V any] struct {
	title   string
	message proto.Message
	pick    func(*draft) *edit[V]
	key     func(V) string
	derive  func(*draft, V) // fills the indexes that follow from a row
}

func of[V any](title string, message proto.Message, pick func(*draft) *edit[V], key func(V) string) tableOf[V] {
	return tableOf[V]{title: title, message: message, pick: pick, key: key, derive: func(*draft, V) {}}
}

func (t tableOf[V]) index(derive func(*draft, V)) tableOf[V] {
	t.derive = derive
	return t
}

func (t tableOf[V]) name() string { return t.title }

func (t tableOf[V]) rows(w *world) ([]byte, error) {
	var payload []byte
	for _, v := range t.pick(w.edit()).table.All() {
		var err error
		if payload, err = appendRow(payload, t.message, v); err != nil {
			return nil, err
		}
	}
	return payload, nil
}

func (t tableOf[V]) read(d *draft, payload []byte) error {
	return eachRow(payload, func(row []byte) error {
		v, err := readRow[V](t.message, row)
		if err != nil {
			return err
		}
		if t.pick(d).has(t.key(v)) {
			return fmt.Errorf("two rows have key %q", t.key(v))
		}
		t.pick(d).put(t.key(v), v)
		t.derive(d, v)
		return nil
	})
}

// requestTable is the deduplication table.
type requestTable struct{}

func (requestTable) name() string { return "requests" }

func (requestTable) rows(w *world) ([]byte, error) {
	var payload []byte
	for _, o := range w.requests.All() {
		var err error
		if payload, err = appendRow(payload, &fsmpb.Outcome{}, *o); err != nil {
			return nil, err
		}
	}
	return payload, nil
}

func (requestTable) read(d *draft, payload []byte) error {
	return eachRow(payload, func(row []byte) error {
		o, err := readRow[outcome](&fsmpb.Outcome{}, row)
		if err != nil {
			return err
		}
		if int(o.Code) >= len(codes) {
			return fmt.Errorf("%w: outcome of code %d", ErrCannotApply, o.Code)
		}
		if d.requests.has(o.key()) {
			return fmt.Errorf("two rows have key %q", o.key())
		}
		d.remember(&o)
		return nil
	})
}

func appendRow(payload []byte, message proto.Message, v any) ([]byte, error) {
	m := message.ProtoReflect().New().Interface()
	toMessage(m, v)
	row, err := marshal.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(binary.AppendUvarint(payload, uint64(len(row))), row...), nil
}

func readRow[V any](message proto.Message, row []byte) (v V, err error) {
	m := message.ProtoReflect().New().Interface()
	if err := unmarshal(row, m); err != nil {
		return v, err
	}
	err = fromMessage(&v, m)
	return v, err
}

func eachRow(payload []byte, take func(row []byte) error) error {
	for n := 0; len(payload) > 0; n++ {
		length, size := binary.Uvarint(payload)
		if size <= 0 || length > uint64(len(payload)-size) {
			return errors.New("a row is longer than its table")
		}
		end := size + int(length)
		if err := take(payload[size:end]); err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		payload = payload[end:]
	}
	return nil
}
