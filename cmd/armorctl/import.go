package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/cmd/armorctl/pgbouncer"
	"github.com/armordb/armordb/rpc/manifest"
)

func (a *app) importCommand() *cobra.Command {
	return group("import", "take the configuration of another pooler over", a.importPgBouncerCommand())
}

// importOptions are the flags of import pgbouncer.
type importOptions struct {
	pgbouncer.Options
	userlist, hba string
	out, secrets  string
	acceptLoss    bool
}

func (a *app) importPgBouncerCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "pgbouncer FILE.ini", Short: "translate a PgBouncer's configuration, and say what became of every line",
		Long: `Reads a PgBouncer's configuration file, with what it includes, and writes Databases,
Pools and Identities for armorctl apply: to stdout, or to --out. It asks no cluster.

The report on stderr says what was mapped to what, what was left to defaults that
differ, and what cannot be translated and what to do instead. If anything cannot,
nothing is written and the exit code is 3, unless --accept-loss is given. -o json
shows the report, with the manifests in it unless they go to --out.`,
		Example: "  armorctl import pgbouncer /etc/pgbouncer/pgbouncer.ini --userlist /etc/pgbouncer/userlist.txt " +
			"--environment production --trust-domain production.acme.internal --processes 3 --out cluster.yaml --secrets ./secrets",
		Args: exactly("FILE.ini"),
		RunE: func(_ *cobra.Command, args []string) error { return a.importPgBouncer(args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.userlist, "userlist", "", "the auth_file: `FILE` of users and their passwords or verifiers")
	f.StringVar(&o.hba, "hba", "", "the auth_hba_file: `FILE` that says who may come from where")
	f.StringVar(&o.Environment, "environment", "", "the `environment` that the objects are for")
	f.StringVar(&o.TrustDomain, "trust-domain", "", "trust `domain` of the environment's identities: armorctl ca list shows it")
	f.StringVar(&o.Owner, "owner", "", "who answers for the Identities")
	f.IntVar(&o.Processes, "processes", 1, "how many PgBouncers have this configuration: budgets are for all of them")
	f.StringVar(&o.out, "out", "", "write the manifests to a new `FILE`")
	f.StringVar(&o.secrets, "secrets", "",
		"write the nodes' secrets to a new folder `DIR`: its files belong into dataDir/secrets of every node")
	f.BoolVar(&o.acceptLoss, "accept-loss", false, "write what can be translated, though some cannot")
	return cmd
}

// importView is the answer of import pgbouncer.
type importView struct {
	pgbouncer.Report
	Manifests string       `json:"manifests,omitempty"` // YAML, when it was not written to a file
	Secrets   []secretView `json:"secrets"`
}

// secretView is a file that every node needs.
type secretView struct {
	File    string `json:"file"`    // in dataDir/secrets
	Holds   string `json:"holds"`   // what, for people
	Written string `json:"written"` // where it was written, or empty
}

func (a *app) importPgBouncer(path string, o importOptions) error {
	if o.Environment == "" || o.TrustDomain == "" {
		return &fault.Usage{Err: errors.New("say --environment and --trust-domain: the objects are for one, and the identities are of the other")}
	}
	source, err := readPgBouncer(path, o)
	if err != nil {
		return err
	}
	r, err := pgbouncer.Translate(source, o.Options)
	if err != nil {
		return err
	}
	text, err := marshalChecked(r.State)
	if err != nil {
		return err
	}
	files, err := secretFiles(r)
	if err != nil {
		return err
	}
	if len(r.Report.NotTranslatable) > 0 && !o.acceptLoss {
		return a.refuseImport(r.Report)
	}
	view := importView{Report: r.Report, Secrets: []secretView{}}
	for _, f := range files {
		view.Secrets = append(view.Secrets, f.secretView)
	}
	if err := writeImport(o, text, files, view.Secrets); err != nil {
		return err
	}
	return a.showImport(view, text, o.out)
}

// refuseImport shows the report and nothing else.
func (a *app) refuseImport(r pgbouncer.Report) error {
	view := importView{Report: r, Secrets: []secretView{}}
	if a.structured() {
		if err := a.show(answer{data: view}); err != nil {
			return err
		}
	} else {
		a.tellImport(view)
	}
	return fault.Hinted(&verdict{exitProblems,
		fmt.Sprintf("not everything can be translated (%d in the report); nothing was written", len(r.NotTranslatable))},
		"do what the report says instead, then take these lines out of a copy of the file; or --accept-loss")
}

func (a *app) showImport(view importView, text []byte, out string) error {
	if a.structured() {
		if out == "" {
			view.Manifests = string(text)
		}
		return a.show(answer{data: view})
	}
	a.tellImport(view)
	if out != "" {
		return nil
	}
	return a.showText(string(text))
}

// structured reports whether stdout is for a program that wants the report.
func (a *app) structured() bool {
	return a.globals.output == formatJSON || a.globals.output == formatYAML
}

// tellImport is the report for people, on stderr: stdout has the manifests.
func (a *app) tellImport(view importView) {
	if a.globals.quiet {
		return
	}
	for _, t := range importTables(view) {
		if len(t.rows) > 0 {
			fmt.Fprintln(a.errOut)
			_ = t.write(a.errOut, false) // the error would go to where this failed
		}
	}
}

