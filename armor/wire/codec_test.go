package wire_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
)

// fill gives every field of a value something of its own, so that a field which is
// forgotten or mixed up with another shows.
func fill(t *testing.T, v reflect.Value, seed *int) {
	t.Helper()
	*seed++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1_900_000_000+int64(*seed), int64(*seed)).UTC()))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(*seed), 0, 0}), 16)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *seed))
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

// words are all that is encoded under a name of its own: the rows and the commands.
func words() (types []reflect.Type) {
	for _, table := range armor.Tables() {
		types = append(types, reflect.TypeOf(table.New()).Elem())
	}
	for _, c := range armor.Commands() {
		types = append(types, reflect.TypeOf(c))
	}
	return append(types, reflect.TypeFor[armor.Cluster](), reflect.TypeFor[armor.Selector]())
}

func TestEveryFieldOfEveryWordSurvives(t *testing.T) {
	seed := 0
	for _, codec := range []*wire.Codec{wire.Log, wire.API(nil)} {
		for _, goType := range words() {
			for _, full := range []bool{true, false} {
				want, got := reflect.New(goType), reflect.New(goType)
				if full {
					fill(t, want.Elem(), &seed)
				}
				encoded, err := codec.Marshal(want.Elem().Interface())
				if err != nil {
					t.Fatal(err)
				}
				if err := codec.Unmarshal(encoded, got.Interface()); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got.Interface(), want.Interface()) {
					t.Errorf("%s\n got %+v\nwant %+v", goType, got, want)
				}
				if again, err := codec.Marshal(want.Interface()); err != nil || !bytes.Equal(again, encoded) {
					t.Errorf("%s has two encodings", goType)
				}
			}
		}
	}
}

// A message that no struct has a field for would be dropped on the way.
func TestEveryFieldOfEveryMessageIsAWordsOwn(t *testing.T) {
	byName := map[protoreflect.Name]reflect.Type{}
	var collect func(reflect.Type)
	collect = func(goType reflect.Type) {
		for goType.Kind() == reflect.Slice {
			goType = goType.Elem()
		}
		if goType.Kind() != reflect.Struct || goType.PkgPath() != reflect.TypeFor[armor.State]().PkgPath() {
			return
		}
		byName[protoreflect.Name(goType.Name())] = goType
		for i := range goType.NumField() {
			collect(goType.Field(i).Type)
		}
	}
	for _, goType := range words() {
		collect(goType)
	}
	messages := wire.File_armor_wire_words_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		if m.Name() == "Time" || m.Name() == "Command" {
			continue
		}
		goType, known := byName[m.Name()]
		if !known {
			t.Errorf("message %s mirrors no word", m.Name())
			continue
		}
		if m.Fields().Len() != goType.NumField() {
			t.Errorf("%s has %d fields and its message %d", goType, goType.NumField(), m.Fields().Len())
		}
	}
}

func TestEveryKindOfCommandIsInTheOneOf(t *testing.T) {
	oneof := (&wire.Command{}).ProtoReflect().Descriptor().Fields()
	if oneof.Len() != len(armor.Commands()) {
		t.Errorf("%d kinds in words.proto, %d in package armor", oneof.Len(), len(armor.Commands()))
	}
	seed := 0
	codec := wire.API(nil)
	for _, c := range armor.Commands() {
		v := reflect.New(reflect.TypeOf(c)).Elem()
		fill(t, v, &seed)
		want := v.Interface().(armor.Command)
		got, err := codec.ReadCommand(codec.FillCommand(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", c.Kind(), got, err)
		}
		if wire.IsCommand(nil) || !wire.IsCommand(want) || wire.IsCommand(v.Addr().Interface().(armor.Command)) {
			t.Errorf("%s: a command is a value of its kind, and nothing else", c.Kind())
		}
	}
}

func TestTheLogIsStrictWhereTheAPIIsLenient(t *testing.T) {
	later := append([]byte{0xf8, 0x3f, 1}, must(wire.Log.Marshal(armor.Tombstone{ID: "n1"}))...) // field 1023
	var got armor.Tombstone
	if err := wire.Log.Unmarshal(later, &got); err == nil {
		t.Error("the log passed over a field")
	}
	if err := wire.API(nil).Unmarshal(later, &got); err != nil || got.ID != "n1" {
		t.Errorf("the API: %v", err)
	}
	odd := armor.Operator{Name: "caf\xe9"}
	if _, err := wire.Log.Marshal(odd); err == nil {
		t.Error("the log took text that is not UTF-8")
	}
	var mended armor.Operator
	if err := wire.API(nil).Unmarshal(must(wire.API(nil).Marshal(odd)), &mended); err != nil || mended.Name != "caf\uFFFD" {
		t.Errorf("the API: %q, %v", mended.Name, err)
	}
	if _, err := wire.Log.UnmarshalCommand("teleport", nil); err == nil {
		t.Error("an unknown kind was read")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzUnmarshal(f *testing.F) {
	seed := 0
	for i, goType := range words() {
		v := reflect.New(goType)
		fill(&testing.T{}, v.Elem(), &seed)
		f.Add(i, must(wire.Log.Marshal(v.Interface())))
	}
	f.Fuzz(func(t *testing.T, which int, b []byte) {
		all := words()
		v := reflect.New(all[uint(which)%uint(len(all))])
		if wire.Log.Unmarshal(b, v.Interface()) != nil {
			return
		}
		encoded, err := wire.Log.Marshal(v.Interface())
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again := reflect.New(v.Type().Elem())
		if err := wire.Log.Unmarshal(encoded, again.Interface()); err != nil || !reflect.DeepEqual(v.Interface(), again.Interface()) {
			t.Fatalf("%+v became %+v, %v", v, again, err)
		}
	})
}
