package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// formatOptions are the flags that say how a certificate is written down.
type formatOptions struct {
	list, passwordFile, database, role string
}

// standardFormats are what libpq and pgjdbc take.
const standardFormats = "pem,pk8"

func formatFlags(cmd *cobra.Command, o *formatOptions) {
	f := cmd.Flags()
	f.StringVar(&o.list, "format", standardFormats, "how it is written down, by commas: pem, pk8, p12, env, k8s, pg_service")
	passwordFlag(cmd, &o.passwordFile)
	f.StringVar(&o.database, "database", "", "for env and pg_service: the `database` (default: the one that is granted)")
	f.StringVar(&o.role, "role", "", "for env and pg_service: the `role` (default: the one that is granted)")
}

func passwordFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "p12-password-file", "",
		"for p12: read the file's password from this `FILE` (default: one that is made and written beside it)")
}

// connectionFile is a format that says where to connect, and by which PEM files.
type connectionFile struct {
	format, name string
	text         func(target) string
}

var connectionFiles = []connectionFile{
	{"env", "client.env", target.env},
	{"pg_service", "pg_service.conf", target.service},
}

// formats are what a certificate is written down as.
type formats struct {
	keys        []issue.Format
	connections []connectionFile
}

// parse reads --format.
func (o formatOptions) parse(csr bool) (f formats, err error) {
	for word := range strings.SplitSeq(o.list, ",") {
		i := slices.IndexFunc(connectionFiles, func(c connectionFile) bool { return c.format == word })
		switch {
		case i >= 0:
			f.connections = append(f.connections, connectionFiles[i])
		case slices.Contains(issue.Formats, issue.Format(word)):
			f.keys = append(f.keys, issue.Format(word))
		default:
			return f, &fault.Usage{Err: fmt.Errorf("--format %q is not one of pem, pk8, p12, env, k8s, pg_service", word)}
		}
	}
	switch {
	case csr && o.list != standardFormats && o.list != string(issue.PEM):
		err = errors.New("with --csr the key is elsewhere: only the certificate is written, as PEM")
	case len(f.connections) > 0 && !slices.Contains(f.keys, issue.PEM):
		err = fmt.Errorf("--format %s names the PEM files: add pem", f.connections[0].format)
	case o.passwordFile != "" && !slices.Contains(f.keys, issue.PKCS12):
		err = errors.New("--p12-password-file is for --format p12")
	case (o.database != "" || o.role != "") && len(f.connections) == 0:
		err = errors.New("--database and --role are for --format env and pg_service")
	}
	if err != nil {
		return f, &fault.Usage{Err: err}
	}
	return f, nil
}

// sealed sets the password of the PKCS #12 file: what a file says, or a new one that is kept beside it.
func (o formatOptions) sealed(ctx context.Context, a *app, r *issue.Request) (err error) {
	if !slices.Contains(r.Formats, issue.PKCS12) {
		return nil
	}
	if o.passwordFile == "" {
		r.Password, r.KeepPassword = issue.NewPassword(), true
		return nil
	}
	r.Password, err = a.passphrase(ctx, o.passwordFile, issue.PKCS12File, true)
	return err
}

// place finds out where the identity connects, if that is to be written down.
func (f formats) place(ctx context.Context, a *app, name string, o issueOptions) (t target, err error) {
	if len(f.connections) == 0 {
		return t, nil
	}
	return a.place(ctx, name, connectOptions{environment: o.environment, database: o.format.database, role: o.format.role})
}

// writeConnections writes down where to connect, beside the files that are needed for it.
func (f formats) writeConnections(t target, dir, serverCA string) error {
	if len(f.connections) == 0 {
		return nil
	}
	t, err := t.withFiles(dir, "", serverCA)
	for _, c := range f.connections {
		if err == nil {
			err = file.Replace(filepath.Join(dir, c.name), []byte(c.text(t)), issue.Public)
		}
	}
	return err
}
