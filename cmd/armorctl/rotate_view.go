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

// rotationView is a rotation as -o json shows it.
type rotationView struct {
	Environment string   `json:"environment"`
	From        string   `json:"from"`
	To          string   `json:"to"`
	Phase       string   `json:"phase"`
	Revision    uint64   `json:"revision,omitempty"` // that began the phase
	Since       string   `json:"since,omitempty"`
	Next        string   `json:"next,omitempty"`
	RolledBack  bool     `json:"rolledBack,omitempty"`
	Compromised bool     `json:"compromised,omitempty"`
	Watch       string   `json:"watch,omitempty"`
	Spared      []string `json:"spared,omitempty"`
	Drilled     string   `json:"drilled,omitempty"`
	// What is in the way of the next phase; Blocked says it in words, by line.
	Blocked  []string        `json:"blocked"`
	Holders  []holderView    `json:"holders"`  // of certificates of the old CA that none has replaced
	Users    []useView       `json:"users"`    // who came by the old CA since the phase began
	Unseen   []holderView    `json:"unseen"`   // who has a certificate of the new CA that nobody has seen
	Sessions []dependentView `json:"sessions"` // who is connected by the old CA now
	Silent   []silentView    `json:"silent,omitempty"`
	More     bool            `json:"more,omitempty"` // there are more of these than were looked for
	Result   *changeView     `json:"result,omitempty"`
}

// holderView is a certificate of the old CA.
type holderView struct {
	Identity string `json:"identity"`
	Owner    string `json:"owner"`
	Contact  string `json:"contact,omitempty"`
	Serial   string `json:"serial"`
	NotAfter string `json:"notAfter"`
	LastSeen string `json:"lastSeen,omitempty"` // by the old CA
}

// useView is an identity that the old CA has let in.
type useView struct {
	Identity string `json:"identity"`
	Seen     string `json:"seen"`
}

func (a *app) rotatePlanCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "plan --environment ENV --to CA",
		Short: "list who would break if the old CA were distrusted now, and change nothing",
		Long: `Lists what hangs on the CA that a rotation would lead away from: certificates of it that none has
replaced, with their owners and when each was last seen, and who is connected by it now. Nothing is changed.`,
		Example: "  armorctl ca rotate plan --environment production --to production-2027", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			r, _, err := a.plannedRotation(cmd.Context(), client, o)
			if err != nil {
				return err
			}
			view, err := a.lookAtPlanned(cmd.Context(), client, r)
			if err != nil {
				return err
			}
			view.Next = string(armor.RotationStaged)
			return a.showRotation(view)
		},
	}
	o.anchorFlags(cmd)
	o.spareFlag(cmd)
	return cmd
}

func (a *app) rotateStatusCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:     "status [--environment ENV]",
		Short:   "show where a rotation stands, and what is in the way of its next phase",
		Example: "  armorctl ca rotate status --environment production", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, ctx, done, err := a.reach(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			if o.environment == "" {
				return a.listRotations(ctx, client)
			}
			view, err := a.presentRotation(ctx, client, o.environment)
			if err != nil {
				return err
			}
			return a.showRotation(view)
		},
	}
	o.environmentFlag(cmd)
	return cmd
}

func (a *app) listRotations(ctx context.Context, client *rpc.Client) error {
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Environments, armor.Anchors, armor.Rotations)
	if err != nil {
		return noRotations(err)
	}
	views := []rotationView{}
	t := table{columns: []string{"environment", "phase", "from", "to", "since", "last drill"}, empty: "no environment has been rotated"}
	for r := range state.Rotations.Values() {
		v := viewOfRotation(state, r)
		views = append(views, v)
		t.row(v.Environment, v.phaseWords(), v.From, v.To, relative(r.Since, a.now()), relative(r.Drilled, a.now()))
	}
	return a.show(answer{data: views, tables: []table{t}})
}

// presentRotation looks at the rotation of an environment.
func (a *app) presentRotation(ctx context.Context, client *rpc.Client, environment string) (rotationView, error) {
	state, err := a.rotationState(ctx, client, environment)
	if err != nil {
		return rotationView{}, err
	}
	r, found := state.Rotations.Get(environment)
	if !found {
		return rotationView{Environment: environment, Phase: string(armor.RotationStandby), Next: string(armor.RotationStaged)}.whole(), nil
	}
	if !r.Active() {
		return viewOfRotation(state, r), nil
	}
	return a.lookAtRotation(ctx, client, r)
}

// whole has empty lists in the place of none, which programs can walk.
func (v rotationView) whole() rotationView {
	v.Blocked, v.Holders, v.Users = append([]string{}, v.Blocked...), append([]holderView{}, v.Holders...), append([]useView{}, v.Users...)
	v.Unseen, v.Sessions = append([]holderView{}, v.Unseen...), append([]dependentView{}, v.Sessions...)
	return v
}

func viewOfRotation(s *armor.State, r armor.Rotation) rotationView {
	old, _ := s.Anchors.Get(r.Old.String())
	successor, _ := s.Anchors.Get(r.New.String())
	v := rotationView{
		Environment: r.Environment, From: old.Name, To: successor.Name, Phase: string(r.Phase), Revision: r.Revision, Since: stamp(r.Since),
		RolledBack: r.RolledBack, Compromised: r.Compromised, Drilled: stamp(r.Drilled),
	}
	if r.Active() {
		v.Next, v.Watch = string(r.Phase.Next()), r.Watch.String()
	}
	for _, p := range r.Spared {
		v.Spared = append(v.Spared, string(p))
	}
	return v.whole()
}

