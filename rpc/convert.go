package rpc

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// Conversion between the words and their messages goes by field name, so that
// words.proto is the only table to keep. A struct field without a message field is a
// mistake in our own code and panics; a test converts every word with every field
// set.

var (
	timeType     = reflect.TypeFor[time.Time]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
	chainType    = reflect.TypeFor[[]armor.Certificate]()
	errorType    = reflect.TypeFor[error]()
)

// toMessage fills an empty message from a struct and returns it. Bytes that are not
// UTF-8, which a client's startup packet may hold, become U+FFFD: protobuf carries no
// others.
func toMessage[M proto.Message](dst M, src any) M {
	fillMessage(dst.ProtoReflect(), reflect.ValueOf(src))
	return dst
}

// fromMessage makes the struct that a message mirrors, or says which field holds
// nonsense: ErrInvalid. An absent message is the zero struct.
func fromMessage[T any](src proto.Message) (T, error) {
	var dst T
	if err := fillStruct(reflect.ValueOf(&dst).Elem(), src.ProtoReflect()); err != nil {
		return dst, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
	}
	return dst, nil
}

// toMessages and fromMessages convert lists.
func toMessages[M proto.Message, T any](src []T, empty func() M) []M {
	var all []M
	for _, v := range src {
		all = append(all, toMessage(empty(), v))
	}
	return all
}

func fromMessages[T any, M proto.Message](src []M) ([]T, error) {
	var all []T
	for _, m := range src {
		v, err := fromMessage[T](m)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func fillMessage(dst protoreflect.Message, src reflect.Value) {
	for i := range src.NumField() {
		field, value := fieldFor(dst.Descriptor(), src.Type(), i), src.Field(i)
		switch {
		case field.IsMap():
			fillMap(dst.Mutable(field).Map(), value)
		case field.IsList():
			list := dst.Mutable(field).List()
			for j := range value.Len() {
				list.Append(toValue(value.Index(j), list.NewElement))
			}
		default:
			if v := toValue(value, func() protoreflect.Value { return dst.NewField(field) }); v.IsValid() {
				dst.Set(field, v)
			}
		}
	}
}

// fillMap carries map[string]int, the only kind of map among the words.
func fillMap(dst protoreflect.Map, src reflect.Value) {
	for key, value := range src.Seq2() {
		dst.Set(protoreflect.ValueOfString(validText(key.String())).MapKey(), protoreflect.ValueOfInt64(value.Int()))
	}
}

func fillStruct(dst reflect.Value, src protoreflect.Message) error {
	for i := range dst.NumField() {
		field := fieldFor(src.Descriptor(), dst.Type(), i)
		if !src.Has(field) {
			continue
		}
		if err := fillField(dst.Field(i), field, src.Get(field)); err != nil {
			return fmt.Errorf("%s: %w", field.Name(), err)
		}
	}
	return nil
}

func fillField(dst reflect.Value, field protoreflect.FieldDescriptor, src protoreflect.Value) error {
	switch {
	case field.IsMap():
		dst.Set(reflect.MakeMap(dst.Type()))
		src.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			dst.SetMapIndex(reflect.ValueOf(key.String()), reflect.ValueOf(int(value.Int())))
			return true
		})
		return nil
	case !field.IsList():
		return fromValue(dst, src)
	}
	list := src.List()
	dst.Set(reflect.MakeSlice(dst.Type(), list.Len(), list.Len()))
	for j := range list.Len() {
		if err := fromValue(dst.Index(j), list.Get(j)); err != nil {
			return fmt.Errorf("%d: %w", j, err)
		}
	}
	return nil
}

// fieldFor finds the message field that carries the i-th field of a struct.
func fieldFor(message protoreflect.MessageDescriptor, goType reflect.Type, i int) protoreflect.FieldDescriptor {
	name := strings.ToLower(goType.Field(i).Name)
	for j := range message.Fields().Len() {
		f := message.Fields().Get(j)
		if strings.ReplaceAll(string(f.Name()), "_", "") == name {
			return f
		}
	}
	panic(fmt.Sprintf("rpc: message %s carries no field for %s.%s", message.FullName(), goType, goType.Field(i).Name))
}

// toValue returns an invalid value for what holds nothing and is a message on the
// wire. empty makes the message to fill.
func toValue(v reflect.Value, empty func() protoreflect.Value) protoreflect.Value {
	switch v.Type() {
	case timeType:
		return timeValue(v.Interface().(time.Time))
	case prefixType, addrPortType:
		if v.IsZero() {
			return protoreflect.ValueOfString("")
		}
		return protoreflect.ValueOfString(v.Interface().(fmt.Stringer).String())
	case chainType:
		chain := &armorpb.Chain{Certificates: toMessages(v.Interface().([]armor.Certificate), func() *armorpb.Certificate { return &armorpb.Certificate{} })}
		return protoreflect.ValueOfMessage(chain.ProtoReflect())
	case errorType:
		if v.IsNil() {
			return protoreflect.Value{}
		}
		return protoreflect.ValueOfMessage(failureOf(v.Interface().(error)).ProtoReflect())
	}
	return toPlainValue(v, empty)
}

