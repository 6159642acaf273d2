package fsm

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Conversion between structs and messages goes by field name, so that the .proto is
// the only table to keep. A struct field without a message field is a mistake in our
// own code and panics; a test converts every kind with every field set.

var (
	timeType     = reflect.TypeFor[time.Time]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	maxTimeNanos = int32(time.Second)
)

// toMessage fills an empty message from a struct.
func toMessage(dst proto.Message, src any) {
	fillMessage(dst.ProtoReflect(), reflect.ValueOf(src))
}

// fromMessage fills a struct (a pointer to one) from a message, or says which field
// holds what no build ever wrote.
func fromMessage(dst any, src proto.Message) error {
	return fillStruct(reflect.ValueOf(dst).Elem(), src.ProtoReflect())
}

func fillMessage(dst protoreflect.Message, src reflect.Value) {
	for i := range src.NumField() {
		field := fieldFor(dst.Descriptor(), src.Type(), i)
		value := src.Field(i)
		if field.IsList() {
			list := dst.Mutable(field).List()
			for j := range value.Len() {
				list.Append(toValue(value.Index(j), list.NewElement))
			}
			continue
		}
		if v := toValue(value, func() protoreflect.Value { return dst.NewField(field) }); v.IsValid() {
			dst.Set(field, v)
		}
	}
}

func fillStruct(dst reflect.Value, src protoreflect.Message) error {
	for i := range dst.NumField() {
		field := fieldFor(src.Descriptor(), dst.Type(), i)
		if !src.Has(field) {
			continue
		}
		if err := fillField(dst.Field(i), field, src.Get(field)); err != nil {
			return fmt.Errorf("%s: %w", field.FullName(), err)
		}
	}
	return nil
}

func fillField(dst reflect.Value, field protoreflect.FieldDescriptor, src protoreflect.Value) error {
	if !field.IsList() {
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
	panic(fmt.Sprintf("fsm: message %s carries no field for %s.%s", message.FullName(), goType, goType.Field(i).Name))
}

// toValue returns an invalid value for a struct that holds nothing, so that an
// absent message and an empty one have one encoding. empty makes the message to fill.
func toValue(v reflect.Value, empty func() protoreflect.Value) protoreflect.Value {
	switch v.Type() {
	case timeType:
		return timeValue(v.Interface().(time.Time), empty)
	case prefixType:
		return protoreflect.ValueOfString(v.Interface().(netip.Prefix).String())
	}
	switch v.Kind() {
	case reflect.String:
		return protoreflect.ValueOfString(v.String())
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
		if v.IsZero() {
			return protoreflect.Value{}
		}
		message := empty()
		fillMessage(message.Message(), v)
		return message
	}
	panic(fmt.Sprintf("fsm: no log encoding for %s", v.Type()))
}

func digestValue(v reflect.Value) protoreflect.Value {
	if v.IsZero() {
		return protoreflect.ValueOfBytes(nil)
	}
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	return protoreflect.ValueOfBytes(b)
}

func timeValue(t time.Time, empty func() protoreflect.Value) protoreflect.Value {
	if t.IsZero() {
		return protoreflect.Value{}
	}
	message := empty()
	m := message.Message().Interface().(*fsmpb.Time)
	m.Seconds, m.Nanos = t.Unix(), int32(t.Nanosecond())
	return message
}

func fromValue(dst reflect.Value, src protoreflect.Value) error {
	switch dst.Type() {
	case timeType:
		return setTime(dst, src.Message())
	case prefixType:
		p, err := netip.ParsePrefix(src.String())
		if err == nil {
			dst.Set(reflect.ValueOf(p))
		}
		return err
	}
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
		dst.SetBytes(append([]byte(nil), src.Bytes()...))
	case reflect.Array:
		return setDigest(dst, src.Bytes())
	case reflect.Struct:
		return fillStruct(dst, src.Message())
	}
	return nil
}

func setDigest(dst reflect.Value, b []byte) error {
	if len(b) != 0 && len(b) != dst.Len() {
		return fmt.Errorf("digest of %d bytes, not %d", len(b), dst.Len())
	}
	reflect.Copy(dst, reflect.ValueOf(b))
	return nil
}

func setTime(dst reflect.Value, m protoreflect.Message) error {
	t := m.Interface().(*fsmpb.Time)
	if t.Nanos < 0 || t.Nanos >= maxTimeNanos || t.Seconds < math.MinInt32*100 || t.Seconds > math.MaxInt32*1000 {
		return fmt.Errorf("%d s %d ns is no time", t.Seconds, t.Nanos)
	}
	dst.Set(reflect.ValueOf(time.Unix(t.Seconds, int64(t.Nanos)).UTC()))
	return nil
}

// unknownField returns the name of a message that carries fields this build does not
// know, at any depth: protobuf keeps them silently, and we must not.
func unknownField(m protoreflect.Message) (protoreflect.FullName, bool) {
	if len(m.GetUnknown()) > 0 {
		return m.Descriptor().FullName(), true
	}
	var name protoreflect.FullName
	found := false
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil {
			return true
		}
		if !f.IsList() {
			name, found = unknownField(v.Message())
			return !found
		}
		for i := 0; i < v.List().Len() && !found; i++ {
			name, found = unknownField(v.List().Get(i).Message())
		}
		return !found
	})
	return name, found
}