// lookAtRotation asks what is in a rotation's way, and who is connected by the old CA.
func (a *app) lookAtRotation(ctx context.Context, client *rpc.Client, r armor.Rotation) (v rotationView, err error) {
	state, _, err := client.Ask(ctx, armor.Question{DependsOn: r.Old},
		armor.Environments, armor.Anchors, armor.Inventory, armor.Revoked, armor.Rotations, armor.Uses)
	if err != nil {
		return v, noRotations(err)
	}
	v = viewOfRotation(state, r)
	at := a.now()
	if state.Time.After(at) {
		at = state.Time
	}
	v.take(state, r, state.HindrancesOf(r, at, armor.MaxDependents))
	waited, more := state.Dependents(r, at, armor.MaxDependents)
	unseen, moreUnseen := state.Unseen(r, at, armor.MaxDependents)
	v.Holders, v.Unseen, v.More = holdersOf(state, r, waited), holdersOf(state, r, unseen), v.More || more || moreUnseen
	old, _ := state.Anchors.Get(r.Old.String())
	survey, err := client.Preview(ctx, []armor.Selector{{Kind: armor.SelectIssuer, Issuer: old.Certificate.Key}})
	if err != nil {
		return v, err
	}
	v.Sessions, v.Silent = byIdentity(nil, survey.Sessions), silentIn(survey)
	return v.whole(), nil
}

// take puts hindrances into words.
func (v *rotationView) take(s *armor.State, r armor.Rotation, h armor.Hindrances) {
	for _, u := range h.Uses {
		v.Users = append(v.Users, useView{Identity: string(u.Identity), Seen: stamp(u.Seen)})
	}
	v.More = h.More
	some := func(n int) string {
		if h.More {
			return fmt.Sprintf("%d or more", n)
		}
		return fmt.Sprint(n)
	}
	if h.Unusable != "" {
		v.Blocked = append(v.Blocked, "the new CA vouches for nobody: "+h.Unusable)
	}
	if n := len(h.Certificates); n > 0 {
		v.Blocked = append(v.Blocked, some(n)+" certificates of the old CA have not been replaced")
	}
	if n := len(h.Uses); n > 0 {
		v.Blocked = append(v.Blocked, some(n)+" identities have come by the old CA since the phase began")
	}
	if h.Wait > 0 {
		v.Blocked = append(v.Blocked, "the old CA is to be watched for "+span(h.Wait)+" more")
	}
	if h.Blind {
		v.Blocked = append(v.Blocked, fmt.Sprintf("%d uses are recorded, and no more can be: there may be others by the old CA", s.Uses.Len()))
	}
}

// holdersOf shows certificates of the old CA, with when each identity last came by it.
func holdersOf(s *armor.State, r armor.Rotation, certs []armor.CertRecord) (all []holderView) {
	for _, c := range certs {
		seen, _ := s.Uses.Get(armor.Use{Anchor: r.Old, Identity: c.Certificate.Identity}.Key())
		all = append(all, holderView{
			Identity: string(c.Certificate.Identity), Owner: c.Owner, Contact: c.Contact, Serial: c.Certificate.ID.Serial,
			NotAfter: stamp(c.Certificate.NotAfter), LastSeen: stamp(seen.Seen),
		})
	}
	slices.SortStableFunc(all, func(x, y holderView) int { return cmp.Compare(x.Owner, y.Owner) })
	return all
}

func (v rotationView) phaseWords() string {
	switch {
	case v.RolledBack:
		return v.Phase + ", rolled back"
	case v.Compromised && v.Phase != string(armor.RotationStandby):
		return v.Phase + ", the old CA is compromised"
	}
	return v.Phase
}

// showRotation shows a rotation, and more tables behind it.
func (a *app) showRotation(v rotationView, more ...table) error {
	head := facts("", [2]string{"environment", v.Environment}, [2]string{"phase", v.phaseWords()}, [2]string{"from", v.From}, [2]string{"to", v.To},
		[2]string{"since", v.Since}, [2]string{"next", v.Next}, [2]string{"spared", strings.Join(v.Spared, ", ")})
	for _, line := range v.Blocked {
		head.row("in the way:", line)
	}
	a.reportSilent(v.Silent)
	holders := holderTable("certificates of the old CA that none has replaced", v.Holders)
	unseen := holderTable("replaced, but not yet seen with the new CA", v.Unseen)
	users := table{title: "came by the old CA since", columns: []string{"identity", "last seen"}}
	for _, u := range firstPage(v.Users) {
		users.row(u.Identity, u.Seen)
	}
	sessions := table{title: "connected by the old CA now", columns: []string{"identity", "sessions"}}
	for _, s := range firstPage(v.Sessions) {
		sessions.row(s.Identity, fmt.Sprint(s.Sessions))
	}
	return a.show(answer{data: v, tables: append([]table{head, holders, unseen, users, sessions}, more...)})
}

func holderTable(title string, all []holderView) table {
	t := table{title: title, columns: []string{"identity", "owner", "serial", "expires", "last seen"}, wide: []string{"contact"}}
	for _, h := range firstPage(all) {
		t.row(h.Identity, h.Owner, shortSerial(h.Serial), h.NotAfter, cmp.Or(h.LastSeen, "never"), h.Contact)
	}
	return t
}

// firstPage is as many rows as anybody reads; -o json has all.
func firstPage[T any](all []T) []T { return all[:min(len(all), pageSize)] }

// rotationPoll is how often a rotation that waits is looked at.
const rotationPoll = time.Second