func importTables(view importView) []table {
	mapped := table{title: "Mapped", columns: []string{"where", "key", "value", "to", "note"}}
	for _, m := range view.Mapped {
		mapped.row(m.Place, m.Key, m.Value, m.To, m.Note)
	}
	budgets := table{title: "Budgets, of all nodes together", columns: []string{"pool", "budget", "how"}}
	for _, b := range view.Budgets {
		budgets.row(b.Pool, fmt.Sprint(b.Budget), b.How)
	}
	defaulted := table{title: "Defaulted: not written, and not the same", columns: []string{"key", "with pgbouncer", "now"}}
	for _, d := range view.Defaulted {
		defaulted.row(d.Key, d.PgBouncer, d.Armor)
	}
	lost := table{title: "Not translatable", columns: []string{"where", "key", "why", "instead"}}
	for _, l := range view.NotTranslatable {
		lost.row(l.Place, l.Key, l.Why, l.Instead)
	}
	secrets := table{title: "Secrets: files that every node needs in dataDir/secrets, mode 0600",
		columns: []string{"file", "holds", "written to"}}
	for _, s := range view.Secrets {
		secrets.row(s.File, s.Holds, s.Written)
	}
	return []table{mapped, budgets, defaulted, secrets, lost}
}

// readPgBouncer reads the files that were named. Included ones are looked for in the
// folder of the configuration file.
func readPgBouncer(path string, o importOptions) (s pgbouncer.Source, err error) {
	if s.Config, err = readBounded(path); err != nil {
		return s, err
	}
	for _, f := range []struct {
		name string
		to   **pgbouncer.File
	}{{o.userlist, &s.Userlist}, {o.hba, &s.HBA}} {
		if f.name == "" {
			continue
		}
		file, err := readBounded(f.name)
		if err != nil {
			return s, err
		}
		*f.to = &file
	}
	s.Include = func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		file, err := readBounded(name)
		return file.Text, err
	}
	return s, nil
}

// readBounded reads one byte more than a file may have, so that the reader refuses it.
func readBounded(path string) (pgbouncer.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return pgbouncer.File{}, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	}
	if err != nil {
		return pgbouncer.File{}, fmt.Errorf("read a file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, pgbouncer.MaxFile+1))
	if err != nil {
		return pgbouncer.File{}, fmt.Errorf("read a file: %w", err)
	}
	return pgbouncer.File{Name: path, Text: text}, nil
}

// marshalChecked writes manifests that apply reads: what it would refuse is told now.
func marshalChecked(s *armor.State) ([]byte, error) {
	text, err := manifest.Marshal(s)
	if err != nil {
		return nil, err
	}
	if _, err := manifest.Parse("the manifests", text); err != nil {
		return nil, fmt.Errorf("apply would not take this: %w", err)
	}
	return text, nil
}

// secretText is a file to write.
type secretText struct {
	secretView
	text []byte
	mode os.FileMode
}

// secretFiles are the files that nodes need, in the forms of armord.
func secretFiles(r *pgbouncer.Result) (files []secretText, err error) {
	for _, s := range r.Secrets {
		text, err := yaml.Marshal(struct {
			Passwords []string `yaml:"passwords"`
			Hosts     []string `yaml:"hosts"`
		}{[]string{s.Password}, s.Hosts})
		if err != nil {
			return nil, fmt.Errorf("write secret %s: %w", s.Name, err)
		}
		files = append(files, secretText{secretView{File: string(s.Name) + ".yaml", Holds: "a password, and where it may be sent"}, text,
			issue.Secret})
	}
	if len(r.Verifiers) > 0 {
		var text bytes.Buffer
		for _, v := range r.Verifiers {
			fmt.Fprintf(&text, "%s %s\n", doubled(v.Role), doubled(v.Text))
		}
		files = append(files, secretText{secretView{File: string(pgbouncer.VerifiersName) + ".verifiers",
			Holds: "what clients' passwords are checked by"}, text.Bytes(), issue.Secret})
	}
	if r.ServerCA != "" {
		ca, err := issue.ReadFile(r.ServerCA)
		if err != nil {
			return nil, fault.Hinted(err, "server_tls_ca_file names it: import where PgBouncer runs, or copy it there")
		}
		files = append(files, secretText{secretView{File: string(pgbouncer.ServerCAName) + ".pem",
			Holds: "the CA of PostgreSQL's certificates"}, ca, issue.Public})
	}
	return files, nil
}

// doubled is a word of an auth_file.
func doubled(s string) string {
	return `"` + string(bytes.ReplaceAll([]byte(s), []byte(`"`), []byte(`""`))) + `"`
}

// writeImport writes all that is to be written, or leaves nothing behind.
func writeImport(o importOptions, manifests []byte, files []secretText, views []secretView) (err error) {
	if o.out != "" && file.Exist(o.out) {
		return fmt.Errorf("%w: %s is there already", armor.ErrConflict, o.out)
	}
	if o.secrets != "" {
		if err := os.Mkdir(o.secrets, issue.Folder); err != nil {
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%w: %s is there already", armor.ErrConflict, o.secrets)
			}
			return fmt.Errorf("make a folder: %w", err)
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, os.RemoveAll(o.secrets)) // it is ours: Mkdir has made it
			}
		}()
		for i, f := range files {
			views[i].Written = filepath.Join(o.secrets, f.File)
			if err := file.Replace(views[i].Written, f.text, f.mode); err != nil {
				return err
			}
		}
	}
	if o.out == "" {
		return nil
	}
	return file.Replace(o.out, manifests, issue.Public)
}
