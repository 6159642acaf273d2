package armor_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/armordb/armordb"

// rules are ARCHITECTURE.md's table. A package is judged by its longest matching
// prefix; "std" stands for the standard library, and a rule's own folder is always
// allowed. Test files are held only to the forbidden list.
var rules = []struct {
	dir    string
	allow  []string // our own packages it may import; nil: any
	forbid []string // import paths (prefix match) it must not have
}{
	{dir: "armor", allow: []string{}, forbid: []string{"google.golang.org", "github.com/hashicorp", "github.com/jackc", "net", "os", "time/tzdata", "crypto/x509", "crypto/rand", "math/rand"}},
	{dir: "armor/wire", allow: []string{"armor"}, forbid: []string{"net", "os", "google.golang.org/grpc"}},
	{dir: "armor/pki", allow: []string{"armor"}, forbid: []string{"third-party"}},
	{dir: "fsm", allow: []string{"armor"}, forbid: []string{"net", "os", "crypto/rand", "math/rand", "crypto/x509", "regexp", "github.com/hashicorp"}},
	{dir: "cluster", allow: []string{"armor", "fsm"}, forbid: []string{"google.golang.org", "github.com/jackc", "crypto/tls"}},
	{dir: "cluster/link", allow: []string{"armor"}, forbid: []string{"third-party"}},
	{dir: "tlsedge", allow: []string{"armor"}, forbid: []string{"google.golang.org", "github.com/jackc", "github.com/hashicorp"}},
	{dir: "pooler", allow: []string{"armor"}, forbid: []string{"google.golang.org", "github.com/hashicorp", "github.com/jackc/pgproto3"}},
	{dir: "pooler/core", allow: []string{"armor", "pooler/pgwire"}, forbid: []string{"third-party", "net", "os", "sync", "crypto/tls", "math/rand", "crypto/rand"}},
	{dir: "pooler/pgwire", allow: []string{"armor"}, forbid: []string{"net", "os"}},
	{dir: "rpc", allow: []string{"armor"}, forbid: []string{"github.com/hashicorp", "github.com/jackc"}},
	{dir: "cmd/armorctl", allow: []string{"armor", "rpc"}, forbid: []string{"google.golang.org/grpc"}},
	{dir: "cmd/armor-chaos", allow: []string{"armor", "chaos", "rpc"}},
	{dir: "chaos", allow: []string{"armor", "rpc"}, forbid: []string{"github.com/hashicorp"}},
	{dir: "cmd/armord", forbid: []string{"github.com/jackc/pgproto3"}},
}

// netipIsFine: net/netip is a value type, not the network.
func isNetwork(forbidden, path string) bool {
	return forbidden == "net" && path == "net/netip"
}

func TestImportsFollowTheDrawing(t *testing.T) {
	root := repositoryRoot(t)
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (strings.HasPrefix(name, ".") && path != root || name == "testdata" || name == "tools" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		seen[ruleFor(dir)] = true
		checkFile(t, filepath.ToSlash(dir), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen["armor"] {
		t.Fatal("the walk did not reach this package")
	}
}

func ruleFor(dir string) string {
	best := ""
	for _, r := range rules {
		if (dir == r.dir || strings.HasPrefix(dir, r.dir+"/")) && len(r.dir) > len(best) {
			best = r.dir
		}
	}
	return best
}

func checkFile(t *testing.T, dir, path string) {
	t.Helper()
	name := ruleFor(dir)
	i := slices.IndexFunc(rules, func(r struct {
		dir    string
		allow  []string
		forbid []string
	}) bool {
		return r.dir == name
	})
	if i < 0 {
		t.Errorf("%s: folder %q is not in the drawing", path, dir)
		return
	}
	rule := rules[i]
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	test := strings.HasSuffix(path, "_test.go")
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if own, ok := strings.CutPrefix(imported, module+"/"); ok {
			if !test && rule.allow != nil && !allowed(rule.dir, rule.allow, own) {
				t.Errorf("%s imports %s: %s may import only %v", path, own, rule.dir, rule.allow)
			}
			continue
		}
		if test {
			continue
		}
		for _, f := range rule.forbid {
			if forbidden(f, imported) {
				t.Errorf("%s imports %s, which %s must not know", path, imported, rule.dir)
			}
		}
	}
}

func allowed(self string, allow []string, own string) bool {
	for _, a := range append([]string{self}, allow...) {
		if own == a || strings.HasPrefix(own, a+"/") {
			return true
		}
	}
	return false
}

func forbidden(rule, imported string) bool {
	if rule == "third-party" {
		first, _, _ := strings.Cut(imported, "/")
		return strings.Contains(first, ".")
	}
	if isNetwork(rule, imported) {
		return false
	}
	return imported == rule || strings.HasPrefix(imported, rule+"/")
}

func repositoryRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
	}
}
