package main

import (
	"cmp"
	"context"
	"errors"
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

func (a *app) caCommand() *cobra.Command {
	return group("ca", "the CAs that may vouch for clients", a.caInitCommand(), a.caImportCommand(), a.caListCommand(), a.caShowCommand(),
		a.caRetireCommand(), a.caRotateCommand())
}

// caOptions are the flags of ca init.
type caOptions struct {
	environment, out, trustDomain, name, prefix string
	lifetime, maxLifetime, inventory            string
	svid                                        bool
	secrecy
}

func (a *app) caInitCommand() *cobra.Command {
	var o caOptions
	cmd := &cobra.Command{
		Use:   "init --environment ENV --out DIR",
		Short: "make a client CA on this machine and have the cluster trust it",
		Long: `Makes a CA for the clients of one environment. Its key stays in --out, under a
passphrase; the cluster gets the certificate, bound to the environment and to
identities below --prefix. The environment is made when there is none of that name.

The trust domain is ENVIRONMENT.CLUSTER.internal unless --trust-domain says another.
A folder that holds a CA already is taken up: running the command again finishes what
was cut short.`,
		Example: "  armorctl ca init --environment production --out ./ca/production --inventory required",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.caInit(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "`folder` for the CA's certificate and key")
	f.StringVar(&o.trustDomain, "trust-domain", "", "SPIFFE trust `domain` of its identities")
	f.StringVar(&o.lifetime, "lifetime", "1825d", "the CA's `lifetime`")
	trustFlags(cmd, &o)
	secrecyFlags(cmd, &o.secrecy)
	return cmd
}

// trustFlags say what a CA is trusted for.
func trustFlags(cmd *cobra.Command, o *caOptions) {
	f := cmd.Flags()
	f.StringVar(&o.environment, "environment", "", "the `environment` whose clients it vouches for")
	f.StringVar(&o.prefix, "prefix", "", "the identities it may vouch for (default: spiffe://DOMAIN/*)")
	f.StringVar(&o.name, "name", "", "`name` of the trust anchor (default: client- and eight digits)")
	f.StringVar(&o.inventory, "inventory", "", "for a new environment: open, or required to accept registered certificates only")
	f.StringVar(&o.maxLifetime, "max-lifetime", "", "for a new environment: longest `lifetime` of a client certificate")
	f.BoolVar(&o.svid, "svid", false, "its certificates may be for servers too, as X.509-SVIDs are")
}

func (a *app) caInit(ctx context.Context, o caOptions) error {
	if o.environment == "" || o.out == "" {
		return &fault.Usage{Err: errors.New("ca init needs --environment and --out")}
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(reading, armor.Environments, armor.Anchors)
	if err != nil {
		return err
	}
	environment, isNew, err := o.environmentIn(state)
	if err != nil {
		return err
	}
	ca, err := a.clientCA(ctx, o, state)
	if err != nil {
		return err
	}
	anchor, err := o.anchor(ca, a.now())
	if err != nil {
		return err
	}
	outcome, err := a.trust(ctx, client, newTrust{environment, isNew, []armor.TrustAnchor{anchor}})
	if err != nil {
		return err
	}
	a.say("the key in %s makes clients of %s: keep it offline\nnext: armorctl cert issue IDENTITY --environment %s --ca %s", o.out,
		environment.Name, environment.Name, o.out)
	view := viewOfAnchor(anchor)
	view.Revision = outcome.Result.Revision
	return a.show(answer{data: view, tables: []table{anchorFacts(anchor, a.now())}})
}

// newTrust is the CAs that the cluster is about to trust.
type newTrust struct {
	environment armor.Environment
	isNew       bool // the environment is to be made first
	anchors     []armor.TrustAnchor
}

// trust makes one change for each CA, and one for the environment; each may be repeated. It
// returns the last one's outcome.
func (a *app) trust(ctx context.Context, client *rpc.Client, n newTrust) (outcome rpc.Outcome, err error) {
	ctx, cancel := a.within(ctx, patience) // anew: asking for a passphrase has taken its time
	defer cancel()
	if n.isNew {
		if _, err := a.submit(ctx, client, armor.PutEnvironment{Environment: n.environment}, rpc.SubmitOptions{}); err != nil {
			return outcome, fmt.Errorf("make environment %s: %w", n.environment.Name, err)
		}
		a.say("environment %s made", n.environment.Name)
	}
	for i, anchor := range n.anchors {
		outcome, err = a.submit(ctx, client, armor.PutAnchor{Anchor: anchor}, rpc.SubmitOptions{RequestID: rpc.StepID(a.globals.requestID, i+1)})
		if err != nil {
			return outcome, fmt.Errorf("register trust anchor %s: %w", anchor.Name, err)
		}
	}
	return outcome, nil
}

// environmentIn returns the environment to be used, and whether it is to be made.
func (o caOptions) environmentIn(s *armor.State) (armor.Environment, bool, error) {
	if e, found := s.Environments.Get(o.environment); found {
		if o.inventory != "" && armor.InventoryMode(o.inventory) != e.Inventory || o.maxLifetime != "" {
			return e, false, fault.Hinted(fmt.Errorf("%w: environment %s exists, with inventory %s", armor.ErrConflict, e.Name, e.Inventory),
				"change it with armorctl apply, and leave --inventory and --max-lifetime out")
		}
		return e, false, nil
	}
	e := armor.Environment{
		Name: o.environment, Inventory: armor.InventoryMode(cmp.Or(o.inventory, string(armor.InventoryOpen))),
		FreshNew: armor.DefaultFreshNew, FreshLive: armor.DefaultFreshLive,
	}
	if o.maxLifetime != "" {
		var err error
		if e.MaxLeafLifetime, err = parsePositive("--max-lifetime", o.maxLifetime); err != nil {
			return e, false, err
		}
	}
	return e, true, oneOf("--inventory", string(e.Inventory), string(armor.InventoryOpen), string(armor.InventoryRequired))
}

// clientCA takes up the CA in the folder, or makes one.
func (a *app) clientCA(ctx context.Context, o caOptions, s *armor.State) (issue.CA, error) {
	if issue.HasCA(o.out) {
		a.say("taking up the CA in %s", o.out)
		return issue.LookAt(o.out, pki.ClientCA)
	}
	lifetime, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return issue.CA{}, err
	}
	domain := cmp.Or(o.trustDomain, strings.ToLower(o.environment+"."+s.Cluster.Name+".internal"))
	return a.newCA(ctx, o.out, pki.CAConfig{
		Kind: pki.ClientCA, CommonName: "armor " + o.environment + " clients", TrustDomain: domain,
		Lifetime: lifetime, Now: a.now(),
	}, o.secrecy)
}

// anchor is what the cluster shall trust.
func (o caOptions) anchor(ca issue.CA, now time.Time) (armor.TrustAnchor, error) {
	facts := ca.Facts()
	prefix := cmp.Or(o.prefix, pki.DefaultPrefix(ca.Cert))
	if prefix == "" {
		return armor.TrustAnchor{}, &fault.Usage{Err: fmt.Errorf("CA %q is not constrained to one trust domain: say --prefix", ca.Cert.Subject.CommonName)}
	}
	pattern, err := armor.ParsePattern(prefix)
	if err != nil {
		return armor.TrustAnchor{}, fmt.Errorf("--prefix: %w", err)
	}
	if fault := pki.AnchorFault(ca.Cert, pattern, now); fault != "" {
		return armor.TrustAnchor{}, fmt.Errorf("%w: CA %q %s: it could vouch for nobody", armor.ErrInvalid, ca.Cert.Subject.CommonName, fault)
	}
	return armor.TrustAnchor{
		Name: cmp.Or(o.name, "client-"+facts.Fingerprint.Short()), Environment: o.environment,
		Prefix: pattern, Certificate: facts, DER: ca.Cert.Raw, SVID: o.svid,
	}, nil
}

// anchorView is a trust anchor as -o json shows it.
type anchorView struct {
	Name        string `json:"name"`
	Environment string `json:"environment"`
	Prefix      string `json:"prefix"`
	Fingerprint string `json:"fingerprint"`
	Key         string `json:"key"`
	Serial      string `json:"serial"`
	NotBefore   string `json:"notBefore"`
	NotAfter    string `json:"notAfter"`
	SVID        bool   `json:"svid"`
	Revoked     bool   `json:"revoked"`
	Retired     bool   `json:"retired"`
	Distrusted  bool   `json:"distrusted,omitempty"`
	Unusable    string `json:"unusable,omitempty"` // why it vouches for nobody
	PEM         string `json:"pem,omitempty"`
	Revision    uint64 `json:"revision,omitempty"`
}

func viewOfAnchor(t armor.TrustAnchor) anchorView {
	return anchorView{
		Name: t.Name, Environment: t.Environment, Prefix: string(t.Prefix),
		Fingerprint: t.Certificate.Fingerprint.String(), Key: t.Certificate.Key.String(), Serial: t.Certificate.ID.Serial,
		NotBefore: stamp(t.Certificate.NotBefore), NotAfter: stamp(t.Certificate.NotAfter), SVID: t.SVID, Retired: t.Retired, Distrusted: t.Distrusted,
	}
}

func anchorFacts(t armor.TrustAnchor, now time.Time) table {
	c := t.Certificate
	return facts("", [2]string{"trust anchor", t.Name}, [2]string{"environment", t.Environment},
		[2]string{"vouches for", string(t.Prefix)}, [2]string{"expires", stamp(c.NotAfter) + " (" + relative(c.NotAfter, now) + ")"},
		[2]string{"fingerprint", c.Fingerprint.String()}, [2]string{"key", c.Key.String()})
}

func (a *app) caListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the trust anchors", Example: "  armorctl ca list -o wide", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, _, err := a.ask(cmd.Context(), armor.Question{}, armor.Anchors, armor.Revoked)
			if err != nil {
				return err
			}
			return a.show(anchorsAnswer(state, a.now()))
		},
	}
}

