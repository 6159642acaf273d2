package armor_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of the house. A room is a folder, and is held to the rule of its longest
// prefix; own folders below it are allowed where the rule says so. Files are read from
// the disk, so the test cache cannot hide a bad import. Each rule is seen to fail on a
// planted line, below.

const module = "github.com/armordb/armordb"

// clock are the functions that read a clock or wait for one.
var clock = []string{
	"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.Tick",
	"time.NewTicker", "time.NewTimer", "time.Sleep",
}

var chance = []string{"crypto/rand", "math/rand"}

// room is what the code of a folder may know.
type room struct {
	dir string
	own []string // our own rooms that it may import, beside those below it; nil: any
	// never are packages of the standard library, with what is below them, and functions
	// of it, as package.Function, that it must not use.
	never []string
}

var rooms = []room{
	{"armor", []string{}, slices.Concat([]string{"net", "os", "time/tzdata", "crypto/x509"}, chance, clock)},
	{"armor/door", []string{"armor"}, []string{"os", "crypto/tls", "crypto/x509"}},
	{"armor/file", []string{}, []string{"net"}},
	{"armor/pki", []string{"armor"}, []string{"net/http", "os/exec"}},
	{"armor/process", []string{}, []string{"net"}},
	{"armor/wire", []string{"armor"}, slices.Concat([]string{"net", "os"}, chance, clock)},
	{"fsm", []string{"armor", "armor/wire"}, slices.Concat([]string{"net", "os", "crypto/x509", "regexp"}, chance, clock)},
	{"fsm/saved", []string{"armor", "armor/pki", "armor/wire", "fsm", "fsm/fsmpb"}, slices.Concat([]string{"net", "os/exec"}, clock)},
	{"cluster", []string{"armor", "armor/door", "fsm"}, []string{"crypto/tls", "crypto/x509"}},
	{"cluster/link", []string{"armor", "armor/door", "armor/pki"}, []string{"os"}},
	{"tlsedge", []string{"armor", "armor/door", "armor/pki"}, []string{"os/exec", "net/http"}},
	{"pooler", []string{"armor"}, []string{"crypto/x509"}},
	{"pooler/backend", []string{"armor", "pooler/core", "pooler/pgwire"}, nil},
	{"pooler/console", []string{"armor", "pooler/core", "pooler/pgwire"}, []string{"crypto/x509", "os"}},
	{"pooler/core", []string{"armor", "pooler/pgwire"}, slices.Concat([]string{"net", "os", "sync", "crypto/tls", "time"}, chance)},
	{"pooler/password", []string{"armor", "pooler/pgwire"}, []string{"crypto/tls", "os/exec"}},
	{"pooler/pgtest", []string{"armor", "pooler/core", "pooler/pgwire"}, nil},
	{"pooler/pgwire", []string{"armor"}, slices.Concat([]string{"net", "os", "sync"}, clock)},
	{"rpc", []string{"armor", "armor/pki", "armor/wire"}, []string{"os/exec"}},
	{"rpc/manifest", []string{"armor"}, slices.Concat([]string{"net", "os"}, clock)},
	{"chaos", []string{"armor", "armor/file", "armor/process", "armor/pki", "rpc"}, nil},
	{"chaos/hostile", []string{"armor/wire", "rpc/armorpb"}, []string{"os", "os/exec"}},
	{"cmd", nil, nil},
	{"cmd/armor-chaos", []string{"armor", "chaos", "chaos/bench", "chaos/site", "rpc"}, nil},
	{"cmd/armorctl", []string{"armor", "armor/file", "armor/pki", "fsm/saved", "rpc", "rpc/manifest"}, nil},
	{"cmd/armord/config", []string{"armor", "armor/file", "armor/pki"}, nil},
	{"cmd/armord/dev", []string{"armor", "armor/file", "armor/pki", "armor/process", "cmd/armord/config", "rpc", "rpc/manifest"}, nil},
}

