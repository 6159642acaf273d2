package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/portable"
)

func TestPoolerGetsTheLimitsThatCameBeforeItAndAllLaterOnes(t *testing.T) {
	p, err := pooler.New(pooler.Config{Secrets: secrets{t.TempDir()}, Driver: portable.New(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	pool := armor.Pool{Name: "orders", Environment: "dev", Database: "orders", Mode: armor.TransactionMode, Budget: 10}
	p.Configure([]armor.Database{{Name: "orders", Environment: "dev", Hosts: []string{"pg:5432"}, DBName: "orders",
		TLSMode: armor.TLSDisable}}, []armor.Pool{pool})
	limit := func() int { return p.Status()[0].Limit }
	h := &holder{}
	if len(h.Held()) != 0 {
		t.Error("holds something without a pooler")
	}
	h.SetShares(1, map[string]int{pool.Key(): 7})
	h.attach(p)
	if got := limit(); got != 7 {
		t.Errorf("limit %d after attaching", got)
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { h.SetShares(2, map[string]int{pool.Key(): i}) })
	}
	all.Wait()
	if got := limit(); got != h.limits[pool.Key()] {
		t.Errorf("limit %d, and the latest share is %d", got, h.limits[pool.Key()])
	}
}

// TestWhatAFormerLifeHasLeftIsHeldBeforeThereIsAPooler: else the leader would hear of nothing and
// give its places away.
func TestWhatAFormerLifeHasLeftIsHeldBeforeThereIsAPooler(t *testing.T) {
	path := filepath.Join(t.TempDir(), registerFile)
	lines := `{"id":1,"pool":"dev/orders","host":"pg:5432","role":"a","pid":7}` + "\n" + `{"id":2,"pool":"dev/orders","host":"pg:5432","role":"a"}` + "\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := backend.OpenRegister(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := &holder{register: r}
	if got := h.Held()["dev/orders"]; got != 2 {
		t.Errorf("held %d", got)
	}
	p, err := pooler.New(pooler.Config{Secrets: secrets{t.TempDir()}, Driver: portable.New(), Logger: slog.New(slog.DiscardHandler), Register: r})
	if err != nil {
		t.Fatal(err)
	}
	h.attach(p)
	if got := h.Held()["dev/orders"]; got != 2 {
		t.Errorf("held %d by the pooler", got)
	}
}