func anchorsAnswer(s *armor.State, now time.Time) answer {
	views := []anchorView{}
	t := table{columns: []string{"name", "environment", "vouches for", "expires", "state"}, wide: []string{"fingerprint", "key"},
		empty: "no trust anchors"}
	for _, anchor := range sortedAnchors(s) {
		v := viewOfAnchor(anchor)
		v.Revoked, v.Unusable = anchorRevoked(s, anchor), anchorFault(anchor, now)
		views = append(views, v)
		t.row(v.Name, v.Environment, v.Prefix, relative(anchor.Certificate.NotAfter, now), v.state(anchor, now), v.Fingerprint, v.Key)
	}
	return answer{data: views, tables: []table{t}}
}

// state is in a word whether the anchor vouches for anybody.
func (v anchorView) state(t armor.TrustAnchor, now time.Time) string {
	word := stateWord(v.Revoked, t.Certificate, now)
	switch {
	case word != valid:
		return word
	case v.Unusable != "":
		return "unusable: " + v.Unusable
	case t.Distrusted:
		return "distrusted"
	case v.Retired:
		return "retired"
	}
	return valid
}

// anchorFault says why nodes leave an anchor out, or build no chain to it.
func anchorFault(t armor.TrustAnchor, now time.Time) string {
	cert, err := pki.ParseAnchor(t.DER)
	if err != nil {
		return err.Error()
	}
	return pki.AnchorFault(cert, t.Prefix, now)
}

