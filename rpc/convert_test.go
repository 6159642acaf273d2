package rpc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// filler gives every field of a value something of its own, so that a field which is
// forgotten or mixed up with another shows.
type filler struct{ n int }

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(f.n), int64(f.n)).UTC()))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(f.n), 0}), 24)))
		return
	case reflect.TypeFor[netip.AddrPort]():
		v.Set(reflect.ValueOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(f.n)}), uint16(f.n))))
		return
	case reflect.TypeFor[error]():
		return // status_test.go's
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.n % 251))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key)
		f.fill(value)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	default:
		panic(fmt.Sprintf("cannot fill %s", v.Type()))
	}
}

func filled[T any]() T {
	var v T
	(&filler{}).fill(reflect.ValueOf(&v).Elem())
	return v
}

// carry sends a report over the wire and back.
func carry[T any](t *testing.T, empty proto.Message) {
	t.Helper()
	for name, want := range map[string]T{"full": filled[T](), "empty": *new(T)} {
		sent := empty.ProtoReflect().New().Interface()
		codec.Fill(sent, want)
		encoded, err := proto.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		arrived := empty.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(encoded, arrived); err != nil {
			t.Fatal(err)
		}
		got, err := fromMessage[T](arrived)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %T:\n got %+v\nwant %+v", name, want, got, want)
		}
	}
}

func TestEveryFieldOfEveryReportSurvives(t *testing.T) {
	carry[armor.SessionInfo](t, &armorpb.SessionInfo{})
	carry[armor.DenialRecord](t, &armorpb.DenialRecord{})
	carry[armor.NodeStatus](t, &armorpb.NodeStatus{})
	carry[armor.Enforcement](t, &armorpb.Enforcement{})
	carry[armor.CancelKey](t, &armorpb.CancelRequest{})
	carry[armor.Renewal](t, &armorpb.Renewal{})
	carry[armor.Freshness](t, &armorpb.Freshness{})
	carry[armor.Ballot](t, &armorpb.Ballot{})
	carry[armor.Attestation](t, &armorpb.Attestation{})
	carry[armor.Verification](t, &armorpb.Verification{})
	carry[armor.Result](t, &armorpb.Result{})
	carry[SilentNode](t, &armorpb.SilentNode{})
	carry[InitIdentity](t, &armorpb.InitIdentity{})
	carry[InitData](t, &armorpb.InitData{})
}

func TestSignatureHoldsAfterTheWireForEveryCommand(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range armor.Commands() {
		name, goType := kind.Kind(), reflect.TypeOf(kind)
		for _, full := range []bool{true, false} {
			command := reflect.New(goType).Elem()
			if full {
				(&filler{}).fill(command)
			}
			r := armor.Request{ID: NewRequestID(), Principal: "ada",
				Expires: time.Unix(1_800_000_000, 123).UTC(), Command: command.Interface().(armor.Command)}
			digest := r.SigningDigest("c")
			if r.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				t.Fatal(err)
			}
			m, err := requestMessage(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			encoded, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var arrived armorpb.Request
			if err := proto.Unmarshal(encoded, &arrived); err != nil {
				t.Fatal(err)
			}
			got, err := requestOf(&arrived)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !reflect.DeepEqual(got, r) {
				t.Errorf("%s:\n got %+v\nwant %+v", name, got, r)
			}
			if err := got.Verify("c", public); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTextThatProtobufCannotCarryIsRefusedInCommandsAndReplacedInReports(t *testing.T) {
	r := armor.Request{ID: NewRequestID(), Command: armor.Revoke{Comment: "caf\xe9"}}
	if _, err := requestMessage(r); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("command: %v", err)
	}
	m := toMessage[armorpb.SessionInfo](armor.SessionInfo{Database: "caf\xe9"})
	if _, err := proto.Marshal(m); err != nil || m.Database != "caf\uFFFD" {
		t.Errorf("report: %q, %v", m.Database, err)
	}
}

func TestNonsenseOnTheWireIsInvalid(t *testing.T) {
	for name, m := range map[string]*wire.Command{
		"none":   {},
		"digest": {Kind: &wire.Command_RegisterCertificate{RegisterCertificate: &wire.RegisterCertificate{Replaces: []byte{1}}}},
		"time":   {Kind: &wire.Command_PruneExpired{PruneExpired: &wire.PruneExpired{At: &wire.Time{Nanos: -1}}}},
		"far":    {Kind: &wire.Command_PruneExpired{PruneExpired: &wire.PruneExpired{At: &wire.Time{Seconds: 1 << 60}}}},
		"prefix": {Kind: &wire.Command_Apply{Apply: &wire.Apply{
			Identities: []*wire.IdentityConfig{{Grants: []*wire.Grant{{Cidrs: []string{"x"}}}}},
		}}},
		"too large": {Kind: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{Member: &wire.Member{Index: 1 << 20}}}},
	} {
		if _, err := requestOf(&armorpb.Request{Id: string(NewRequestID()), Command: m}); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := requestOf(nil); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no request: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, kind := range armor.Commands() {
		command := reflect.New(reflect.TypeOf(kind)).Elem()
		(&filler{}).fill(command)
		m, err := requestMessage(armor.Request{ID: NewRequestID(), Expires: time.Unix(1e9, 0), Command: command.Interface().(armor.Command)})
		if err != nil {
			f.Fatal(err)
		}
		encoded, _ := proto.Marshal(m)
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var m armorpb.Request
		if proto.Unmarshal(encoded, &m) != nil {
			return
		}
		r, err := requestOf(&m)
		if err != nil {
			if !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := requestMessage(r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := requestOf(again)
		if err != nil || !bytes.Equal(armor.Canonical(back.Command), armor.Canonical(r.Command)) {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}
