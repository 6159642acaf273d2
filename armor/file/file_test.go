package file_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/armordb/armordb/armor/file"
)

func TestReplaceLeavesOneFileWithTheNewContentAndMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte("old and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := file.Replace(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "new" {
		t.Errorf("read %q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("the folder holds %v, %v", all, err)
	}
}

func TestFailedReplaceLeavesTheOldFileAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := file.Replace(path, []byte("new"), 0o600); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 || !file.Exist(path, filepath.Join(path, "in the way")) {
		t.Errorf("the folder holds %v, %v", all, err)
	}
}

func TestLinkTakesThePlaceOfAFileAndOfALink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "link")
	for name, text := range map[string]string{"link": "a file", "one": "1", "two": "2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]string{"one": "1", "two": "2"} {
		if err := file.Link(path, target); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			t.Errorf("the link to %s leads to %q, %v", target, text, err)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 3 {
		t.Errorf("the folder holds %v, %v", all, err)
	}
}

func TestFailedLinkLeavesTheFolderAsItWas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := file.Link(path, "elsewhere"); err == nil {
		t.Fatal("a folder was replaced by a link")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 || !file.Exist(filepath.Join(path, "in the way")) {
		t.Errorf("the folder holds %v, %v", all, err)
	}
}

func TestRemoveMindsNoMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark")
	if err := file.Remove(path); err != nil {
		t.Error(err)
	}
	if err := file.Replace(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := file.Remove(path); err != nil || file.Exist(path) {
		t.Errorf("still there, or %v", err)
	}
}