// homes are the only folders where a library may be known. A library that is in none is
// not used.
var homes = map[string][]string{
	"github.com/coreos/go-systemd": {"cmd/armord"},
	"github.com/goccy/go-yaml": {"chaos", "chaos/site", "cmd/armorctl",
		"cmd/armord", "cmd/armord/config", "cmd/armord/dev", "rpc/manifest"},
	"github.com/grpc-ecosystem":          {"rpc"},
	"github.com/hashicorp/go-hclog":      {"chaos/hostile", "cluster"},
	"github.com/hashicorp/memberlist":    {"cluster"},
	"github.com/hashicorp/raft":          {"chaos/hostile", "cluster"},
	"github.com/hashicorp/raft-boltdb":   {"cluster"},
	"github.com/jackc/pgproto3":          {"pooler/pgwire"},
	"github.com/jackc/pgx":               {"chaos", "chaos/bench", "chaos/site", "cmd/armord/dev", "pooler/backend"},
	"github.com/prometheus":              {"cmd/armord"},
	"github.com/spf13/cobra":             {"cmd/armor-chaos", "cmd/armorctl", "cmd/armord"},
	"github.com/tidwall/btree":           {"armor"},
	"github.com/xdg-go/scram":            {"cmd/armorctl/pgbouncer", "pooler/password", "pooler/pgtest"},
	"go.etcd.io/bbolt":                   {"cluster"},
	"golang.org/x/sync":                  {"chaos", "chaos/bench", "chaos/site", "cmd/armord", "cmd/armord/dev"},
	"golang.org/x/sys":                   {"chaos", "chaos/bench", "cluster", "cmd/armord", "cmd/armord/dev", "pooler/backend", "pooler/loop"},
	"golang.org/x/term":                  {"cmd/armorctl", "cmd/armord"},
	"golang.org/x/time":                  {"cluster", "cluster/link", "pooler", "rpc", "tlsedge"},
	"google.golang.org/grpc":             {"chaos/hostile", "rpc", "rpc/armorpb"},
	"google.golang.org/protobuf":         {"armor/wire", "fsm", "fsm/fsmpb", "fsm/saved", "rpc", "rpc/armorpb"},
	"software.sslmate.com/src/go-pkcs12": {"cmd/armorctl", "cmd/armorctl/issue", "cmd/armorctl/leak"},
}

// sources are the folders that hold no code of the house.
func outside(name string) bool {
	return strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "bin"
}

func TestImportsFollowTheRules(t *testing.T) {
	files := 0
	walk(t, func(file string, src []byte) {
		files++
		for _, v := range violations(file, src) {
			t.Error(v)
		}
	})
	if files < 100 {
		t.Fatalf("the walk reached %d files", files)
	}
}

// walk shows every file of the house, by its path from the root.
func walk(t *testing.T, show func(file string, src []byte)) {
	t.Helper()
	root := repositoryRoot(t)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && outside(d.Name()):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(d.Name(), ".go"):
			return nil
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		show(filepath.ToSlash(name), src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// violations are the rules that a file breaks. A test may know what it likes.
func violations(file string, src []byte) (found []string) {
	r, known := roomOf(path.Dir(file))
	if !known {
		return []string{fmt.Sprintf("%s: its folder is in no rule", file)}
	}
	if strings.HasSuffix(file, "_test.go") {
		return nil
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	names := map[string]string{} // of packages in this file
	for _, spec := range parsed.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
		if why := r.refuses(path.Dir(file), imported); why != "" {
			found = append(found, fmt.Sprintf("%s imports %s: %s", file, imported, why))
		}
		if name == "." {
			found = append(found, fmt.Sprintf("%s imports %s without its name", file, imported))
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(r.never, names[x.Name]+"."+s.Sel.Name) {
				found = append(found, fmt.Sprintf("%s uses %s.%s, which %s never does", file, names[x.Name], s.Sel.Name, r.dir))
			}
		}
		return true
	})
	return found
}

func roomOf(dir string) (best room, found bool) {
	for _, r := range rooms {
		if within(dir, r.dir) && len(r.dir) > len(best.dir) {
			best, found = r, true
		}
	}
	return best, found
}

// within reports whether a package or folder is another or below it.
func within(inner, outer string) bool { return inner == outer || strings.HasPrefix(inner, outer+"/") }

// refuses says why the room may not import a package; empty when it may.
func (r room) refuses(dir, imported string) string {
	below := func(outer string) bool { return within(imported, outer) }
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		if r.own == nil || within(own, r.dir) || slices.Contains(r.own, own) {
			return ""
		}
		return fmt.Sprintf("%s may import of ours only %v", r.dir, r.own)
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		for library, at := range homes {
			if below(library) && slices.Contains(at, dir) {
				return ""
			}
		}
		return "a library is known in its homes only (homes, in this test)"
	}
	if imported == "net/netip" {
		return "" // values, not the network
	}
	if slices.ContainsFunc(r.never, below) {
		return fmt.Sprintf("%s never does", r.dir)
	}
	return ""
}

