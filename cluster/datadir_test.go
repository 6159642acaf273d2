package cluster

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func openDir(t *testing.T, path string, node armor.NodeID, cluster string, epoch uint64) *dataDir {
	t.Helper()
	d, err := openDataDir(path, node, cluster, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func belongs(d *dataDir, cluster string) error {
	_, err := d.belongsTo(armor.Cluster{ID: cluster})
	return err
}

// rewrite changes the record that a life left behind.
func rewrite(t *testing.T, path string, change func(*lifeRecord)) {
	t.Helper()
	file := filepath.Join(path, "life.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r lifeRecord
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	change(&r)
	if data, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFormerLifeIsProvenOverOnlyByItsLockInTheSameBoot(t *testing.T) {
	for name, c := range map[string]struct {
		clean    bool
		change   func(*lifeRecord)
		succeeds uint64
		wait     bool
	}{
		"ended cleanly":                {clean: true, succeeds: 1},
		"killed":                       {succeeds: 1, wait: true},
		"machine was restarted":        {change: func(r *lifeRecord) { r.BootID = "another" }, wait: true},
		"directory was copied":         {change: func(r *lifeRecord) { r.Inode++ }, wait: true},
		"copied to another filesystem": {change: func(r *lifeRecord) { r.Device++ }, wait: true},
		"clean, on another machine":    {clean: true, change: func(r *lifeRecord) { r.BootID = "another" }},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			first := openDir(t, path, "n1", labCluster, 1)
			if err := errors.Join(belongs(first, labCluster), first.close(c.clean)); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				rewrite(t, path, c.change)
			}
			d := openDir(t, path, "n1", "", 2)
			defer d.close(false)
			if d.succeeds != c.succeeds || (d.wait > 0) != c.wait {
				t.Fatalf("succeeds %d, waits %s", d.succeeds, d.wait)
			}
			if d.record.Cluster != labCluster || d.record.Clean {
				t.Fatalf("record %+v", d.record)
			}
		})
	}
}

func TestDataDirServesOneProcessAndOneNodeOfOneCluster(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, "n1", "", 1)
	if _, err := openDataDir(path, "n1", "", 2); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("opened twice: %v", err)
	}
	if err := belongs(d, labCluster); err != nil {
		t.Fatal(err)
	}
	if err := belongs(d, "another"); !errors.Is(err, armor.ErrConflict) {
		t.Fatalf("changed its cluster: %v", err)
	}
	if err := d.close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path, "n2", "", 3); !errors.Is(err, armor.ErrConflict) {
		t.Fatalf("opened by another node: %v", err)
	}
	if _, err := openDataDir(path, "n1", "another", 3); !errors.Is(err, armor.ErrConflict) {
		t.Fatalf("opened for another cluster: %v", err)
	}
	openDir(t, path, "n1", labCluster, 3).close(true)
}

func TestDamagedLifeRecordIsNotTakenForAFreshDirectory(t *testing.T) {
	path := t.TempDir()
	openDir(t, path, "n1", "", 1).close(true)
	if err := os.WriteFile(filepath.Join(path, "life.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path, "n1", "", 2); !errors.Is(err, armor.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParseLife(f *testing.F) {
	f.Add([]byte(`{"node":"n1","epoch":1,"boot_id":"b"}`))
	f.Add([]byte(`{"node":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseLife(data)
		if err == nil {
			if _, err := armor.ParseNodeID(string(r.Node)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestOnlyADirectoryThatHadALogMissesIt(t *testing.T) {
	path := t.TempDir()
	empty := newDisk()
	d := openDir(t, path, "n1", labCluster, 1)
	if err := d.remembers(empty); err != nil {
		t.Errorf("a node that joins: %v", err)
	}
	if err := belongs(d, "another"); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("it joined another cluster than it was told to: %v", err)
	}
	if err := d.close(false); err != nil { // before anything of the log has come
		t.Fatal(err)
	}
	d = openDir(t, path, "n1", labCluster, 2)
	if err := errors.Join(d.remembers(empty), belongs(d, labCluster), d.close(false)); err != nil {
		t.Fatal(err)
	}
	d = openDir(t, path, "n1", labCluster, 3)
	defer d.close(false)
	if err := d.remembers(empty); !errors.Is(err, ErrForgot) {
		t.Errorf("a log that is gone: %v", err)
	}
	if err := empty.log.StoreLog(entryOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := d.remembers(empty); !errors.Is(err, ErrForgot) {
		t.Errorf("a log whose term and votes are gone: %v", err)
	}
	if err := empty.stable.SetUint64([]byte(currentTerm), 1); err != nil {
		t.Fatal(err)
	}
	if err := d.remembers(empty); err != nil {
		t.Errorf("a log that is there: %v", err)
	}
}
