package rpc

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// commands are an empty one of each kind, by the name of their field in
// armorpb.Command.
var commands = byField(
	armor.Bootstrap{}, armor.PutEnvironment{}, armor.PutAnchor{}, armor.RegisterCertificate{}, armor.Revoke{},
	armor.Apply{}, armor.PutOperator{}, armor.CreateJoinToken{}, armor.RequestJoin{}, armor.ApproveJoin{},
	armor.RemoveMember{}, armor.SetMemberAddresses{}, armor.SetShares{}, armor.BuryTombstones{}, armor.PruneExpired{},
)

func byField(all ...armor.Command) map[protoreflect.Name]reflect.Type {
	types := make(map[protoreflect.Name]reflect.Type, len(all))
	for _, c := range all {
		types[commandField(c)] = reflect.TypeOf(c)
	}
	return types
}

func commandField(c armor.Command) protoreflect.Name {
	return protoreflect.Name(strings.ReplaceAll(c.Kind(), "-", "_"))
}

// requestMessage converts a request. It returns ErrInvalid for one that would arrive
// as another, such as with text that is not UTF-8: its signature would not hold.
func requestMessage(r armor.Request) (*armorpb.Request, error) {
	if r.Command == nil || commands[commandField(r.Command)] != reflect.TypeOf(r.Command) {
		return nil, fmt.Errorf("%w: %T is no command of the API", armor.ErrInvalid, r.Command)
	}
	command := &armorpb.Command{}
	field := command.ProtoReflect().Descriptor().Fields().ByName(commandField(r.Command))
	fillMessage(command.ProtoReflect().Mutable(field).Message(), reflect.ValueOf(r.Command))
	m := &armorpb.Request{Id: string(r.ID), Principal: r.Principal, Command: command, Signature: r.Signature, Expires: timeMessage(r.Expires)}
	arrived, err := requestOf(m)
	if err != nil {
		return nil, err
	}
	if arrived.Digest() != r.Digest() {
		return nil, fmt.Errorf("%w: %s holds text that is not UTF-8, or a time that no clock shows", armor.ErrInvalid, r.Command.Kind())
	}
	return m, nil
}

// requestOf is requestMessage's inverse.
func requestOf(m *armorpb.Request) (armor.Request, error) {
	id, err := armor.ParseRequestID(m.GetId())
	if err != nil {
		return armor.Request{}, err
	}
	r := armor.Request{ID: id, Principal: m.Principal, Signature: m.Signature}
	if r.Expires, err = timeOf(m.Expires); err != nil {
		return r, fmt.Errorf("%w: expires: %w", armor.ErrInvalid, err)
	}
	r.Command, err = commandOf(m.GetCommand())
	return r, err
}

func commandOf(m *armorpb.Command) (armor.Command, error) {
	message := m.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return nil, fmt.Errorf("%w: no command that this build knows: run a newer armord", armor.ErrInvalid)
	}
	command := reflect.New(commands[field.Name()]).Elem()
	if err := fillStruct(command, message.Get(field).Message()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", armor.ErrInvalid, field.Name(), err)
	}
	return command.Interface().(armor.Command), nil
}
