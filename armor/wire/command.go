package wire

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
)

// commands are the kinds of command: the type of each by its kind.
var commands = byKind(armor.Commands())

func byKind(all []armor.Command) map[string]reflect.Type {
	types := make(map[string]reflect.Type, len(all))
	for _, c := range all {
		types[c.Kind()] = reflect.TypeOf(c)
	}
	return types
}

// IsCommand reports whether c is a value of one of the kinds: not nil, no pointer to one.
func IsCommand(c armor.Command) bool {
	return c != nil && commands[c.Kind()] == reflect.TypeOf(c)
}

// UnmarshalCommand reads the command of a kind. The error says that the kind, or a
// field, is not known to this build, or which field holds nonsense.
func (c *Codec) UnmarshalCommand(kind string, payload []byte) (armor.Command, error) {
	goType, known := commands[kind]
	if !known {
		return nil, fmt.Errorf("unknown kind %.40q: run a newer armord", kind)
	}
	command := reflect.New(goType)
	if err := c.Unmarshal(payload, command.Interface()); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return command.Elem().Interface().(armor.Command), nil
}

// FillCommand returns the Command that holds c, for which IsCommand must hold.
func (c *Codec) FillCommand(from armor.Command) *Command {
	command := &Command{}
	field := command.ProtoReflect().Descriptor().Fields().ByName(fieldOfKind(from.Kind()))
	c.fill(command.ProtoReflect().Mutable(field).Message(), reflect.ValueOf(from))
	return command
}

// ReadCommand is FillCommand's inverse.
func (c *Codec) ReadCommand(m *Command) (armor.Command, error) {
	message := m.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return nil, fmt.Errorf("no command that this build knows: run a newer armord")
	}
	command := reflect.New(commands[kindOfField(field.Name())]).Elem()
	if err := c.read(command, message.Get(field).Message()); err != nil {
		return nil, fmt.Errorf("%s: %w", field.Name(), err)
	}
	return command.Interface().(armor.Command), nil
}

func fieldOfKind(kind string) protoreflect.Name {
	return protoreflect.Name(strings.ReplaceAll(kind, "-", "_"))
}

func kindOfField(name protoreflect.Name) string { return strings.ReplaceAll(string(name), "_", "-") }
