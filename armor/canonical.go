package armor

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"reflect"
	"time"
)

// Canonical returns one fixed encoding of a value made of structs, slices, arrays,
// strings, integers, booleans, times and text marshalers. Hashes and signatures run
// over it: unlike protobuf or JSON it does not depend on a library's version. Fields
// that hold nothing (the zero value, an empty slice, the zero time in whatever
// location, a struct of such) are left out, so that a field added later does not
// change the encoding of values that do not use it, and a value that has travelled,
// which turns empty slices into nil ones, keeps its digest. It panics on any other
// kind, which is a mistake in our own code.
func Canonical(v any) []byte {
	return appendCanonical(nil, reflect.ValueOf(v))
}

func appendCanonical(b []byte, v reflect.Value) []byte {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return binary.BigEndian.AppendUint64(append(b, 't'), uint64(x.UnixNano()))
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			panic(fmt.Sprintf("armor: canonical encoding of %T: %v", x, err))
		}
		return appendText(b, 's', string(text))
	}
	switch v.Kind() {
	case reflect.String:
		return appendText(b, 's', v.String())
	case reflect.Bool:
		if v.Bool() {
			return append(b, 'y')
		}
		return append(b, 'n')
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.BigEndian.AppendUint64(append(b, 'u'), v.Uint())
	case reflect.Slice, reflect.Array:
		return appendSequence(b, v)
	case reflect.Struct:
		return appendStruct(b, v)
	}
	panic(fmt.Sprintf("armor: no canonical encoding for %s", v.Type()))
}

func appendSequence(b []byte, v reflect.Value) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 'l'), uint32(v.Len()))
	if v.Type().Elem().Kind() == reflect.Uint8 {
		for i := range v.Len() {
			b = append(b, byte(v.Index(i).Uint()))
		}
		return b
	}
	for i := range v.Len() {
		b = appendCanonical(b, v.Index(i))
	}
	return b
}

func appendStruct(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	for i := range v.NumField() {
		if holdsNothing(v.Field(i)) {
			continue
		}
		b = appendText(b, 'f', v.Type().Field(i).Name)
		b = appendCanonical(b, v.Field(i))
	}
	return append(b, '}')
}

func holdsNothing(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice:
		return v.Len() == 0
	case reflect.Struct:
		switch x := v.Interface().(type) {
		case time.Time:
			return x.IsZero()
		case encoding.TextMarshaler:
			return v.IsZero()
		}
		for i := range v.NumField() {
			if !holdsNothing(v.Field(i)) {
				return false
			}
		}
		return true
	default:
		return v.IsZero()
	}
}

func appendText(b []byte, kind byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(s)))
	return append(b, s...)
}
