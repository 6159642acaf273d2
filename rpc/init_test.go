package rpc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/armordb/armordb/armor"
)

// virgin is a node that belongs to no cluster yet.
type virgin struct {
	who  InitIdentity
	mu   sync.Mutex
	data []InitData

	restored *restored
}

func (v *virgin) Identify(context.Context) (InitIdentity, error) { return v.who, nil }

func (v *virgin) Initialize(_ context.Context, d InitData) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.data) > 0 {
		return fmt.Errorf("%w: this node is of cluster %s", armor.ErrConflict, v.data[0].Bootstrap.Cluster.Name)
	}
	v.data = append(v.data, d)
	return nil
}

func TestInitOverTheAdminSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // left by a former life
		t.Fatal(err)
	}
	listener, err := ListenInit(path)
	if err != nil {
		t.Fatal(err)
	}
	node := &virgin{who: filled[InitIdentity]()}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeInit(ctx, listener, node, nil) }()

	if info, err := os.Stat(path); err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	if others, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".admin-*")); len(others) > 0 {
		t.Errorf("left behind %v", others)
	}
	c, err := OpenInit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	who, err := c.Identify(t.Context())
	if err != nil || fmt.Sprint(who) != fmt.Sprint(node.who) {
		t.Errorf("%+v, %v", who, err)
	}
	want := filled[InitData]()
	if err := c.Initialize(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if len(node.data) != 1 || fmt.Sprint(node.data[0]) != fmt.Sprint(want) {
		t.Errorf("arrived %+v\nwant %+v", node.data, want)
	}
	if err := c.Initialize(t.Context(), want); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a second time: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := c.Identify(t.Context()); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
}
