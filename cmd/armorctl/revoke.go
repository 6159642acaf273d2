package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// revokeOptions are the flags of revoke.
type revokeOptions struct {
	targets
	reason, comment, wait string
	dryRun                bool
}

func (a *app) revokeCommand() *cobra.Command {
	var o revokeOptions
	cmd := &cobra.Command{
		Use:   "revoke [IDENTITY] --reason REASON",
		Short: "take access away for good, and say when that is true on every node",
		Long: `Revokes what the flags name, in one commit, and waits until every node enforces it or
has fenced itself. There is no way back: whoever shall have access again gets a new
certificate, or after an identity was revoked as a whole, a new identity.

With --reason key-compromise, --file and --fingerprint revoke the certificate's key and
every certificate that its identity was issued so far. Other reasons: unspecified,
ca-compromise, affiliation-changed, superseded, cessation-of-operation.

A list of --selectors may be of any size up to some 400,000: what one command cannot
hold is first brought to the cluster in parts, and then all of it is revoked at once.`,
		Example: `  armorctl revoke --file laptop.crt --reason key-compromise
  armorctl revoke 'spiffe://production.acme.internal/app/old/*' --reason cessation-of-operation --comment "CHG-1234"
  armorctl revoke --selectors stolen.txt --reason key-compromise --yes`,
		Args: atMost("IDENTITY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.identities = append(o.identities, args...)
			return a.revoke(cmd.Context(), o)
		},
	}
	targetFlags(cmd, &o.targets)
	f := cmd.Flags()
	f.StringVar(&o.reason, "reason", "", "why, in the words of RFC 5280; required")
	f.StringVar(&o.comment, "comment", "", "a remark for other operators")
	f.BoolVar(&o.dryRun, "dry-run", false, "have the leader judge it, list what would be cut, and revoke nothing")
	f.StringVar(&o.wait, "wait", string(rpc.WaitAll),
		"return when `all` nodes enforce it, when the leader has it, or at once: all, leader, none")
	return cmd
}

func (a *app) revoke(ctx context.Context, o revokeOptions) error {
	if o.reason == "" {
		return &fault.Usage{Err: errors.New("revoke needs --reason, such as key-compromise")}
	}
	reason, err := armor.ParseRevocationReason(o.reason)
	if err != nil {
		return err
	}
	wait, err := waitFlag(o.wait)
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	state, err := a.stateFor(ctx, client, o.targets)
	if err != nil {
		return err
	}
	selectors, err := o.selectors(scope{state: state, reason: reason, now: a.now(), retry: a.globals.requestID != "", in: a.in})
	if err != nil {
		return err
	}
	r := revocation{command: armor.Revoke{Selectors: selectors, Reason: reason, Comment: o.comment}, state: state, wait: wait}
	looking, cancelLooking := a.within(ctx, patience+stagingPatience(r.command))
	defer cancelLooking()
	if o.dryRun {
		return a.dryRunRevoke(looking, client, r)
	}
	if err := a.announce(looking, client, r); err != nil {
		return err
	}
	if err := a.confirm(ctx, "revoke"); err != nil {
		return err
	}
	return a.revokeNow(ctx, client, r)
}

// stateFor asks what the flags refer to. A revocation that says itself what it revokes goes
// ahead without an answer: it then waits for as long as is usual.
func (a *app) stateFor(ctx context.Context, client *rpc.Client, t targets) (*armor.State, error) {
	about, err := t.about()
	if err != nil {
		return nil, err
	}
	standard := patience
	if t.plain() {
		standard = hurriedPreview
	}
	ctx, cancel := a.within(ctx, standard)
	defer cancel()
	state, _, err := client.Ask(ctx, about, armor.Environments, armor.Inventory, armor.Anchors, armor.Identities)
	if err != nil && t.plain() {
		a.tell("how long nodes may serve without an answer could not be found out in time")
		return &armor.State{}, nil
	}
	return state, err
}

// revocation is one that is about to be made.
type revocation struct {
	command armor.Revoke
	state   *armor.State // it was worked out from
	wait    rpc.Wait
}

// revokeView is the answer of revoke.
type revokeView struct {
	Selectors []string               `json:"selectors"`
	Reason    armor.RevocationReason `json:"reason"`
	Comment   string                 `json:"comment,omitempty"`
	// Sessions would be cut, and Certificates, of the registered ones, are taken away; only a
	// dry run has them.
	Sessions     []sessionView `json:"sessions,omitempty"`
	Certificates []certView    `json:"certificates,omitempty"`
	Silent       []silentView  `json:"silent,omitempty"`
	Result       *changeView   `json:"result,omitempty"`
}

func (r revocation) view() revokeView {
	v := revokeView{Reason: r.command.Reason, Comment: r.command.Comment}
	for _, s := range r.command.Selectors {
		v.Selectors = append(v.Selectors, s.String())
	}
	return v
}

func (a *app) dryRunRevoke(ctx context.Context, client *rpc.Client, r revocation) error {
	if err := client.DryRunAll(ctx, r.command); err != nil {
		return fmt.Errorf("the leader would refuse this: %w", err)
	}
	survey, err := client.Preview(ctx, r.command.Selectors)
	if err != nil {
		return err
	}
	v := r.view()
	v.Silent = silentIn(survey)
	a.reportSilent(v.Silent)
	a.sayEach("would be revoked:", v.Selectors)
	if v.Certificates, err = a.registered(ctx, client, r.command.Selectors); err != nil {
		return err
	}
	a.sayCertificates(v.Certificates)
	var t table
	v.Sessions, t = sessionTable(survey.Sessions, a.now())
	t.empty = "no live session would be cut"
	return a.show(answer{data: v, tables: []table{t}})
}

