package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// restored is what a virgin was restored from.
type restored struct {
	data    RestoreData
	revoked []armor.Revocation
	file    []byte
}

func (v *virgin) Restore(_ context.Context, d RestoreData, revoked []armor.Revocation, file io.Reader) error {
	b, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.restored != nil {
		return armor.ErrConflict
	}
	v.restored = &restored{d, revoked, b}
	return nil
}

func someRevocations(n int) (all []armor.Revocation) {
	for i := range n {
		all = append(all, armor.Revocation{
			Selector: armor.Selector{Kind: armor.SelectIdentity, Identity: armor.Pattern(fmt.Sprintf("spiffe://acme/%d", i))}, Reason: armor.Superseded,
		})
	}
	return all
}

func TestRestoreOverTheAdminSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := ListenInit(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 5, maxChunk, 2*maxChunk + 7} {
		for _, revocations := range []int{0, revocationsInPart, 2*revocationsInPart + 1} {
			var parts []*armorpb.RestorePart
			d, revoked, file := filled[RestoreData](), someRevocations(revocations), bytes.Repeat([]byte("x"), size)
			send := func(p *armorpb.RestorePart) error { parts = append(parts, p); return nil }
			if err := sendRestore(send, d, revoked, bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
			got, err := readParts(parts)
			if err != nil || fmt.Sprint(got.data) != fmt.Sprint(d) || fmt.Sprint(got.revoked) != fmt.Sprint(revoked) || !bytes.Equal(got.file, file) {
				t.Errorf("%d bytes, %d revocations: %d and %d arrived, %v", size, revocations, len(got.file), len(got.revoked), err)
			}
			if _, err := readParts(parts[:len(parts)-1]); !errors.Is(err, armor.ErrInvalid) {
				t.Errorf("%d bytes, %d revocations, cut short: %v", size, revocations, err)
			}
		}
	}
	node := &virgin{who: filled[InitIdentity]()}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeInit(ctx, listener, node, nil) }()
	c, err := OpenInit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file := bytes.Repeat([]byte("y"), 3*maxChunk)
	if err := c.Restore(t.Context(), filled[RestoreData](), someRevocations(1000), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if r := node.restored; r == nil || !bytes.Equal(r.file, file) || len(r.revoked) != 1000 {
		t.Errorf("arrived %+v", r)
	}
	if err := c.Restore(t.Context(), filled[RestoreData](), nil, bytes.NewReader(file)); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a second time: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// readParts reads parts as a node does.
func readParts(parts []*armorpb.RestorePart) (got restored, err error) {
	in := &restoreReader{receive: func() (*armorpb.RestorePart, error) {
		if len(parts) == 0 {
			return nil, io.EOF
		}
		part := parts[0]
		parts = parts[1:]
		return part, nil
	}}
	if got.data, got.revoked, err = in.begin(); err == nil {
		got.file, err = io.ReadAll(in)
	}
	return got, err
}

func TestRestoreRefusesPartsOutOfOrder(t *testing.T) {
	data := &armorpb.RestorePart{Data: &armorpb.RestoreData{}}
	file := &armorpb.RestorePart{File: &armorpb.FileChunk{Data: []byte("x")}}
	last := &armorpb.RestorePart{File: &armorpb.FileChunk{Last: true}}
	revoked := &armorpb.RestorePart{Revocations: toMessages[wire.Revocation](someRevocations(1))}
	for name, parts := range map[string][]*armorpb.RestorePart{
		"nothing":                       {},
		"no data":                       {file, last},
		"nothing after the data":        {data},
		"an empty part":                 {data, {}, file, last},
		"revocations within the file":   {data, file, revoked, last},
		"an empty part of the file":     {data, file, {File: &armorpb.FileChunk{}}, last},
		"no last part of the file":      {data, file},
		"a revocation of nothing known": {data, {Revocations: []*wire.Revocation{{At: &wire.Time{Seconds: 1 << 60}}}}, last},
	} {
		if _, err := readParts(parts); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
