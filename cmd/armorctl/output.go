package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// format is how the answer is shown on stdout.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide" // a table with every column
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

func parseFormat(s string) (format, error) {
	switch f := format(s); f {
	case "":
		return formatTable, nil
	case formatTable, formatWide, formatJSON, formatYAML:
		return f, nil
	}
	return "", &fault.Usage{Err: fmt.Errorf("output %q is not one of table, wide, json, yaml", s)}
}

// answer is what a command shows: the data for programs, in the field names that
// docs/armorctl.md promises, and the same for people.
type answer struct {
	data   any
	tables []table
}

// table is a part of an answer for people.
type table struct {
	title   string // above it; empty: none
	columns []string
	wide    []string // further columns, shown by -o wide only
	rows    [][]string
	empty   string // said on stderr when there are no rows
}

// row appends a row: as many cells as columns and wide columns together.
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// facts is a table of names and values without a heading.
func facts(title string, pairs ...[2]string) table {
	t := table{title: title}
	for _, p := range pairs {
		if p[1] != "" {
			t.row(p[0]+":", p[1])
		}
	}
	return t
}

// show writes the answer.
func (a *app) show(ans answer) error {
	switch a.globals.output {
	case formatJSON:
		return a.showJSON(ans.data)
	case formatYAML:
		return a.showYAML(ans.data)
	}
	for i, t := range ans.tables {
		if len(t.rows) == 0 {
			if t.empty != "" {
				a.say("%s", t.empty)
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := t.write(a.out, a.globals.output == formatWide); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showJSON(data any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(data); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// showYAML goes by way of JSON, so that both have the same fields.
func (a *app) showYAML(data any) error {
	text, err := json.Marshal(data)
	if err == nil {
		text, err = yaml.JSONToYAML(text)
	}
	if err == nil {
		_, err = a.out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// showDocuments writes YAML documents as they are, or as a JSON list.
func (a *app) showDocuments(text []byte) error {
	if a.globals.output != formatJSON {
		return a.showText(string(text))
	}
	all := []any{}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document map[string]any
		err := d.Decode(&document)
		if errors.Is(err, io.EOF) {
			return a.showJSON(all)
		}
		if err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
		all = append(all, document)
	}
}

// showText writes an answer that is a text whatever -o says: a token, a script.
func (a *app) showText(text string) error {
	_, err := io.WriteString(a.out, text)
	return err
}

func (t table) write(w io.Writer, wide bool) error {
	columns := t.columns
	if wide {
		columns = append(columns[:len(columns):len(columns)], t.wide...)
	}
	if t.title != "" {
		fmt.Fprintln(w, t.title)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(columns) > 0 {
		fmt.Fprintln(tw, strings.ToUpper(strings.Join(columns, "\t")))
	}
	for _, cells := range t.rows {
		if len(columns) > 0 {
			cells = cells[:len(columns)]
		}
		fmt.Fprintln(tw, strings.Join(printable(cells), "\t"))
	}
	return tw.Flush()
}

// printable makes cells safe for a terminal: what others wrote may hold control
// characters, and an empty cell would shift the eye.
func printable(cells []string) []string {
	safe := make([]string, len(cells))
	for i, c := range cells {
		safe[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				return ' '
			}
			return r
		}, c)
		if safe[i] == "" {
			safe[i] = "-"
		}
	}
	return safe
}
