package main

import (
	"fmt"
	"net/url"
	"strings"
)

// variables is the connection in libpq's environment variables.
func (t target) variables() [][2]string {
	hosts, ports := t.hostsAndPorts()
	return [][2]string{
		{"PGHOST", hosts}, {"PGPORT", ports}, {"PGDATABASE", t.Database}, {"PGUSER", t.Role},
		{"PGSSLMODE", "verify-full"}, {"PGSSLCERT", t.Cert}, {"PGSSLKEY", t.Key}, {"PGSSLROOTCERT", t.ServerCA},
	}
}

// connectionView is a connection as -o json shows it.
type connectionView struct {
	Hosts     []string          `json:"hosts"`
	Database  string            `json:"database"`
	Role      string            `json:"role"`
	Variables map[string]string `json:"variables"`
	URL       string            `json:"url"`
	JDBC      string            `json:"jdbc"`
}

func (a *app) showConnection(t target, how string) error {
	if a.globals.output == formatJSON || a.globals.output == formatYAML {
		v := connectionView{Hosts: t.Hosts, Database: t.Database, Role: t.Role, Variables: map[string]string{}, URL: t.url(), JDBC: t.jdbc()}
		for _, pair := range t.variables() {
			v.Variables[pair[0]] = pair[1]
		}
		return a.show(answer{data: v})
	}
	return a.showText(map[string]func() string{
		"env": t.env, "url": func() string { return t.url() + "\n" }, "jdbc": func() string { return t.jdbc() + "\n" },
		"libpq-service": t.service,
	}[how]())
}

// env is for a shell.
func (t target) env() string {
	var b strings.Builder
	for _, v := range t.variables() {
		fmt.Fprintf(&b, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return b.String()
}

// url is libpq's connection URI (PostgreSQL, "Connection URIs").
func (t target) url() string {
	u := url.URL{Scheme: "postgresql", User: url.User(t.Role), Host: strings.Join(t.Hosts, ","), Path: "/" + t.Database}
	q := url.Values{"sslmode": {"verify-full"}, "sslcert": {t.Cert}, "sslkey": {t.Key}, "sslrootcert": {t.ServerCA}}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// jdbc is pgjdbc's URL; it takes the key as PKCS #8 DER.
func (t target) jdbc() string {
	q := url.Values{"user": {t.Role}, "sslmode": {"verify-full"}, "sslcert": {t.Cert}, "sslkey": {t.PKCS8}, "sslrootcert": {t.ServerCA}}
	return "jdbc:postgresql://" + strings.Join(t.Hosts, ",") + "/" + url.PathEscape(t.Database) + "?" +
		strings.ReplaceAll(q.Encode(), "+", "%20")
}

// service is a section of pg_service.conf (PostgreSQL, "The Connection Service File").
func (t target) service() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n", t.Database)
	hosts, ports := t.hostsAndPorts()
	for _, v := range [][2]string{
		{"host", hosts}, {"port", ports}, {"dbname", t.Database}, {"user", t.Role},
		{"sslmode", "verify-full"}, {"sslcert", t.Cert}, {"sslkey", t.Key}, {"sslrootcert", t.ServerCA},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v[0], v[1])
	}
	return b.String()
}
