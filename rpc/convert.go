package rpc

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// codec carries words and reports between builds. What reports hold beside words are
// errors, by status.go's table, and lists of chains.
var codec *wire.Codec

func init() { // the specials use the codec themselves
	codec = wire.API(map[reflect.Type]wire.Special{
		reflect.TypeFor[error]():               {Put: putError, Take: takeError},
		reflect.TypeFor[[]armor.Certificate](): {Put: putChain, Take: takeChain},
	})
}

func putError(v reflect.Value) protoreflect.Value {
	if v.IsNil() {
		return protoreflect.Value{}
	}
	return protoreflect.ValueOfMessage(failureOf(v.Interface().(error)).ProtoReflect())
}

func takeError(dst reflect.Value, src protoreflect.Value) error {
	dst.Set(reflect.ValueOf(errorOf(src.Message().Interface().(*armorpb.Failure))))
	return nil
}

func putChain(v reflect.Value) protoreflect.Value {
	chain := &armorpb.Chain{Certificates: toMessages[wire.Certificate](v.Interface().([]armor.Certificate))}
	return protoreflect.ValueOfMessage(chain.ProtoReflect())
}

func takeChain(dst reflect.Value, src protoreflect.Value) error {
	chain, err := fromMessages[armor.Certificate](src.Message().Interface().(*armorpb.Chain).Certificates)
	dst.Set(reflect.ValueOf(chain))
	return err
}

// message is a generated message type M, by its address.
type message[M any] interface {
	*M
	proto.Message
}

// toMessage makes the message that mirrors a struct.
func toMessage[M any, P message[M]](src any) *M {
	dst := new(M)
	codec.Fill(P(dst), src)
	return dst
}

// fromMessage makes the struct that a message mirrors, or says which field holds
// nonsense: ErrInvalid. An absent message is the zero struct.
func fromMessage[T any](src proto.Message) (T, error) {
	var dst T
	if err := codec.Read(&dst, src); err != nil {
		return dst, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
	}
	return dst, nil
}

// toMessages and fromMessages convert lists.
func toMessages[M any, P message[M], T any](src []T) []*M {
	var all []*M
	for _, v := range src {
		all = append(all, toMessage[M, P](v))
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

// requestMessage converts a request. It returns ErrInvalid for one that would arrive
// as another, such as with text that is not UTF-8: its signature would not hold.
func requestMessage(r armor.Request) (*armorpb.Request, error) {
	if !wire.IsCommand(r.Command) {
		return nil, fmt.Errorf("%w: %T is no command of the API", armor.ErrInvalid, r.Command)
	}
	m := &armorpb.Request{
		Id: string(r.ID), Principal: r.Principal, Command: codec.FillCommand(r.Command),
		Signature: r.Signature, Expires: wire.TimeMessage(r.Expires),
	}
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
	if r.Expires, err = codec.TimeOf(m.Expires); err != nil {
		return r, fmt.Errorf("%w: expires: %w", armor.ErrInvalid, err)
	}
	if r.Command, err = codec.ReadCommand(m.GetCommand()); err != nil {
		return r, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
	}
	return r, nil
}
