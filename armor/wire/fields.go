package wire

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// pairing is a struct and a message that mirror each other.
type pairing struct {
	goType  reflect.Type
	message protoreflect.MessageDescriptor
}

// pairings holds, for each one met so far, the message field of each struct field.
var pairings sync.Map // pairing → []protoreflect.FieldDescriptor

// fieldsOf returns the message fields that carry the fields of a struct, in their order.
func fieldsOf(goType reflect.Type, message protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	key := pairing{goType, message}
	if known, ok := pairings.Load(key); ok {
		return known.([]protoreflect.FieldDescriptor)
	}
	fields := make([]protoreflect.FieldDescriptor, goType.NumField())
	for i := range fields {
		fields[i] = fieldFor(message, goType, i)
	}
	pairings.Store(key, fields)
	return fields
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
	panic(fmt.Sprintf("wire: message %s carries no field for %s.%s", message.FullName(), goType, goType.Field(i).Name))
}

// messages holds the message type of each word met so far.
var messages sync.Map // reflect.Type → protoreflect.MessageType

// messageOf makes an empty message for a word: the one of its name.
func messageOf(goType reflect.Type) protoreflect.Message {
	if known, ok := messages.Load(goType); ok {
		return known.(protoreflect.MessageType).New()
	}
	name := File_armor_wire_words_proto.Package().Append(protoreflect.Name(goType.Name()))
	found, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		panic(fmt.Sprintf("wire: %s is no word: %v", goType, err))
	}
	messages.Store(goType, found)
	return found.New()
}

// unknownField returns the name of a message that carries fields this build does not
// know, at any depth: protobuf keeps them silently, and the log must not.
func unknownField(m protoreflect.Message) (name protoreflect.FullName, found bool) {
	if len(m.GetUnknown()) > 0 {
		return m.Descriptor().FullName(), true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil || f.IsMap() {
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
