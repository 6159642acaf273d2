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
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) certCommand() *cobra.Command {
	return group("cert", "client certificates: issue them, find them, look into them",
		a.certIssueCommand(), a.certRenewCommand(), a.certRegisterCommand(), a.certListCommand(), a.certShowCommand(), a.certInspectCommand(),
		a.certPruneCommand())
}

// certView is a registered certificate as -o json shows it.
type certView struct {
	Identity    string `json:"identity"`
	Environment string `json:"environment"`
	Owner       string `json:"owner"`
	Contact     string `json:"contact,omitempty"`
	Issuer      string `json:"issuer"` // SPKI of the CA
	Serial      string `json:"serial"`
	Fingerprint string `json:"fingerprint"`
	Key         string `json:"key"`
	NotBefore   string `json:"notBefore"`
	NotAfter    string `json:"notAfter"`
	IssuedAt    string `json:"issuedAt,omitempty"`
	IssuedBy    string `json:"issuedBy,omitempty"`
	ReplacedBy  string `json:"replacedBy,omitempty"`
	State       string `json:"state"`
	// RevokedBy is the selector that takes it away.
	RevokedBy string `json:"revokedBy,omitempty"`
}

func viewOfCert(s *armor.State, r armor.CertRecord, now time.Time) certView {
	c := r.Certificate
	v := certView{
		Identity: string(c.Identity), Environment: r.Environment, Owner: r.Owner, Contact: r.Contact,
		Issuer: c.ID.Issuer.String(), Serial: c.ID.Serial, Fingerprint: c.Fingerprint.String(), Key: c.Key.String(),
		NotBefore: stamp(c.NotBefore), NotAfter: stamp(c.NotAfter), IssuedAt: stamp(r.IssuedAt), IssuedBy: r.IssuedBy,
	}
	if !r.ReplacedBy.IsZero() {
		v.ReplacedBy = r.ReplacedBy.String()
	}
	revocation, revoked := s.RevocationOf(c)
	if revoked {
		v.RevokedBy = revocation.Selector.String()
	}
	v.State = stateWord(revoked, c, now)
	if v.State == "valid" && v.ReplacedBy != "" {
		v.State = "replaced"
	}
	return v
}

// certFilter is which certificates cert list shows.
type certFilter struct {
	environment, identity, owner, expiring string
	all                                    bool
	part                                   part
}

func (a *app) certListCommand() *cobra.Command {
	var f certFilter
	cmd := &cobra.Command{
		Use: "list", Short: "list the registered certificates that are valid",
		Example: "  armorctl cert list --environment production --expiring 30d",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.certList(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.environment, "environment", "", "only those of an `environment`")
	fl.StringVar(&f.identity, "identity", "", "only those of an identity, or below a `pattern` ending in /*")
	fl.StringVar(&f.owner, "owner", "", "only those of an `owner`")
	fl.StringVar(&f.expiring, "expiring", "", "only those that expire within this `duration`")
	fl.BoolVar(&f.all, "all", false, "also those that are expired, revoked or replaced")
	partFlags(cmd, &f.part)
	return cmd
}

func (a *app) certList(ctx context.Context, f certFilter) error {
	keep, err := f.compile(a.now())
	if err != nil {
		return err
	}
	views := []certView{}
	t := table{
		columns: []string{"identity", "environment", "owner", "serial", "expires", "state"},
		wide:    []string{"issued by", "fingerprint", "key"}, empty: "no such certificates",
	}
	next, err := f.pages(ctx, a, func(s *armor.State) {
		for _, r := range byExpiry(s) {
			if v := viewOfCert(s, r, a.now()); keep(r, v) {
				views = append(views, v)
				t.row(v.Identity, v.Environment, v.Owner, shortSerial(v.Serial), relative(r.Certificate.NotAfter, a.now()), v.State,
					v.IssuedBy, v.Fingerprint, v.Key)
			}
		}
	})
	if err != nil {
		return err
	}
	a.sayNext(next)
	return a.show(answer{data: views, tables: []table{t}})
}

// pages asks for one page of the certificates after another, until they end or the limit
// is reached. It returns where the last one ends.
func (f certFilter) pages(ctx context.Context, a *app, take func(*armor.State)) (next string, err error) {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	q := armor.Question{CertificatePage: f.page(a.now())}
	return f.part.turn(func(limit int, after string) (int, string, error) {
		q.CertificatePage.Limit, q.CertificatePage.After = limit, after
		s, next, err := client.Ask(ctx, q, certTables...)
		if err != nil {
			return 0, "", err
		}
		take(s)
		return s.Inventory.Len(), next, nil
	})
}

// page is the filter as a node understands it. What it cannot read compile has refused.
func (f certFilter) page(now time.Time) armor.CertificatePage {
	p := armor.CertificatePage{Environment: f.environment, Owner: f.owner, Identity: armor.Pattern(f.identity)}
	if within, err := parsePositive("--expiring", f.expiring); err == nil {
		p.Until = now.Add(within)
	}
	if !f.all {
		p.ValidAt = now
	}
	return p
}

func (f certFilter) compile(now time.Time) (func(armor.CertRecord, certView) bool, error) {
	var pattern armor.Pattern
	var until time.Time
	if f.identity != "" {
		var err error
		if pattern, err = armor.ParsePattern(f.identity); err != nil {
			return nil, err
		}
	}
	if f.expiring != "" {
		within, err := parsePositive("--expiring", f.expiring)
		if err != nil {
			return nil, err
		}
		until = now.Add(within)
	}
	return func(r armor.CertRecord, v certView) bool {
		return (f.all || v.State == "valid") &&
			(f.environment == "" || r.Environment == f.environment) &&
			(f.owner == "" || r.Owner == f.owner) &&
			(pattern == "" || pattern.Matches(r.Certificate.Identity)) &&
			(until.IsZero() || r.Certificate.NotAfter.Before(until))
	}, nil
}

func byExpiry(s *armor.State) []armor.CertRecord {
	return slices.SortedFunc(s.Inventory.Values(), func(a, b armor.CertRecord) int {
		return cmp.Or(a.Certificate.NotAfter.Compare(b.Certificate.NotAfter),
			strings.Compare(a.Certificate.Fingerprint.String(), b.Certificate.Fingerprint.String()))
	})
}

// shortSerial is enough of a serial to be recognised, and to be found by cert show.
func shortSerial(serial string) string {
	return serial[:min(len(serial), 2*minPrefix)]
}

func (a *app) certShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show FINGERPRINT|SERIAL", Short: "show a registered certificate; the first digits will do",
		Example: "  armorctl cert show 4f1a22c0", Args: exactly("FINGERPRINT or SERIAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, ctx, done, err := a.reach(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			state, r, err := recordNamed(ctx, client, args[0])
			if err != nil {
				return err
			}
			v := viewOfCert(state, r, a.now())
			return a.show(answer{data: v, tables: []table{v.facts()}})
		},
	}
}

