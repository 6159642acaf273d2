package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// sourceView is the answer of explain about an address.
type sourceView struct {
	Source string `json:"source"`
	// Refusals are the latest first, over all nodes: those of clients that had proved who they
	// are, and those of whoever had not.
	Refusals []refusalView `json:"refusals"`
	Silent   []silentView  `json:"silent"` // nodes that did not answer
}

// refusalView is one refusal. Of one that is not proven all but address, time and error is the
// word of whoever connected.
type refusalView struct {
	At       string       `json:"at"`
	Node     armor.NodeID `json:"node"`
	Proven   bool         `json:"proven"`
	From     string       `json:"from"`
	Message  string       `json:"message"`
	ID       string       `json:"id,omitempty"` // of a proven one, for explain ID
	Reason   armor.Reason `json:"reason,omitempty"`
	Identity string       `json:"identity,omitempty"`
	Database string       `json:"database,omitempty"`
	Role     string       `json:"role,omitempty"`
	Serial   string       `json:"serial,omitempty"`
	Times    int          `json:"times"`
	// What is claimed, and not proven.
	Subject      string `json:"subject,omitempty"`
	Issuer       string `json:"issuer,omitempty"`
	AuthorityKey string `json:"authorityKey,omitempty"`
	Sent         int    `json:"certificatesSent,omitempty"`
	Cure         string `json:"cure,omitempty"`
	Revision     uint64 `json:"revision"` // of the state that decided

	at time.Time
}

func (a *app) explainSource(ctx context.Context, word string) error {
	source, err := netip.ParseAddr(word)
	if err != nil {
		return &fault.Usage{Err: fmt.Errorf("--source %q is not an IP address", word)}
	}
	source = source.Unmap()
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	nodes, err := client.Refusals(ctx, source, armor.MaxRefusals)
	if err != nil {
		return err
	}
	v := viewOfSource(source, nodes)
	a.reportSilent(v.Silent)
	return a.show(answer{data: v, tables: v.tables(a.now())})
}

func viewOfSource(source netip.Addr, nodes []armor.SourceRefusals) sourceView {
	v := sourceView{Source: source.String(), Refusals: []refusalView{}, Silent: []silentView{}}
	for _, n := range nodes {
		if n.Unreachable != "" {
			v.Silent = append(v.Silent, silentView{n.Node, n.Unreachable})
		}
		for _, d := range n.Denials {
			f := viewOfFacts(d.Facts)
			v.Refusals = append(v.Refusals, refusalView{
				at: d.At, At: stamp(d.At), Node: n.Node, Proven: true, From: f.Source, Message: d.Denial.Message, ID: d.Denial.ID,
				Reason: d.Denial.Reason, Identity: f.Identity, Database: f.Database, Role: f.Role, Serial: f.Serial, Times: 1, Revision: d.Revision,
			})
		}
		for _, u := range n.Unproven {
			v.Refusals = append(v.Refusals, refusalView{
				at: u.At, At: stamp(u.At), Node: n.Node, From: u.Source.String(), Message: u.Error, Serial: u.Serial, Times: u.Times,
				Subject: u.Subject, Issuer: u.Issuer, AuthorityKey: u.Authority, Sent: u.Sent, Cure: u.Cure, Revision: u.Revision,
			})
		}
	}
	slices.SortStableFunc(v.Refusals, func(x, y refusalView) int { return cmp.Or(y.at.Compare(x.at), cmp.Compare(x.Node, y.Node)) })
	return v
}

// tables has what is proven and what is not apart, so that nobody takes the one for the other.
func (v sourceView) tables(now time.Time) []table {
	proven := table{title: "refused after the client had proved who it is; armorctl explain ID says more",
		columns: []string{"when", "node", "id", "identity", "database", "role", "why"}, wide: []string{"serial", "from"}}
	claimed := table{title: "failed in the handshake; all names are the word of whoever connected, unproven",
		columns: []string{"when", "node", "times", "claims to be", "claims as issuer", "sent", "what to do, or what failed"},
		wide:    []string{"serial", "authority key", "from", "error"}}
	for _, r := range v.Refusals {
		if when := relative(r.at, now); r.Proven {
			proven.row(when, string(r.Node), r.ID, r.Identity, r.Database, r.Role, r.Message, shortSerial(r.Serial), r.From)
		} else {
			claimed.row(when, string(r.Node), fmt.Sprint(r.Times), r.Subject, r.Issuer, fmt.Sprint(r.Sent), cmp.Or(r.Cure, r.Message),
				r.Serial, r.AuthorityKey, r.From, r.Message)
		}
	}
	if len(v.Refusals) == 0 {
		claimed.empty = "no node remembers a refusal of " + v.Source + "; nodes forget them when they restart"
	}
	if len(proven.rows) == 0 {
		return []table{claimed}
	}
	return []table{proven, claimed}
}