func sortedAnchors(s *armor.State) []armor.TrustAnchor {
	return slices.SortedFunc(s.Anchors.Values(), func(a, b armor.TrustAnchor) int {
		return cmp.Or(strings.Compare(a.Environment, b.Environment), strings.Compare(a.Name, b.Name))
	})
}

func anchorRevoked(s *armor.State, t armor.TrustAnchor) bool {
	_, revoked := s.RevokesCA(t.Certificate)
	return revoked
}

// stateWord says whether a certificate is good now.
func stateWord(revoked bool, c armor.Certificate, now time.Time) string {
	switch {
	case revoked:
		return "revoked"
	case now.After(c.NotAfter):
		return "expired"
	case now.Before(c.NotBefore.Add(-armor.ClockSkew)):
		return "not yet valid"
	}
	return valid
}

// valid is the word for a certificate that counts.
const valid = "valid"

func (a *app) caShowCommand() *cobra.Command {
	var pem bool
	cmd := &cobra.Command{
		Use: "show NAME|FINGERPRINT", Short: "show a trust anchor and its certificate",
		Example: "  armorctl ca show client-4f1a22c0 --pem > ca.crt", Args: exactly("NAME or FINGERPRINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			state, _, err := a.ask(cmd.Context(), armor.Question{}, armor.Anchors, armor.Revoked)
			if err != nil {
				return err
			}
			anchor, err := findAnchor(state, args[0])
			if err != nil {
				return err
			}
			v := viewOfAnchor(anchor)
			v.Revoked, v.Unusable, v.PEM = anchorRevoked(state, anchor), anchorFault(anchor, a.now()), pemOf(anchor.DER)
			if pem {
				return a.showText(v.PEM)
			}
			t := anchorFacts(anchor, a.now())
			t.row("state:", v.state(anchor, a.now()))
			return a.show(answer{data: v, tables: []table{t}})
		},
	}
	cmd.Flags().BoolVar(&pem, "pem", false, "print the certificate and nothing else")
	return cmd
}

func findAnchor(s *armor.State, word string) (armor.TrustAnchor, error) {
	return findAnchorAmong(sortedAnchors(s), word)
}

func findAnchorAmong(all []armor.TrustAnchor, word string) (armor.TrustAnchor, error) {
	var found []armor.TrustAnchor
	for _, anchor := range all {
		if fingerprint := anchor.Key(); anchor.Name == word || len(word) >= minPrefix && strings.HasPrefix(fingerprint, strings.ToLower(word)) {
			found = append(found, anchor)
		}
	}
	return onlyOne(found, "trust anchor", word)
}

// minPrefix is how many digits of a fingerprint must be given.
const minPrefix = 8

// onlyOne refuses to guess which of several was meant.
func onlyOne[T any](found []T, what, word string) (T, error) {
	var none T
	switch len(found) {
	case 0:
		return none, fmt.Errorf("%w: there is no %s %q", armor.ErrNotFound, what, word)
	case 1:
		return found[0], nil
	}
	return none, fmt.Errorf("%w: %q names %d of them; a fingerprint names one", armor.ErrConflict, word, len(found))
}
