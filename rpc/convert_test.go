package rpc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// filler gives every field of a value something of its own, so that a field which is
// forgotten or mixed up with another shows.
type filler struct{ n int }

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Type() {
	case timeType:
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(f.n), int64(f.n)).UTC()))
		return
	case prefixType:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(f.n), 0}), 24)))
		return
	case addrPortType:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(f.n)}), uint16(f.n))))
		return
	case errorType:
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

// carry sends a word over the wire and back.
func carry[T any](t *testing.T, empty proto.Message) {
	t.Helper()
	for name, want := range map[string]T{"full": filled[T](), "empty": *new(T)} {
		wire, err := proto.Marshal(toMessage(empty.ProtoReflect().New().Interface(), want))
		if err != nil {
			t.Fatal(err)
		}
		arrived := empty.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(wire, arrived); err != nil {
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

func TestEveryFieldOfEveryWordSurvives(t *testing.T) {
	carry[armor.Environment](t, &armorpb.Environment{})
	carry[armor.TrustAnchor](t, &armorpb.TrustAnchor{})
	carry[armor.CertRecord](t, &armorpb.CertRecord{})
	carry[armor.Revocation](t, &armorpb.Revocation{})
	carry[armor.IdentityConfig](t, &armorpb.IdentityConfig{})
	carry[armor.Database](t, &armorpb.Database{})
	carry[armor.Pool](t, &armorpb.Pool{})
	carry[armor.Share](t, &armorpb.Share{})
	carry[armor.Member](t, &armorpb.Member{})
	carry[armor.Tombstone](t, &armorpb.Tombstone{})
	carry[armor.JoinToken](t, &armorpb.JoinToken{})
	carry[armor.JoinRequest](t, &armorpb.JoinRequest{})
	carry[armor.Operator](t, &armorpb.Operator{})
	carry[armor.Cluster](t, &armorpb.Cluster{})
	carry[armor.Selector](t, &armorpb.Selector{})
	carry[armor.SessionInfo](t, &armorpb.SessionInfo{})
	carry[armor.DenialRecord](t, &armorpb.DenialRecord{})
	carry[armor.NodeStatus](t, &armorpb.NodeStatus{})
	carry[armor.Enforcement](t, &armorpb.Enforcement{})
	carry[armor.CancelKey](t, &armorpb.CancelRequest{})
	carry[armor.Renewal](t, &armorpb.Renewal{})
	carry[armor.Freshness](t, &armorpb.Freshness{})
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
	if oneof := (&armorpb.Command{}).ProtoReflect().Descriptor().Fields().Len(); oneof != len(commands) {
		t.Errorf("%d kinds in words.proto, %d in Go", oneof, len(commands))
	}
	for name, goType := range commands {
		for _, full := range []bool{true, false} {
			command := reflect.New(goType).Elem()
			if full {
				(&filler{}).fill(command)
			}
			r := armor.Request{ID: NewRequestID(), Principal: "ada", Expires: time.Unix(1_800_000_000, 123).UTC(), Command: command.Interface().(armor.Command)}
			digest := r.SigningDigest("c")
			if r.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				t.Fatal(err)
			}
			m, err := requestMessage(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wire, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var arrived armorpb.Request
			if err := proto.Unmarshal(wire, &arrived); err != nil {
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

// A kind that package armor has and the API has not would be refused at run time only:
// the file that declares them is asked.
func TestEveryCommandOfTheStateIsInTheAPI(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../armor/command.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "Kind" {
			declared++
		}
	}
	if declared == 0 || declared != len(commands) {
		t.Errorf("armor/command.go declares %d kinds, the API carries %d", declared, len(commands))
	}
}

func TestTextThatProtobufCannotCarryIsRefusedInCommandsAndReplacedInReports(t *testing.T) {
	r := armor.Request{ID: NewRequestID(), Command: armor.Revoke{Comment: "caf\xe9"}}
	if _, err := requestMessage(r); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("command: %v", err)
	}
	m := toMessage(&armorpb.SessionInfo{}, armor.SessionInfo{Database: "caf\xe9"})
	if _, err := proto.Marshal(m); err != nil || m.Database != "caf\uFFFD" {
		t.Errorf("report: %q, %v", m.Database, err)
	}
}

func TestNonsenseOnTheWireIsInvalid(t *testing.T) {
	for name, m := range map[string]*armorpb.Command{
		"none":      {},
		"digest":    {Kind: &armorpb.Command_RegisterCertificate{RegisterCertificate: &armorpb.RegisterCertificate{Replaces: []byte{1}}}},
		"time":      {Kind: &armorpb.Command_PruneExpired{PruneExpired: &armorpb.PruneExpired{At: &armorpb.Time{Nanos: -1}}}},
		"far":       {Kind: &armorpb.Command_PruneExpired{PruneExpired: &armorpb.PruneExpired{At: &armorpb.Time{Seconds: 1 << 60}}}},
		"prefix":    {Kind: &armorpb.Command_Apply{Apply: &armorpb.Apply{Identities: []*armorpb.IdentityConfig{{Grants: []*armorpb.Grant{{Cidrs: []string{"x"}}}}}}}},
		"too large": {Kind: &armorpb.Command_Bootstrap{Bootstrap: &armorpb.Bootstrap{Member: &armorpb.Member{Index: 1 << 20}}}},
	} {
		if _, err := commandOf(m); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := requestOf(nil); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no request: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, goType := range commands {
		command := reflect.New(goType).Elem()
		(&filler{}).fill(command)
		m, err := requestMessage(armor.Request{ID: NewRequestID(), Expires: time.Unix(1e9, 0), Command: command.Interface().(armor.Command)})
		if err != nil {
			f.Fatal(err)
		}
		wire, _ := proto.Marshal(m)
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var m armorpb.Request
		if proto.Unmarshal(wire, &m) != nil {
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