// Each rule must refuse what it is there for.
func TestEveryRuleRefusesAPlantedLine(t *testing.T) {
	plant := func(dir, src string) {
		t.Helper()
		if len(violations(dir+"/planted.go", []byte("package planted\n"+src))) == 0 {
			t.Errorf("nobody minds this in %s:\n%s", dir, src)
		}
	}
	for _, r := range rooms {
		for _, n := range r.never {
			imported, function, call := strings.Cut(n, ".")
			if !call {
				plant(r.dir, fmt.Sprintf("import _ %q", imported))
				continue
			}
			plant(r.dir, fmt.Sprintf("import %q\nvar _ = %s.%s", imported, path.Base(imported), function))
			plant(r.dir, fmt.Sprintf("import other %q\nvar _ = other.%s", imported, function))
		}
		for _, other := range rooms {
			if r.own != nil && !within(other.dir, r.dir) && !slices.Contains(r.own, other.dir) {
				plant(r.dir, fmt.Sprintf("import _ %q", module+"/"+other.dir))
			}
		}
		for library, at := range homes {
			if !slices.Contains(at, r.dir) {
				plant(r.dir, fmt.Sprintf("import _ %q", library))
			}
		}
		plant(r.dir, `import _ "example.org/a/library"`)
	}
	plant("elsewhere", "")
	plant("armor", "import . \"strings\"")
}

// The drawing in ARCHITECTURE.md has a line for each room, with all that it imports of
// ours. It is held to the code in both directions.
func TestTheDrawingIsTheImports(t *testing.T) {
	drawn, err := drawing(repositoryRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range differences(drawn, imports(t)) {
		t.Error(difference)
	}
}

func TestADrawingWithAnArrowTooManyOrTooFewIsRefused(t *testing.T) {
	code := map[string][]string{"a": {"b", "c"}, "b": nil}
	for name, drawn := range map[string]map[string][]string{
		"an arrow too few":  {"a": {"b"}, "b": nil},
		"an arrow too many": {"a": {"b", "c", "d"}, "b": nil},
		"a room too few":    {"a": {"b", "c"}},
		"a room too many":   {"a": {"b", "c"}, "b": nil, "c": nil},
	} {
		if len(differences(drawn, code)) != 1 {
			t.Errorf("%s: %q", name, differences(drawn, code))
		}
	}
	if len(differences(code, code)) != 0 {
		t.Error("a true drawing is refused")
	}
}

// imports are the rooms and what each imports of ours, tests aside.
func imports(t *testing.T) map[string][]string {
	all := map[string]map[string]bool{}
	walk(t, func(file string, src []byte) {
		dir := path.Dir(file)
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		if all[dir] == nil {
			all[dir] = map[string]bool{}
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				all[dir][own] = true
			}
		}
	})
	sorted := map[string][]string{}
	for dir, set := range all {
		sorted[dir] = slices.Sorted(maps.Keys(set))
	}
	return sorted
}

// drawing reads the block of ARCHITECTURE.md whose lines are "room ← room, room".
func drawing(root string) (map[string][]string, error) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		return nil, err
	}
	_, block, found := strings.Cut(string(text), "```rooms\n")
	if !found {
		return nil, fmt.Errorf("ARCHITECTURE.md has no block of rooms")
	}
	block, _, _ = strings.Cut(block, "```")
	drawn := map[string][]string{}
	for line := range strings.Lines(block) {
		name, arrows, _ := strings.Cut(strings.TrimSpace(line), "─▶")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		drawn[name] = slices.Sorted(slices.Values(strings.Fields(arrows)))
	}
	return drawn, nil
}

func differences(drawn, code map[string][]string) (all []string) {
	for _, dir := range slices.Sorted(maps.Keys(code)) {
		arrows, there := drawn[dir]
		switch {
		case !there:
			all = append(all, fmt.Sprintf("room %s is not in the drawing: it imports %v", dir, code[dir]))
		case !slices.Equal(arrows, code[dir]):
			all = append(all, fmt.Sprintf("room %s imports %v, and is drawn with %v", dir, code[dir], arrows))
		}
	}
	for dir := range drawn {
		if _, there := code[dir]; !there {
			all = append(all, fmt.Sprintf("room %s is drawn, and there is none", dir))
		}
	}
	return all
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
