package manifest

import (
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/armordb/armordb/armor"
)

const (
	// MaxSize is how many bytes one file may have.
	MaxSize = 4 << 20
	// maxDepth bounds how deep brackets nest, and how many sequence markers one line
	// holds: the parser recurses, and our documents are six levels deep.
	maxDepth = 32
)

// Parse reads the documents of one file; name is for error texts. The error, an
// ErrInvalid, joins an *Error for each thing that is wrong, as far as that can be told
// at once.
func Parse(name string, src []byte) (set Set, err error) {
	f := &faults{file: name}
	if len(src) > MaxSize {
		f.at(nil, "the file has %d bytes, more than %d", len(src), MaxSize)
		return Set{}, f.err()
	}
	f.lines = strings.Split(string(src), "\n")
	p := &parsing{faults: f, set: Set{places: map[armor.ObjectRef]string{}}}
	p.file(string(src))
	if err := f.err(); err != nil {
		return Set{}, err
	}
	return p.set, nil
}

// parsing is one Parse in progress.
type parsing struct {
	*faults
	set Set
}

// file reads all documents. The library is guarded: whatever a file makes it do, the
// answer is an error.
func (p *parsing) file(src string) {
	defer func() {
		if cause := recover(); cause != nil {
			p.at(nil, "this is no YAML that can be read: %v", cause)
		}
	}()
	tokens := lexer.Tokenize(src)
	if !p.shallow(tokens) {
		return
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		p.yaml(err)
		return
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		p.document(doc.Body)
	}
}

// shallow refuses what our documents have no use for and a parser can be hurt with:
// deep nesting, anchors and aliases, tags, merge keys.
func (p *parsing) shallow(tokens token.Tokens) bool {
	depth, line, onLine := 0, 0, 0
	for _, t := range tokens {
		if t.Position != nil && t.Position.Line != line {
			line, onLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			onLine++
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType:
			p.at(t, "anchors, aliases, tags and merge keys are not taken: write it out, and quote a name that begins with * or &")
			return false
		}
		if depth > maxDepth || onLine > maxDepth || t.Position != nil && t.Position.IndentNum > maxDepth*maxDepth {
			p.at(t, "this nests too deep")
			return false
		}
	}
	return true
}

// readers read one document of each kind.
var readers = map[string]func(*parsing, ast.Node){
	armor.KindEnvironment: (*parsing).environment,
	armor.KindDatabase:    (*parsing).database,
	armor.KindPool:        (*parsing).pool,
	armor.KindIdentity:    (*parsing).identity,
}

func (p *parsing) document(body ast.Node) {
	var header struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	if body.Type() != ast.MappingType && body.Type() != ast.MappingValueType {
		p.at(body.GetToken(), "a document is a mapping with apiVersion, kind, metadata and spec")
		return
	}
	if err := yaml.NodeToValue(body, &header); err != nil {
		p.yaml(err)
		return
	}
	if header.APIVersion != apiVersion {
		p.at(tokenAt(body, armor.Field{"apiVersion"}), "apiVersion is %q: this version reads %s", clip(header.APIVersion), apiVersion)
		return
	}
	read, known := readers[header.Kind]
	if !known {
		p.at(tokenAt(body, armor.Field{"kind"}), "kind %q is not one of %s", clip(header.Kind), kindNames)
		return
	}
	read(p, body)
}

// read decodes a document strictly. The object is nil when it cannot be read.
func read[S any](p *parsing, body ast.Node) (document[S], *object) {
	var d document[S]
	if err := yaml.NodeToValue(body, &d, yaml.Strict()); err != nil {
		p.yaml(err)
		return d, nil
	}
	return d, &object{parsing: p, body: body, ok: true}
}

// tokenAt finds where a field stands. A field that is absent stands where the nearest one around it does.
func tokenAt(node ast.Node, path armor.Field) *token.Token {
	best := node.GetToken()
	for _, step := range path {
		node = stepInto(node, step)
		if node == nil {
			break
		}
		best = node.GetToken()
	}
	return best
}

// nodeAt finds a node by its path; nil when there is none.
func nodeAt(node ast.Node, path armor.Field) ast.Node {
	for _, step := range path {
		if node = stepInto(node, step); node == nil {
			return nil
		}
	}
	return node
}

func stepInto(node ast.Node, step any) ast.Node {
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			if v.Key.GetToken().Value == step {
				return v.Value
			}
		}
	case *ast.MappingValueNode:
		if n.Key.GetToken().Value == step {
			return n.Value
		}
	case *ast.SequenceNode:
		if i, ok := step.(int); ok && i < len(n.Values) {
			return n.Values[i]
		}
	}
	return nil
}
