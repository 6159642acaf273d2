package fsm

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// fill sets every field of a value, so that one that is not carried shows.
func fill(t *testing.T, v reflect.Value, seed *int) {
	t.Helper()
	*seed++
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(int64(1_900_000_000+*seed), int64(*seed)).UTC()))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(*seed), 0, 0}), 16)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("value " + strings.Repeat("x", *seed%7+1) + string(rune('a'+*seed%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*seed))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed%200 + 1))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), seed)
		}
	default:
		t.Fatalf("no way to fill a %s", v.Type())
	}
}

func TestEveryFieldOfEveryCommandTravels(t *testing.T) {
	seed := 0
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			command := reflect.New(reflect.TypeOf(k.command)).Elem()
			fill(t, command, &seed)
			want := armor.Request{
				ID: "00112233445566778899aabbccddeeff", Principal: "ada", Signature: []byte("signature"),
				Expires: epoch.Add(time.Minute + 7), Command: command.Interface().(armor.Command),
			}
			entry, err := Encode(want, epoch.Add(3))
			if err != nil {
				t.Fatal(err)
			}
			got, proposedAt, err := Decode(entry)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) || !proposedAt.Equal(epoch.Add(3)) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
			if got.SigningDigest("c") != want.SigningDigest("c") {
				t.Error("the signature would not survive the journey")
			}
		})
	}
}

func TestFramesCarryEveryField(t *testing.T) {
	seed := 0
	for _, frame := range []struct {
		goType  reflect.Type
		message proto.Message
	}{{reflect.TypeFor[outcome](), &fsmpb.Outcome{}}, {reflect.TypeFor[header](), &fsmpb.SnapshotHeader{}}} {
		want := reflect.New(frame.goType)
		fill(t, want.Elem(), &seed)
		wire.Log.Fill(frame.message, want.Elem().Interface())
		got := reflect.New(frame.goType)
		if err := wire.Log.Read(got.Interface(), frame.message); err != nil || !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
		if fields := frame.message.ProtoReflect().Descriptor().Fields().Len(); fields != frame.goType.NumField() {
			t.Errorf("%s has %d fields and its message %d", frame.goType, frame.goType.NumField(), fields)
		}
	}
}

func TestEveryCommandOfArmorHasAnEncodingAndAMeaning(t *testing.T) {
	l := governed(t)
	for name, k := range kinds {
		if name != k.command.Kind() {
			t.Errorf("%s is listed as %s", k.command.Kind(), name)
		}
		principal := "ada"
		if k.command.Needs() == "" {
			principal = "node/n1"
		}
		l.apply(l.request(principal, k.command)) // its zero value: refused or not, but understood
	}
	if len(kinds) != len(armor.Commands()) {
		t.Errorf("%d kinds have a meaning, and armor has %d", len(kinds), len(armor.Commands()))
	}
}

func TestEncodeRefusesWhatCouldNotBeReadBack(t *testing.T) {
	good := armor.Request{ID: "00112233445566778899aabbccddeeff", Principal: "ada", Expires: epoch, Command: armor.PruneExpired{}}
	bad := map[string]func(*armor.Request){
		"no command":         func(r *armor.Request) { r.Command = nil },
		"a pointer":          func(r *armor.Request) { r.Command = &armor.PruneExpired{} },
		"a short id":         func(r *armor.Request) { r.ID = "00" },
		"no principal":       func(r *armor.Request) { r.Principal = "" },
		"a space":            func(r *armor.Request) { r.Principal = "a b" },
		"a long principal":   func(r *armor.Request) { r.Principal = strings.Repeat("a", 81) },
		"a long signature":   func(r *armor.Request) { r.Signature = make([]byte, 200) },
		"no UTF-8":           func(r *armor.Request) { r.Command = armor.Revoke{Comment: "\xff"} },
		"more than an entry": func(r *armor.Request) { r.Command = armor.Revoke{Comment: strings.Repeat("x", MaxEntry)} },
	}
	if _, err := Encode(good, epoch); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range bad {
		r := good
		spoil(&r)
		if _, err := Encode(r, epoch); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("a request with %s: %v", name, err)
		}
	}
	for _, at := range []time.Time{{}, time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := Encode(good, at); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("proposed at %s: %v", at, err)
		}
	}
}

