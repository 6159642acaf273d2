package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"
)

// shapes are the structs of a file.
type shapes map[string]*shape

// shape is one struct and its comment.
type shape struct {
	comment string
	fields  *ast.FieldList
}

func readShapes(path string) (shapes, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	all := shapes{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if s, ok := t.Type.(*ast.StructType); ok {
				all[t.Name.Name] = &shape{oneLine(g.Doc.Text()), s.Fields}
			}
		}
	}
	return all, nil
}

// about is the comment of a struct as a sentence: "It is one island of trust."
func (s shapes) about(name string) string {
	_, rest, _ := strings.Cut(s[name].comment, " ")
	return "It " + escape(rest)
}

// row is one line of a table.
type row struct{ keys, kind, text string }

// rows are the fields of a struct and of those in it. A field without a comment shares that of
// the one before it.
func (s shapes) rows(name, prefix string) (rows []row, err error) {
	shape, found := s[name]
	if !found {
		return nil, fmt.Errorf("there is no struct %s", name)
	}
	keys := shape.keys()
	for _, f := range shape.fields.List {
		key := keyOf(f)
		if key == "" {
			continue
		}
		kind, inner, below := s.kind(f.Type)
		comment := oneLine(f.Doc.Text())
		switch {
		case comment == "" && inner == "" && len(rows) > 0 && rows[len(rows)-1].kind == kind:
			rows[len(rows)-1].keys += ", `" + prefix + key + "`"
			continue
		case comment == "" && inner == "":
			return nil, fmt.Errorf("%s.%s has no comment", name, f.Names[0])
		case inner == "" && !tellsDefault(comment):
			return nil, fmt.Errorf("the comment of %s.%s says neither its default nor that it is required", name, f.Names[0])
		}
		if only := s.onlyKey(inner); only != "" && kind == "" && tellsDefault(comment) {
			rows = append(rows, row{"`" + prefix + key + below + only + "`", "text", inKeys(comment, keys)})
			continue
		}
		if inner == "" || kind != "" {
			rows = append(rows, row{"`" + prefix + key + "`", kind, inKeys(comment, keys)})
		}
		if inner != "" {
			more, err := s.rows(inner, prefix+key+below)
			if err != nil {
				return nil, err
			}
			rows = append(rows, more...)
		}
	}
	return rows, nil
}

func tellsDefault(comment string) bool {
	return strings.Contains(comment, "Default: ") || strings.Contains(comment, "Required")
}

// onlyKey is the key of a struct's one field: such a struct is a name that stands for something, and
// what there is to say is said where it is used.
func (s shapes) onlyKey(name string) string {
	if name == "" || len(s[name].fields.List) != 1 {
		return ""
	}
	return keyOf(s[name].fields.List[0])
}

// kind is a type in words. inner is the struct that a field leads to, and below what stands
// between the field's key and that struct's keys.
func (s shapes) kind(t ast.Expr) (kind, inner, below string) {
	switch t := t.(type) {
	case *ast.StarExpr:
		return s.kind(t.X)
	case *ast.ArrayType:
		of, inner, _ := s.kind(t.Elt)
		if inner != "" {
			return "list", inner, "[]."
		}
		return "list of " + of, "", ""
	case *ast.MapType:
		_, inner, _ := s.kind(t.Value)
		return "by name", inner, ".NAME."
	case *ast.Ident:
		if _, found := s[t.Name]; found {
			return "", t.Name, "."
		}
		return words[t.Name], "", ""
	case *ast.SelectorExpr: // time.Duration
		return "duration", "", ""
	}
	return "", "", ""
}

var words = map[string]string{"string": "text", "text": "text", "int": "number", "bool": "true or false"}

func keyOf(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	key, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml"), ",")
	return key
}

// keys are the keys of a struct's fields by their names in Go.
func (s *shape) keys() map[string]string {
	keys := map[string]string{}
	for _, f := range s.fields.List {
		if key := keyOf(f); key != "" {
			keys[f.Names[0].Name] = key
		}
	}
	return keys
}

// goName is a word that begins a comment, or can only be the name of a field.
var goName = regexp.MustCompile(`^[A-Z]\w*|\b[A-Z]+[a-z]*[A-Z][a-z]+\b`)

// inKeys writes a comment in the words of the file: `certFile` for CertFile.
func inKeys(comment string, keys map[string]string) string {
	return escape(goName.ReplaceAllStringFunc(comment, func(w string) string {
		if key, found := keys[w]; found {
			return "`" + key + "`"
		}
		return w
	}))
}

func escape(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func oneLine(comment string) string { return strings.Join(strings.Fields(comment), " ") }