// hurriedPreview is how long a revocation that nobody is asked about may be held up by
// finding out what it will cut.
const hurriedPreview = 500 * time.Millisecond

// listed is how many selectors, or sessions, are listed one by one.
const listed = 20

// sayEach says a word of each text, up to a number that can be read.
func (a *app) sayEach(word string, texts []string) {
	for i, text := range texts {
		if i == listed {
			a.say("%s … and %d more", word, len(texts)-i)
			return
		}
		a.say("%s %s", word, text)
	}
}

// announce lists on stderr what will be cut. With --yes it is done in a hurry, and that
// it cannot be found out stops nothing.
func (a *app) announce(ctx context.Context, client *rpc.Client, r revocation) error {
	a.sayEach("revoking", r.view().Selectors)
	if a.globals.yes {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, hurriedPreview)
		defer cancel()
	}
	survey, err := client.Preview(ctx, r.command.Selectors)
	if err != nil && !a.globals.yes {
		return fmt.Errorf("find out which sessions would be cut: %w", err)
	}
	if err != nil {
		a.say("which sessions will be cut could not be found out in time")
		return nil
	}
	a.reportSilent(silentIn(survey))
	if !a.globals.yes {
		certs, err := a.registered(ctx, client, r.command.Selectors)
		if err != nil {
			return err
		}
		a.sayCertificates(certs)
	}
	a.say("live sessions that will be cut: %d", len(survey.Sessions))
	for i, s := range survey.Sessions {
		if i == listed {
			a.say("  … and %d more", len(survey.Sessions)-i)
			break
		}
		a.say("  %s session %d: %s from %s, database %q as %q", s.Node, s.ID, s.Certificate.Identity, s.Source, s.Database, s.Role)
	}
	return nil
}

// registered are certificates of the inventory that selectors name: of each the first few
// that end last, and of a long list those of its beginning.
func (a *app) registered(ctx context.Context, client *rpc.Client, selectors []armor.Selector) ([]certView, error) {
	about := armor.Question{Selectors: selectors[:min(len(selectors), 10*listed)], Each: listed}
	state, _, err := client.Ask(ctx, about, certTables...)
	if err != nil {
		return nil, fmt.Errorf("find out which registered certificates are meant: %w", err)
	}
	var views []certView
	for _, r := range byExpiry(state) {
		if views = append(views, viewOfCert(state, r, a.now())); len(views) == 10*listed {
			break
		}
	}
	return views, nil
}

func (a *app) sayCertificates(certs []certView) {
	var texts []string
	for _, c := range certs {
		texts = append(texts, fmt.Sprintf("%s of %s, %s", shortSerial(c.Serial), c.Identity, c.State))
	}
	a.sayEach("  registered certificate", texts)
}

func (a *app) revokeNow(ctx context.Context, client *rpc.Client, r revocation) error {
	if r.wait == rpc.WaitAll {
		a.tell("waiting up to %s for every node to enforce it or to fence itself", enforcementPatience(r.state).Round(time.Second))
	}
	outcome, err := a.submitWatched(ctx, client, r)
	if err != nil && !errors.Is(err, armor.ErrUnconfirmed) {
		return r.retryHint(err)
	}
	v, result := r.view(), viewOfChange(outcome)
	v.Result = &result
	if shown := a.show(answer{data: v, tables: revokeTables(outcome, a.now())}); shown != nil {
		return shown
	}
	if err != nil {
		return err
	}
	return unconfirmed(outcome.Enforcement)
}

// submitWatched tells how far the revocation has come when it takes its time.
func (a *app) submitWatched(ctx context.Context, client *rpc.Client, r revocation) (rpc.Outcome, error) {
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	if r.wait == rpc.WaitAll {
		watcher.Go(func() { a.watch(watching, client, r) })
	}
	outcome, err := a.submitEnforced(ctx, client, r.command, r.wait, r.state)
	stop()
	watcher.Wait()
	return outcome, err
}

func revokeTables(o rpc.Outcome, now time.Time) []table {
	state := "committed"
	switch {
	case o.Result.Revision == 0:
		state = "asked for; whether it was committed is not known"
	case o.Enforcement != nil && o.Enforcement.Complete:
		state = "enforced"
	}
	head := facts("", [2]string{"revocation", state}, [2]string{"revision", fmt.Sprint(o.Result.Revision)},
		[2]string{"request", string(o.RequestID)})
	return []table{head, enforcementTable(o.Enforcement, now)}
}

// retryHint says how the very same revocation is asked for again: an instant that was
// taken from the clock must be repeated.
func (r revocation) retryHint(err error) error {
	failed := (*requested)(nil)
	if !errors.Is(err, armor.ErrUncertain) || !errors.As(err, &failed) {
		return err
	}
	for _, s := range r.command.Selectors {
		if !s.IssuedBefore.IsZero() {
			return fault.Hinted(err, "run the same command with --request-id %s --issued-before %s: it is done at most once", failed.id,
				s.IssuedBefore.UTC().Format(time.RFC3339Nano))
		}
	}
	return err
}
