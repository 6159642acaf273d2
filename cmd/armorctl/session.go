package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
)

func (a *app) sessionCommand() *cobra.Command {
	return group("session", "live client sessions", a.sessionListCommand())
}

// sessionView is a live session as -o json shows it.
type sessionView struct {
	Node        armor.NodeID `json:"node"`
	Session     string       `json:"session"` // unique on its node
	Identity    string       `json:"identity"`
	Environment string       `json:"environment"`
	Serial      string       `json:"serial"`
	Issuer      string       `json:"issuer"`
	Source      string       `json:"source"`
	Database    string       `json:"database"`
	Role        string       `json:"role"`
	Pool        string       `json:"pool"`
	State       string       `json:"state"`
	Since       string       `json:"since"`
}

func viewOfSession(s armor.SessionInfo) sessionView {
	v := sessionView{
		Node: s.Node, Session: fmt.Sprint(s.ID), Identity: string(s.Certificate.Identity), Environment: s.Environment,
		Serial: s.Certificate.ID.Serial, Issuer: s.Certificate.ID.Issuer.String(),
		Database: s.Database, Role: s.Role, Pool: s.Pool, State: s.State, Since: stamp(s.Since),
	}
	if s.Source.IsValid() {
		v.Source = s.Source.String()
	}
	return v
}

func sessionTable(sessions []armor.SessionInfo, now time.Time) ([]sessionView, table) {
	views := []sessionView{}
	t := table{
		columns: []string{"node", "session", "identity", "database", "role", "from", "state", "since"},
		wide:    []string{"pool", "environment", "serial"}, empty: "no sessions",
	}
	for _, s := range sessions {
		v := viewOfSession(s)
		views = append(views, v)
		t.row(string(v.Node), v.Session, v.Identity, v.Database, v.Role, v.Source, v.State, relative(s.Since, now), v.Pool, v.Environment,
			v.Serial)
	}
	return views, t
}

// surveyView is the answer of session list.
type surveyView struct {
	Sessions []sessionView `json:"sessions"`
	Silent   []silentView  `json:"silent"` // nodes whose sessions are missing
}

type silentView struct {
	Node armor.NodeID `json:"node"`
	Why  string       `json:"why"`
}

func (a *app) sessionListCommand() *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use: "list", Short: "list the live client sessions of all nodes",
		Example: "  armorctl session list --identity 'spiffe://production.acme.internal/app/*'", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep := func(armor.SessionInfo) bool { return true }
			if identity != "" {
				pattern, err := armor.ParsePattern(identity)
				if err != nil {
					return err
				}
				keep = func(s armor.SessionInfo) bool { return pattern.Matches(s.Certificate.Identity) }
			}
			client, ctx, done, err := a.reach(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			survey, err := client.Sessions(ctx)
			if err != nil {
				return err
			}
			views, t := sessionTable(kept(survey.Sessions, keep), a.now())
			v := surveyView{Sessions: views, Silent: silentIn(survey)}
			a.reportSilent(v.Silent)
			return a.show(answer{data: v, tables: []table{t}})
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "", "only those of an identity, or below a `pattern` ending in /*")
	return cmd
}

func kept[T any](all []T, keep func(T) bool) []T {
	var some []T
	for _, v := range all {
		if keep(v) {
			some = append(some, v)
		}
	}
	return some
}
