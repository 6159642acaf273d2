package dev

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// made is a folder as a finished first start leaves it.
func made(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dev")
	d, err := openFolder(path, 3, "app@pg:5432/app")
	if err != nil {
		t.Fatal(err)
	}
	d.mark.Made = true
	if err := errors.Join(d.save(), d.close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEarlierFolderIsResumed(t *testing.T) {
	path := made(t)
	d, err := openFolder(path, 3, "app@pg:5432/app")
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !d.mark.Made {
		t.Error("the mark was lost")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestUnfitFolderIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		spoil  func(t *testing.T, path string)
		nodes  int
		server string
		want   error
		says   string
	}{
		{"other nodes", nil, 5, "app@pg:5432/app", armor.ErrConflict, "--nodes 3"},
		{"other server", nil, 3, "app@pg:5433/app", armor.ErrConflict, "pg:5432"},
		{"other version", func(t *testing.T, path string) {
			put(t, filepath.Join(path, "dev.yaml"), "layout: 99\nnodes: 3\nport: 1\nserver: x\nmade: true\n")
		}, 3, "app@pg:5432/app", armor.ErrConflict, "layout 99"},
		{"unfinished", func(t *testing.T, path string) {
			put(t, filepath.Join(path, "dev.yaml"), "layout: 1\nnodes: 3\nport: 1\nserver: x\nmade: false\n")
		}, 3, "app@pg:5432/app", armor.ErrConflict, "did not finish"},
		{"damaged mark", func(t *testing.T, path string) {
			put(t, filepath.Join(path, "dev.yaml"), "layuot: 1\n")
		}, 3, "app@pg:5432/app", armor.ErrInvalid, "dev.yaml"},
		{"somebody's own files", func(t *testing.T, path string) {
			if err := os.Remove(filepath.Join(path, "dev.lock")); err != nil {
				t.Fatal(err)
			}
		}, 3, "app@pg:5432/app", armor.ErrConflict, "not empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := made(t)
			if test.spoil != nil {
				test.spoil(t, path)
			}
			_, err := openFolder(path, test.nodes, test.server)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("openFolder = %v, want %v that says %q", err, test.want, test.says)
			}
		})
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFolderServesOneDevAtATime(t *testing.T) {
	path := made(t)
	d, err := openFolder(path, 3, "app@pg:5432/app")
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := openFolder(path, 3, "app@pg:5432/app"); !errors.Is(err, armor.ErrConflict) {
		t.Fatalf("second openFolder = %v", err)
	}
}

func TestShellReadsBackTheEnvironment(t *testing.T) {
	d, err := openFolder(filepath.Join(t.TempDir(), "it's \"here\""), 1, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	value := d.in("a $HOME `b` 'c'")
	if err := d.writeEnv(environ{{"PGHOST", "localhost"}, {"ODD", value}}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", `. "$1" && printf %s "$PGHOST $ODD"`, "sh", d.in("env")).Output()
	if err != nil || string(out) != "localhost "+value {
		t.Fatalf("sh read %q, %v", out, err)
	}
}

func TestUnusableURLIsRefusedBeforeAnythingStarts(t *testing.T) {
	for url, says := range map[string]string{
		"postgres://app@pg:5432/a%20b":                   "database",
		"postgres://app@pg1:5432,pg2:5432/app":           "more than one host",
		"postgres://app@pg:5432/app?sslmode=maybe":       "sslmode",
		"postgres://app@pg:5432/app?sslmode=verify-full": "sslrootcert",
	} {
		if _, err := findServer(t.Context(), url); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("findServer(%q) = %v, want an error that says %q", url, err, says)
		}
	}
	if _, err := findServer(t.Context(), "postgres://app@127.0.0.1:1/app"); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("a closed port gives %v", err)
	}
}