func toPlainValue(v reflect.Value, empty func() protoreflect.Value) protoreflect.Value {
	switch v.Kind() {
	case reflect.String:
		return protoreflect.ValueOfString(validText(v.String()))
	case reflect.Bool:
		return protoreflect.ValueOfBool(v.Bool())
	case reflect.Int, reflect.Int64:
		return protoreflect.ValueOfInt64(v.Int())
	case reflect.Uint64:
		return protoreflect.ValueOfUint64(v.Uint())
	case reflect.Uint16, reflect.Uint32:
		return protoreflect.ValueOfUint32(uint32(v.Uint()))
	case reflect.Slice:
		return protoreflect.ValueOfBytes(v.Bytes())
	case reflect.Array:
		return digestValue(v)
	case reflect.Struct:
		message := empty()
		fillMessage(message.Message(), v)
		return message
	}
	panic(fmt.Sprintf("rpc: no encoding for %s", v.Type()))
}

func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// digestValue leaves a digest that is not set empty.
func digestValue(v reflect.Value) protoreflect.Value {
	if v.IsZero() {
		return protoreflect.ValueOfBytes(nil)
	}
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	return protoreflect.ValueOfBytes(b)
}

func timeValue(t time.Time) protoreflect.Value {
	if t.IsZero() {
		return protoreflect.Value{}
	}
	return protoreflect.ValueOfMessage(timeMessage(t).ProtoReflect())
}

// timeMessage is nil for the zero time.
func timeMessage(t time.Time) *armorpb.Time {
	if t.IsZero() {
		return nil
	}
	return &armorpb.Time{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

func timeOf(m *armorpb.Time) (t time.Time, err error) {
	if m != nil {
		err = setTime(reflect.ValueOf(&t).Elem(), m)
	}
	return t, err
}

func fromValue(dst reflect.Value, src protoreflect.Value) error {
	switch dst.Type() {
	case timeType:
		return setTime(dst, src.Message().Interface().(*armorpb.Time))
	case prefixType:
		return setText(dst, src.String(), netip.ParsePrefix)
	case addrPortType:
		return setText(dst, src.String(), netip.ParseAddrPort)
	case chainType:
		chain, err := fromMessages[armor.Certificate](src.Message().Interface().(*armorpb.Chain).Certificates)
		dst.Set(reflect.ValueOf(chain))
		return err
	case errorType:
		dst.Set(reflect.ValueOf(errorOf(src.Message().Interface().(*armorpb.Failure))))
		return nil
	}
	return fromPlainValue(dst, src)
}

func fromPlainValue(dst reflect.Value, src protoreflect.Value) error {
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(src.String())
	case reflect.Bool:
		dst.SetBool(src.Bool())
	case reflect.Int, reflect.Int64:
		dst.SetInt(src.Int())
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if dst.OverflowUint(src.Uint()) {
			return fmt.Errorf("%d is out of range", src.Uint())
		}
		dst.SetUint(src.Uint())
	case reflect.Slice:
		dst.SetBytes(src.Bytes())
	case reflect.Array:
		return setDigest(dst, src.Bytes())
	case reflect.Struct:
		return fillStruct(dst, src.Message())
	}
	return nil
}

func setText[T any](dst reflect.Value, text string, parse func(string) (T, error)) error {
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err == nil {
		dst.Set(reflect.ValueOf(v))
	}
	return err
}

func setDigest(dst reflect.Value, b []byte) error {
	if len(b) != 0 && len(b) != dst.Len() {
		return fmt.Errorf("digest of %d bytes, not %d", len(b), dst.Len())
	}
	reflect.Copy(dst, reflect.ValueOf(b))
	return nil
}

// The span of instants that Canonical can sign: nanoseconds since 1970 fit an int64.
const (
	firstSecond = -9_000_000_000
	lastSecond  = 9_000_000_000
)

func setTime(dst reflect.Value, t *armorpb.Time) error {
	if t.Nanos < 0 || t.Nanos >= int32(time.Second) || t.Seconds < firstSecond || t.Seconds > lastSecond {
		return fmt.Errorf("%d s %d ns is no time", t.Seconds, t.Nanos)
	}
	dst.Set(reflect.ValueOf(time.Unix(t.Seconds, int64(t.Nanos)).UTC()))
	return nil
}
