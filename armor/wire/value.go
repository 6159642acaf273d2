package wire

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

var (
	timeType     = reflect.TypeFor[time.Time]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
)

// put returns the form of a value. It is the invalid Value for a struct that holds
// nothing, so that an absent message and an empty one have one encoding. empty makes
// the message to fill.
func (c *Codec) put(v reflect.Value, empty func() protoreflect.Value) protoreflect.Value {
	if special, ok := c.special[v.Type()]; ok {
		return special.Put(v)
	}
	switch v.Type() {
	case timeType:
		if m := TimeMessage(v.Interface().(time.Time)); m != nil {
			return protoreflect.ValueOfMessage(m.ProtoReflect())
		}
		return protoreflect.Value{}
	case prefixType, addrPortType:
		if v.IsZero() {
			return protoreflect.ValueOfString("")
		}
		return protoreflect.ValueOfString(v.Interface().(fmt.Stringer).String())
	}
	return c.putPlain(v, empty)
}

func (c *Codec) putPlain(v reflect.Value, empty func() protoreflect.Value) protoreflect.Value {
	switch v.Kind() {
	case reflect.String:
		return protoreflect.ValueOfString(c.text(v.String()))
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
		return putDigest(v)
	case reflect.Struct:
		if v.IsZero() {
			return protoreflect.Value{}
		}
		message := empty()
		c.fill(message.Message(), v)
		return message
	}
	panic(fmt.Sprintf("wire: no encoding for %s", v.Type()))
}

// putDigest leaves a digest that is not set empty.
func putDigest(v reflect.Value) protoreflect.Value {
	if v.IsZero() {
		return protoreflect.ValueOfBytes(nil)
	}
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	return protoreflect.ValueOfBytes(b)
}

// take is put's inverse.
func (c *Codec) take(dst reflect.Value, src protoreflect.Value) error {
	if special, ok := c.special[dst.Type()]; ok {
		return special.Take(dst, src)
	}
	switch dst.Type() {
	case timeType:
		t, err := c.TimeOf(src.Message().Interface().(*Time))
		dst.Set(reflect.ValueOf(t))
		return err
	case prefixType:
		return takeText(dst, src.String(), netip.ParsePrefix)
	case addrPortType:
		return takeText(dst, src.String(), netip.ParseAddrPort)
	}
	return c.takePlain(dst, src)
}

func (c *Codec) takePlain(dst reflect.Value, src protoreflect.Value) error {
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
		return takeDigest(dst, src.Bytes())
	case reflect.Struct:
		return c.read(dst, src.Message())
	}
	return nil
}

func takeText[T any](dst reflect.Value, text string, parse func(string) (T, error)) error {
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err == nil {
		dst.Set(reflect.ValueOf(v))
	}
	return err
}

func takeDigest(dst reflect.Value, b []byte) error {
	if len(b) != 0 && len(b) != dst.Len() {
		return fmt.Errorf("digest of %d bytes, not %d", len(b), dst.Len())
	}
	reflect.Copy(dst, reflect.ValueOf(b))
	return nil
}
