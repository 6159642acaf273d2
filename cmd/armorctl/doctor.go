package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

func (a *app) doctorCommand() *cobra.Command {
	var until string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "list what is wrong now, and what will stop, and when, if nobody acts",
		Long: `Asks the cluster and every node: certificates of nodes, operators and clients, the peer CA and
the trust anchors, the nodes' server certificates and those among their secrets, which only
they know; and what is wrong now: nodes that do not answer, pools that a node cannot serve,
clocks, places of pools that are withheld. Each line says what stops and what mends it.

Of a client only the last good certificate counts: one that has a successor is no news. What a
node that does not answer would have told is missing, and is listed as unasked.

Without --until it names what is due: what ends within 30 days and has less than a third of its
life left. With --until it names all that ends before then. Exit code 3 when something is wrong
now or could not be asked, 11 when something stops before then, 0 when nothing does.`,
		Example: `  armorctl doctor
  armorctl doctor --until 400d -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ahead, rule := expirySoon, true
			if cmd.Flags().Changed("until") {
				var err error
				if ahead, err = parsePositive("--until", until); err != nil {
					return err
				}
				rule = false
			}
			return a.doctor(cmd.Context(), horizon{now: a.now(), until: a.now().Add(ahead), onlyDue: rule})
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "name all that ends within this `duration`, such as 400d (default: what is due)")
	return cmd
}

// horizon is how far the doctor looks.
type horizon struct {
	now, until time.Time
	onlyDue    bool // by the share of its life that is left, as status does
}

// How bad a finding is.
const (
	wrongNow = "wrong"   // it has stopped, or does not do what it should
	unasked  = "unasked" // it could not be found out
	dueSoon  = "soon"    // it is time to act
	dueLater = "later"   // it ends before --until
)

// severityOf judges a certificate by when it ends; empty: it is no news.
func (h horizon) severityOf(begins, ends time.Time) string {
	due := endsSoon(armor.Certificate{NotBefore: begins, NotAfter: ends}, h.now)
	switch {
	case h.now.After(ends):
		return wrongNow
	case !ends.Before(h.until):
		return ""
	case due:
		return dueSoon
	case h.onlyDue:
		return ""
	}
	return dueLater
}

// finding is one thing that is wrong, or stops if nobody acts.
type finding struct {
	Severity    string         `json:"severity"` // wrong, unasked, soon, later
	Ends        string         `json:"ends,omitempty"`
	Kind        string         `json:"kind"`
	Name        string         `json:"name"` // whose it is, or which
	Environment string         `json:"environment,omitempty"`
	Owner       string         `json:"owner,omitempty"` // the team that answers for a client
	Nodes       []armor.NodeID `json:"nodes,omitempty"` // on which
	Stops       string         `json:"stops"`
	Mend        string         `json:"mend"`

	ends time.Time
}

// ending is a finding about something that ends; ok says that it is news.
func (h horizon) ending(f finding, begins, ends time.Time) (finding, bool) {
	f.Severity, f.ends, f.Ends = h.severityOf(begins, ends), ends, stamp(ends)
	return f, f.Severity != ""
}

// doctorView is the answer of doctor.
type doctorView struct {
	Until    string    `json:"until"`
	Wrong    int       `json:"wrong"`   // findings that are wrong now
	Unasked  int       `json:"unasked"` // of what could not be found out
	Ending   int       `json:"ending"`  // of what ends before until
	Findings []finding `json:"findings"`
	// MoreClients: there are more certificates of clients than were looked through.
	MoreClients bool `json:"moreClients,omitempty"`
}

func (a *app) doctor(ctx context.Context, h horizon) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	v, err := a.examine(ctx, client, h)
	if err != nil {
		return err
	}
	if err := a.show(answer{data: v, tables: []table{a.doctorTable(v, h)}}); err != nil {
		return err
	}
	return v.verdict()
}

// examine asks the cluster's state, the nodes, and what of the inventory ends in time.
func (a *app) examine(ctx context.Context, client *rpc.Client, h horizon) (doctorView, error) {
	v := doctorView{Until: stamp(h.until), Findings: []finding{}}
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Members, armor.Operators, armor.Anchors, armor.Environments, armor.Pools, armor.Revoked)
	if err != nil {
		return v, err
	}
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return v, err
	}
	clients, err := lookForLastGood(ctx, client, armor.CertificatePage{Until: h.until}, h.now)
	if err != nil {
		return v, err
	}
	v.MoreClients = clients.more
	v.Findings = append(v.Findings, slices.Concat(h.ownCertificates(state), h.anchors(state), h.clients(clients.certs),
		h.heldByNodes(nodes), h.wrongNow(state, nodes))...)
	slices.SortStableFunc(v.Findings, func(x, y finding) int {
		return cmp.Or(cmp.Compare(rankOf(x), rankOf(y)), x.ends.Compare(y.ends), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	for _, f := range v.Findings {
		switch f.Severity {
		case wrongNow:
			v.Wrong++
		case unasked:
			v.Unasked++
		default:
			v.Ending++
		}
	}
	return v, nil
}

// rankOf puts what is wrong first, then what is not known, then what ends, by date.
func rankOf(f finding) int {
	return min(slices.Index([]string{wrongNow, unasked, dueSoon, dueLater}, f.Severity), 2)
}

// verdict is the exit code: what is wrong now comes before what will be.
func (v doctorView) verdict() error {
	switch {
	case v.Wrong+v.Unasked > 0:
		return &verdict{exitProblems, fmt.Sprintf("%d wrong now, %d could not be asked, %d will stop before %s", v.Wrong, v.Unasked, v.Ending, v.Until)}
	case v.Ending > 0:
		return &verdict{exitWillStop, fmt.Sprintf("%d will stop before %s", v.Ending, v.Until)}
	}
	return nil
}

// listedClients is how many clients people are shown.
const listedClients = 100

func (a *app) doctorTable(v doctorView, h horizon) table {
	t := table{columns: []string{"severity", "when", "what", "whose", "what stops", "what mends it"}, wide: []string{"ends", "owner"},
		empty: "nothing is wrong, and nothing ends before " + v.Until}
	if h.onlyDue {
		t.empty = "nothing is wrong, and nothing is due within 30 days"
	}
	clients := 0
	for _, f := range v.Findings {
		if f.Kind == kindClient {
			if clients++; clients > listedClients {
				continue
			}
		}
		when := "now"
		if !f.ends.IsZero() {
			when = relative(f.ends, h.now)
		}
		t.row(f.Severity, when, f.Kind, f.whose(), f.Stops, f.Mend, f.Ends, f.Owner)
	}
	if clients > listedClients {
		a.say("%d more clients: -o json", clients-listedClients)
	}
	if v.MoreClients {
		a.say("more clients' certificates end before %s than were looked through: armorctl cert list --expiring goes on", v.Until)
	}
	return t
}

// whose names a finding's object and where it is.
func (f finding) whose() string {
	name := f.Name
	if f.Environment != "" {
		name = f.Environment + ": " + name
	}
	switch {
	case len(f.Nodes) == 0:
		return name
	case name == "":
		return nodeNames(f.Nodes)
	}
	return name + " on " + nodeNames(f.Nodes)
}

func nodeNames(nodes []armor.NodeID) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	return strings.Join(names, ", ")
}
