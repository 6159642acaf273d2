package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

// retireOptions are the flags of ca retire.
type retireOptions struct{ undo, dryRun bool }

func (a *app) caRetireCommand() *cobra.Command {
	var o retireOptions
	cmd := &cobra.Command{
		Use:   "retire NAME|FINGERPRINT",
		Short: "have a trust anchor die out: no new certificates of it, nobody is cut",
		Long: `From then on the nodes do not name the CA in their handshakes, and no certificate of it
is registered or issued any more. Who has one gets in until it ends: it is the gentle
step before revoke --issuer, which cuts everybody at once. --undo takes it back.

First it lists who still depends on the CA: identities whose last good registered
certificate is of it, and identities with live sessions. When there are any it asks.
Drivers that choose their certificate by the CAs that the server names (pgjdbc with a
key manager) find none to show once theirs is not named: give those clients
certificates of another CA first.`,
		Example: `  armorctl ca retire client-4f1a22c0 --dry-run
  armorctl ca retire client-4f1a22c0`,
		Args: exactly("NAME or FINGERPRINT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.retire(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.undo, "undo", false, "take it into use again")
	f.BoolVar(&o.dryRun, "dry-run", false, "only list who depends on it")
	return cmd
}

// retiredView is the answer of ca retire.
type retiredView struct {
	anchorView
	Dependents []dependentView `json:"dependents"`
	// MoreDependents: there are more certificates than were looked through.
	MoreDependents bool         `json:"moreDependents,omitempty"`
	Last           bool         `json:"last"`   // its environment has no other CA in use
	Silent         []silentView `json:"silent"` // nodes whose sessions are missing
	DryRun         bool         `json:"dryRun,omitempty"`
}

// dependentView is an identity that gets in by a CA.
type dependentView struct {
	Identity    string `json:"identity"`
	Environment string `json:"environment"`
	Owner       string `json:"owner,omitempty"`
	Serial      string `json:"serial,omitempty"`   // of its last good registered certificate
	NotAfter    string `json:"notAfter,omitempty"` // of the same
	Sessions    int    `json:"sessions"`           // live ones
}

func (a *app) retire(ctx context.Context, word string, o retireOptions) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	v, anchor, err := a.dependents(ctx, client, word)
	if err != nil {
		return err
	}
	v.DryRun = o.dryRun
	if !o.undo {
		a.announceRetirement(v)
	}
	if !o.dryRun {
		if len(v.Dependents) > 0 && !o.undo && !v.Retired {
			if err := a.confirm(ctx, "retire"); err != nil {
				return err
			}
		}
		committing, cancel := a.within(ctx, patience)
		defer cancel()
		outcome, err := a.submit(committing, client, armor.RetireAnchor{Anchor: anchor.Certificate.Fingerprint, Undo: o.undo}, rpc.SubmitOptions{})
		if err != nil {
			return fmt.Errorf("retire trust anchor %s: %w", anchor.Name, err)
		}
		v.Retired, v.Revision = !o.undo, outcome.Result.Revision
	}
	head := anchorFacts(anchor, a.now())
	head.row("state:", v.state(anchor, a.now()))
	return a.show(answer{data: v, tables: []table{head, dependentTable(v.Dependents)}})
}

// dependents finds the anchor, and who gets in by it.
func (a *app) dependents(ctx context.Context, client *rpc.Client, word string) (v retiredView, anchor armor.TrustAnchor, err error) {
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Anchors, armor.Revoked)
	if err != nil {
		return v, anchor, err
	}
	if anchor, err = findAnchor(state, word); err != nil {
		return v, anchor, err
	}
	v = retiredView{anchorView: viewOfAnchor(anchor), Dependents: []dependentView{}}
	v.Last = !slices.ContainsFunc(sortedAnchors(state), func(t armor.TrustAnchor) bool {
		return t.Environment == anchor.Environment && t.Name != anchor.Name && !t.Retired && !anchorRevoked(state, t)
	})
	v.Revoked, v.Unusable = anchorRevoked(state, anchor), anchorFault(anchor, a.now())
	found, err := lookForLastGood(ctx, client, armor.CertificatePage{Issuer: anchor.Certificate.Key}, a.now())
	if err != nil {
		return v, anchor, err
	}
	survey, err := client.Preview(ctx, []armor.Selector{{Kind: armor.SelectIssuer, Issuer: anchor.Certificate.Key}})
	if err != nil {
		return v, anchor, err
	}
	v.Dependents, v.MoreDependents = byIdentity(found.certs, survey.Sessions), found.more
	v.Silent = silentIn(survey)
	return v, anchor, nil
}

// byIdentity puts certificates and sessions together by whose they are, those that end last first.
func byIdentity(certs []armor.CertRecord, sessions []armor.SessionInfo) []dependentView {
	type holder struct{ environment, identity string }
	all := map[holder]dependentView{}
	for _, r := range certs {
		c := r.Certificate
		all[holder{r.Environment, string(c.Identity)}] = dependentView{
			Identity: string(c.Identity), Environment: r.Environment, Owner: r.Owner, Serial: c.ID.Serial, NotAfter: stamp(c.NotAfter),
		}
	}
	for _, s := range sessions {
		key := holder{s.Environment, string(s.Certificate.Identity)}
		d := all[key]
		d.Identity, d.Environment, d.Sessions = key.identity, key.environment, d.Sessions+1
		all[key] = d
	}
	list := make([]dependentView, 0, len(all))
	for _, d := range all {
		list = append(list, d)
	}
	slices.SortFunc(list, func(x, y dependentView) int {
		return cmp.Or(cmp.Compare(y.NotAfter, x.NotAfter), cmp.Compare(x.Environment, y.Environment), cmp.Compare(x.Identity, y.Identity))
	})
	return list
}

// announceRetirement says what hangs on the CA.
func (a *app) announceRetirement(v retiredView) {
	a.reportSilent(v.Silent)
	sessions := 0
	for _, d := range v.Dependents {
		sessions += d.Sessions
	}
	if v.Last {
		a.say("environment %s has no other CA in use: nobody gets a new certificate there until ca init or ca import", v.Environment)
	}
	more := ""
	if v.MoreDependents {
		more = " or more"
	}
	a.say("identities that depend on trust anchor %s: %d%s, with %d live sessions; they go on until their certificates end",
		v.Name, len(v.Dependents), more, sessions)
	if len(v.Dependents) > 0 {
		a.say("drivers that choose their certificate by the CAs that the server names will find none: issue them certificates of another CA first")
	}
}

// dependentTable lists those who depend on a CA.
func dependentTable(all []dependentView) table {
	t := table{columns: []string{"depends on it", "environment", "owner", "serial", "expires", "sessions"}}
	for i, d := range all {
		if i == pageSize {
			break // a page of names is more than anybody reads; -o json has all
		}
		t.row(d.Identity, d.Environment, d.Owner, shortSerial(d.Serial), d.NotAfter, fmt.Sprint(d.Sessions))
	}
	return t
}
