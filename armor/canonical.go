package armor

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"reflect"
	"sync"
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
	return appendHeld(make([]byte, 0, 512), reflect.ValueOf(v))
}

// appendHeld encodes a copy: of a value that has an address the parts are read in place.
func appendHeld(b []byte, v reflect.Value) []byte {
	held := reflect.New(v.Type()).Elem()
	held.Set(v)
	return formOf(v.Type()).append(b, held)
}

// shape is how values of a type are encoded.
type shape int

const (
	asTime shape = iota
	asMarshaledText
	asText
	asBool
	asSigned
	asUnsigned
	asBytes
	asList
	asStruct
	asHeld // an interface: as what it holds
)

// form is what is known of a type before there is a value of it.
type form struct {
	shape  shape
	goType reflect.Type
	names  [][]byte // of a struct's fields, as they are written
	parts  []*form  // of a struct's fields, or the one of a list's elements
}

// forms holds the form of each type met so far.
var forms sync.Map // reflect.Type → *form

func formOf(t reflect.Type) *form {
	if known, met := forms.Load(t); met {
		return known.(*form)
	}
	f := makeForm(t)
	forms.Store(t, f)
	return f
}

var (
	instantType   = reflect.TypeFor[time.Time]()
	marshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

// makeForm works out the form of a type and of those that it is made of. No type of ours
// is made of itself.
func makeForm(t reflect.Type) *form {
	f := &form{goType: t, shape: shapeOf(t)}
	switch f.shape {
	case asList:
		f.parts = []*form{makeForm(t.Elem())}
	case asStruct:
		for i := range t.NumField() {
			field := t.Field(i)
			f.names = append(f.names, appendText(nil, 'f', field.Name))
			f.parts = append(f.parts, makeForm(field.Type))
		}
	}
	return f
}

func shapeOf(t reflect.Type) shape {
	switch {
	case t == instantType:
		return asTime
	case t.Kind() == reflect.Interface:
		return asHeld
	case t.Implements(marshalerType):
		return asMarshaledText
	}
	switch t.Kind() {
	case reflect.String:
		return asText
	case reflect.Bool:
		return asBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return asSigned
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return asUnsigned
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return asBytes
		}
		return asList
	case reflect.Struct:
		return asStruct
	}
	panic(fmt.Sprintf("armor: no canonical encoding for %s", t))
}

func (f *form) append(b []byte, v reflect.Value) []byte {
	switch f.shape {
	case asTime:
		return binary.BigEndian.AppendUint64(append(b, 't'), uint64(v.Addr().Interface().(*time.Time).UnixNano()))
	case asMarshaledText:
		return f.appendMarshaled(b, v)
	case asText:
		return appendText(b, 's', v.String())
	case asBool:
		if v.Bool() {
			return append(b, 'y')
		}
		return append(b, 'n')
	case asSigned:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v.Int()))
	case asUnsigned:
		return binary.BigEndian.AppendUint64(append(b, 'u'), v.Uint())
	case asBytes:
		b = binary.BigEndian.AppendUint32(append(b, 'l'), uint32(v.Len()))
		return append(b, v.Bytes()...)
	case asList:
		b = binary.BigEndian.AppendUint32(append(b, 'l'), uint32(v.Len()))
		for i := range v.Len() {
			b = f.parts[0].append(b, v.Index(i))
		}
		return b
	case asHeld:
		return appendHeld(b, v.Elem())
	}
	return f.appendStruct(b, v)
}

func (f *form) appendMarshaled(b []byte, v reflect.Value) []byte {
	text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	if err != nil {
		panic(fmt.Sprintf("armor: canonical encoding of %s: %v", f.goType, err))
	}
	return appendText(b, 's', string(text))
}

func (f *form) appendStruct(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	for i, part := range f.parts {
		field := v.Field(i)
		if part.holdsNothing(field) {
			continue
		}
		b = append(b, f.names[i]...)
		b = part.append(b, field)
	}
	return append(b, '}')
}

func (f *form) holdsNothing(v reflect.Value) bool {
	switch f.shape {
	case asTime:
		return v.Addr().Interface().(*time.Time).IsZero()
	case asBytes, asList:
		if v.Kind() == reflect.Slice {
			return v.Len() == 0
		}
		return v.IsZero()
	case asStruct:
		for i, part := range f.parts {
			if !part.holdsNothing(v.Field(i)) {
				return false
			}
		}
		return true
	default:
		return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
	}
}

func appendText(b []byte, kind byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(s)))
	return append(b, s...)
}