// stopping are entries that this build must not apply, made from a good one.
func stopping(t rapid.TB) map[string][]byte {
	l := governed(t)
	good, err := Encode(l.request("ada", armor.PutOperator{Operator: l.operator("bob")}), l.now)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*fsmpb.Envelope)) []byte {
		var e fsmpb.Envelope
		if err := proto.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		f(&e)
		b, err := proto.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unknown := []byte{0xf8, 0x3f, 1} // field 1023, varint
	deep := func(e *fsmpb.Envelope) {
		var p wire.PutOperator
		if err := proto.Unmarshal(e.Payload, &p); err != nil {
			t.Fatal(err)
		}
		p.Operator.Certificate.Id.ProtoReflect().SetUnknown(unknown)
		e.Payload, _ = proto.Marshal(&p)
	}
	return map[string][]byte{
		"nothing":                nil,
		"noise":                  []byte("noise"),
		"too many bytes":         make([]byte, MaxEntry+1),
		"an unknown version":     change(func(e *fsmpb.Envelope) { e.Version = 2 }),
		"an unknown kind":        change(func(e *fsmpb.Envelope) { e.Kind = "teleport" }),
		"a later level":          change(func(e *fsmpb.Envelope) { e.Level = MaxLevel + 1 }),
		"no level":               change(func(e *fsmpb.Envelope) { e.Level = 0 }),
		"an unknown field":       change(func(e *fsmpb.Envelope) { e.ProtoReflect().SetUnknown(unknown) }),
		"an unknown deep field":  change(deep),
		"a short request id":     change(func(e *fsmpb.Envelope) { e.RequestId = []byte{1} }),
		"no principal":           change(func(e *fsmpb.Envelope) { e.Principal = "" }),
		"no time":                change(func(e *fsmpb.Envelope) { e.ProposedAt = nil }),
		"a bad time":             change(func(e *fsmpb.Envelope) { e.Expires.Nanos = -1 }),
		"another kind's payload": change(func(e *fsmpb.Envelope) { e.Kind = "prune-expired" }),
	}
}

func TestEntriesThisBuildCannotApplyStopIt(t *testing.T) {
	for name, entry := range stopping(t) {
		l := governed(t)
		before := l.machine.Mark()
		if _, err := l.machine.Apply(l.index+1, 1, entry); !errors.Is(err, ErrCannotApply) {
			t.Errorf("%s: %v", name, err)
		}
		if l.machine.Mark() != before {
			t.Errorf("%s changed the state", name)
		}
	}
}

func TestEntriesOutOfOrderStop(t *testing.T) {
	l := governed(t)
	if _, err := l.machine.Apply(l.index, 1, l.entries[0]); !errors.Is(err, ErrCannotApply) {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, entry := range stopping(f) {
		f.Add(entry)
	}
	l := governed(f, "n2")
	for _, entry := range l.entries {
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		r, proposedAt, err := Decode(entry)
		if err != nil {
			if !errors.Is(err, ErrCannotApply) {
				t.Fatal(err)
			}
			return
		}
		again, err := Encode(r, proposedAt)
		if err != nil {
			t.Skip() // longer in our spelling than the limit
		}
		r2, _, err := Decode(again)
		if err != nil || r2.SigningDigest("c") != r.SigningDigest("c") {
			t.Fatalf("%v\n%+v\n%+v", err, r, r2)
		}
		l := governed(t)
		if _, err := l.machine.Apply(l.index+1, 1, entry); err != nil {
			t.Fatal(err)
		}
		replayed := New()
		if err := replayed.Restore(strings.NewReader(string(snapshotBytes(t, l.machine)))); err != nil {
			t.Fatal(err)
		}
	})
}
