package wire

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Codec carries values between structs and messages by field name, so that the .proto
// is the only table to keep. A struct field without a message field is a mistake in our
// own code and panics; tests carry every word with every field set. A Codec is
// immutable and may be used from any goroutine.
type Codec struct {
	// strict refuses what this build does not know; lenient passes over it, and mends
	// text that protobuf cannot carry.
	strict bool
	// The span of instants that are taken, in seconds since 1970.
	first, last int64
	special     map[reflect.Type]Special
}

// Special carries a type that has no form of its own in a message.
type Special struct {
	// Put returns the form of v; the invalid Value for what holds nothing.
	Put func(v reflect.Value) protoreflect.Value
	// Take sets dst to what was put.
	Take func(dst reflect.Value, src protoreflect.Value) error
}

// Log is the codec of the log and the snapshot. It is strict: a field that this build
// does not know is an error, and so is text that is not UTF-8.
var Log = &Codec{strict: true, first: math.MinInt32 * 100, last: math.MaxInt32 * 1000}

// The span of instants that a signature can cover: nanoseconds since 1970 fit an int64.
const firstSecond, lastSecond = -9_000_000_000, 9_000_000_000

// API returns a codec for messages between builds. It is lenient: a field that this
// build does not know is passed over, and bytes of text that are not UTF-8, which a
// client's startup packet may hold, become U+FFFD.
func API(special map[reflect.Type]Special) *Codec {
	return &Codec{first: firstSecond, last: lastSecond, special: special}
}

var deterministic = proto.MarshalOptions{Deterministic: true}

// Marshal returns the encoding of a word: equal words have equal bytes. The error is
// that text is not UTF-8.
func (c *Codec) Marshal(word any) ([]byte, error) { return c.Append(nil, word) }

// Append appends the encoding of a word to b.
func (c *Codec) Append(b []byte, word any) ([]byte, error) {
	v := reflect.Indirect(reflect.ValueOf(word))
	m := messageOf(v.Type())
	c.fill(m, v)
	return deterministic.MarshalAppend(b, m.Interface())
}

// Unmarshal sets a word, given by its address, to what Marshal encoded. The error says
// which field holds what no build ever wrote, or is not known to this one.
func (c *Codec) Unmarshal(b []byte, word any) error {
	v := reflect.ValueOf(word).Elem()
	m := messageOf(v.Type())
	if err := c.unmarshal(b, m); err != nil {
		return err
	}
	return c.read(v, m)
}

// UnmarshalMessage is proto.Unmarshal, as strict as the codec.
func (c *Codec) UnmarshalMessage(b []byte, m proto.Message) error {
	return c.unmarshal(b, m.ProtoReflect())
}

func (c *Codec) unmarshal(b []byte, m protoreflect.Message) error {
	if err := proto.Unmarshal(b, m.Interface()); err != nil {
		return err
	}
	if !c.strict {
		return nil
	}
	if name, found := unknownField(m); found {
		return fmt.Errorf("%s has a field that this build does not know: run a newer armord", name)
	}
	return nil
}

// Fill fills an empty message from the struct that it mirrors.
func (c *Codec) Fill(dst proto.Message, src any) { c.fill(dst.ProtoReflect(), reflect.ValueOf(src)) }

// Read sets a struct, given by its address, from the message that mirrors it, or says
// which field holds nonsense. An absent message is the zero struct.
func (c *Codec) Read(dst any, src proto.Message) error {
	return c.read(reflect.ValueOf(dst).Elem(), src.ProtoReflect())
}

func (c *Codec) fill(dst protoreflect.Message, src reflect.Value) {
	for i, field := range fieldsOf(src.Type(), dst.Descriptor()) {
		value := src.Field(i)
		switch {
		case value.IsZero(): // absent, as in the message
		case field.IsMap():
			putMap(c, dst.Mutable(field).Map(), value)
		case field.IsList():
			c.putList(dst, field, value)
		default:
			if v := c.put(value, func() protoreflect.Value { return dst.NewField(field) }); v.IsValid() {
				dst.Set(field, v)
			}
		}
	}
}

func (c *Codec) putList(dst protoreflect.Message, field protoreflect.FieldDescriptor, src reflect.Value) {
	if src.Len() == 0 {
		return
	}
	list := dst.Mutable(field).List()
	for i := range src.Len() {
		v := c.put(src.Index(i), list.NewElement)
		if !v.IsValid() { // an element that holds nothing is there all the same
			v = list.NewElement()
		}
		list.Append(v)
	}
}

// putMap carries map[string]int, the only kind of map among the words.
func putMap(c *Codec, dst protoreflect.Map, src reflect.Value) {
	for key, value := range src.Seq2() {
		dst.Set(protoreflect.ValueOfString(c.text(key.String())).MapKey(), protoreflect.ValueOfInt64(value.Int()))
	}
}

func (c *Codec) read(dst reflect.Value, src protoreflect.Message) error {
	for i, field := range fieldsOf(dst.Type(), src.Descriptor()) {
		if !src.Has(field) {
			continue
		}
		if err := c.readField(dst.Field(i), field, src.Get(field)); err != nil {
			return fmt.Errorf("%s: %w", field.Name(), err)
		}
	}
	return nil
}

func (c *Codec) readField(dst reflect.Value, field protoreflect.FieldDescriptor, src protoreflect.Value) error {
	switch {
	case field.IsMap():
		dst.Set(reflect.MakeMap(dst.Type()))
		src.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			dst.SetMapIndex(reflect.ValueOf(key.String()), reflect.ValueOf(int(value.Int())))
			return true
		})
		return nil
	case !field.IsList():
		return c.take(dst, src)
	}
	list := src.List()
	dst.Set(reflect.MakeSlice(dst.Type(), list.Len(), list.Len()))
	for i := range list.Len() {
		if err := c.take(dst.Index(i), list.Get(i)); err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
	}
	return nil
}

func (c *Codec) text(s string) string {
	if c.strict {
		return s
	}
	return MendText(s)
}

// MendText replaces what protobuf cannot carry: bytes that are not UTF-8.
func MendText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// TimeMessage returns the form of an instant; nil for the zero time.
func TimeMessage(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

// TimeOf is TimeMessage's inverse, in UTC. It refuses what is outside of the codec's
// span, or no time.
func (c *Codec) TimeOf(m *Time) (time.Time, error) {
	if m == nil {
		return time.Time{}, nil
	}
	if m.Nanos < 0 || m.Nanos >= int32(time.Second) || m.Seconds < c.first || m.Seconds > c.last {
		return time.Time{}, fmt.Errorf("%d s %d ns is no time", m.Seconds, m.Nanos)
	}
	return time.Unix(m.Seconds, int64(m.Nanos)).UTC(), nil
}
