// Command reference writes docs/reference.md: every key of armord.yaml and every field of the
// manifests, from the structs that read them and the comments of their fields.
//
//	reference FOLDER          writes FOLDER/docs/reference.md
//	reference -check FOLDER   exits with 1 when it would be another
//
// Invariant: a field without a comment, or without a word on its default, is an error.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// page is a chapter of the reference: a struct and what it is the shape of.
type page struct {
	title, file, root, intro string
}

var pages = []page{
	{"armord.yaml", "cmd/armord/config/config.go", "Config", "A node's own configuration: what is this node's alone. Paths may be relative " +
		"to the file's folder. [operate.md](operate.md) has an example. Durations are written with their unit: `5s`."},
	{"Metadata of every object", "rpc/manifest/document.go", "metadata", "Objects are applied with `armorctl apply`. Each is a YAML document with " +
		"`apiVersion: armor/v1`, `kind`, `metadata` and `spec`. Durations are text with a unit: `5s`."},
	{"Environment", "rpc/manifest/document.go", "environmentSpec", ""},
	{"Database", "rpc/manifest/document.go", "databaseSpec", ""},
	{"Pool", "rpc/manifest/document.go", "poolSpec", ""},
	{"Identity", "rpc/manifest/document.go", "identitySpec", ""},
}

func main() {
	check := flag.Bool("check", false, "write nothing, and see that the file is as it would be written")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: reference [-check] FOLDER")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *check); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(folder string, check bool) error {
	text, err := write(folder)
	if err != nil {
		return err
	}
	path := filepath.Join(folder, "docs", "reference.md")
	if !check {
		return os.WriteFile(path, text, 0o644)
	}
	if had, err := os.ReadFile(path); err != nil || !bytes.Equal(had, text) {
		return fmt.Errorf("%s is not what the code says: make reference", path)
	}
	return nil
}

func write(folder string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Reference\n\nEvery key of a node's configuration and every field of what `armorctl apply` takes. Written by `make reference` from the code.\n")
	for _, p := range pages {
		shapes, err := readShapes(filepath.Join(folder, p.file))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\n## %s\n", p.title)
		if intro := p.intro; intro != "" {
			fmt.Fprintf(&b, "\n%s\n", intro)
		} else {
			fmt.Fprintf(&b, "\n%s Fields of `spec`:\n", shapes.about(p.root))
		}
		rows, err := shapes.rows(p.root, "")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.file, err)
		}
		b.WriteString("\n| key | is | what it says |\n|---|---|---|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r.keys, r.kind, r.text)
		}
	}
	return b.Bytes(), nil
}