func (v certView) facts() table {
	return facts("",
		[2]string{"identity", v.Identity}, [2]string{"environment", v.Environment}, [2]string{"state", v.State},
		[2]string{"revoked by", v.RevokedBy}, [2]string{"owner", v.Owner}, [2]string{"contact", v.Contact},
		[2]string{"not before", v.NotBefore}, [2]string{"not after", v.NotAfter},
		[2]string{"issued", strings.TrimSpace(v.IssuedAt + " " + by(v.IssuedBy))}, [2]string{"replaced by", v.ReplacedBy},
		[2]string{"serial", v.Serial}, [2]string{"issuer", v.Issuer}, [2]string{"fingerprint", v.Fingerprint}, [2]string{"key", v.Key})
}

func by(operator string) string {
	if operator == "" {
		return ""
	}
	return "by " + operator
}

// recordNamed asks for a registered certificate by its first digits, and for what it is judged by.
func recordNamed(ctx context.Context, client *rpc.Client, word string) (*armor.State, armor.CertRecord, error) {
	digits, err := digitsOf(word)
	if err != nil {
		return nil, armor.CertRecord{}, err
	}
	state, _, err := client.Ask(ctx, armor.Question{Certificates: []string{digits}}, certTables...)
	if err != nil {
		return nil, armor.CertRecord{}, err
	}
	r, err := findRecord(state, word)
	return state, r, err
}

// digitsOf spells the first digits of a fingerprint or a serial number as the inventory does.
func digitsOf(word string) (string, error) {
	digits := strings.ToLower(strings.ReplaceAll(word, ":", ""))
	if len(digits) < minPrefix {
		return "", &fault.Usage{Err: fmt.Errorf("%q is too short: give %d digits or more", word, minPrefix)}
	}
	return digits, nil
}

// findRecord finds a registered certificate by the first digits of its fingerprint or
// serial number, or by ISSUER/SERIAL.
func findRecord(s *armor.State, word string) (armor.CertRecord, error) {
	digits, err := digitsOf(word)
	if err != nil {
		return armor.CertRecord{}, err
	}
	var found []armor.CertRecord
	for fingerprint, r := range s.Inventory.All() {
		id := r.Certificate.ID
		if strings.HasPrefix(fingerprint, digits) || strings.HasPrefix(id.Serial, digits) || id.String() == digits {
			found = append(found, r)
		}
	}
	return onlyOne(found, "registered certificate", word)
}

// inspectView is what a certificate file holds, judged without a cluster.
type inspectView struct {
	certView
	Subject    string   `json:"subject"`
	CA         bool     `json:"ca"`
	Violations []string `json:"violations"`
}

func (a *app) certInspectCommand() *cobra.Command {
	var svid bool
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "look into a certificate file, without a cluster",
		Long: `Shows the first certificate of a PEM file and holds it against the profile that the
edge demands of a client's certificate. Exit code 3 when it would be refused.`,
		Example: "  armorctl cert inspect client.crt", Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.inspect(args[0], svid) },
	}
	cmd.Flags().BoolVar(&svid, "svid", false, "judge it as one of a CA that was registered with --svid")
	return cmd
}

func (a *app) inspect(path string, svid bool) error {
	certs, err := issue.Certificates(path)
	if err != nil {
		return err
	}
	cert := certs[0]
	c := pki.Facts(cert, armor.Digest{})
	v := inspectView{certView: viewOfCert(&armor.State{}, armor.CertRecord{Certificate: c}, a.now()), Subject: cert.Subject.String(),
		CA: cert.IsCA, Violations: []string{}}
	v.Issuer = cert.Issuer.String()
	for _, broken := range pki.Violations(cert, pki.Profile{SVID: svid}) {
		v.Violations = append(v.Violations, broken.Error())
	}
	t := v.facts()
	t.rows = append([][]string{{"subject:", v.Subject}}, t.rows...)
	for _, broken := range v.Violations {
		t.row("problem:", broken)
	}
	if err := a.show(answer{data: v, tables: []table{t}}); err != nil {
		return err
	}
	if problems := len(v.Violations); problems > 0 || v.State != "valid" {
		return &verdict{exitProblems, fmt.Sprintf("the edge would refuse this certificate: %s",
			cmp.Or(strings.Join(v.Violations, "; "), "it is "+v.State))}
	}
	return nil
}
