package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) caRotateCommand() *cobra.Command {
	return group("rotate", "take an environment's clients from one CA to another",
		a.rotatePlanCommand(), a.rotateStartCommand(), a.rotateStatusCommand(), a.rotateAdvanceCommand(), a.rotateRollbackCommand(),
		a.rotateFinishCommand())
}

// rotateOptions are the flags of the verbs.
type rotateOptions struct {
	environment, from, to string
	watch, until          string
	spare                 []string
	compromised, force    bool
}

func (o *rotateOptions) environmentFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.environment, "environment", "", "the `environment` whose clients it is about")
}

func (o *rotateOptions) anchorFlags(cmd *cobra.Command) {
	o.environmentFlag(cmd)
	cmd.Flags().StringVar(&o.from, "from", "", "`name` or fingerprint of the old trust anchor (default: the only other one)")
	cmd.Flags().StringVar(&o.to, "to", "", "`name` or fingerprint of the new trust anchor")
}

func (o *rotateOptions) spareFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.spare, "spare", nil, "an `identity` or pattern that is not waited for; repeatable")
}

func (o rotateOptions) spared() (all []armor.Pattern, err error) {
	for _, word := range o.spare {
		p, err := armor.ParsePattern(word)
		if err != nil {
			return nil, &fault.Usage{Err: fmt.Errorf("--spare: %w", err)}
		}
		all = append(all, p)
	}
	return all, nil
}

func (a *app) rotateStartCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "start --environment ENV --to CA",
		Short: "begin a rotation: nothing changes yet for anybody",
		Long: `Begins to take the clients of an environment from one trust anchor to another, which ca init or
ca import has brought before. Both are trusted from then on, and whom each lets in is recorded;
certificates come from the old one until ca rotate advance. Begin early: the longer this phase, the
more is known of who still comes by the old CA.

With --compromised the old CA's key is in wrong hands: it lets nobody in from this commit on, and
all sessions by it are cut. Who that is is listed first. There is no way back from that.`,
		Example: `  armorctl ca rotate start --environment production --to production-2027
  armorctl ca rotate start --environment production --to production-2027 --compromised`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.startRotation(cmd.Context(), o) },
	}
	o.anchorFlags(cmd)
	o.spareFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.watch, "watch", "24h", "how long nobody must have come by the old CA before it is distrusted")
	f.BoolVar(&o.compromised, "compromised", false, "distrust the old CA at once, and for good")
	return cmd
}

func (a *app) startRotation(ctx context.Context, o rotateOptions) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	r, state, err := a.plannedRotation(ctx, client, o)
	if err != nil {
		return err
	}
	watch, err := parseDuration(o.watch)
	if err != nil || watch < 0 {
		return &fault.Usage{Err: fmt.Errorf("--watch %q is not a duration such as 7d, 24h or 0s", o.watch)}
	}
	command := armor.StartRotation{Environment: r.Environment, Old: r.Old, New: r.New, Watch: watch, Spared: r.Spared, Compromised: o.compromised}
	if o.compromised {
		view, err := a.lookAtPlanned(ctx, client, r)
		if err == nil {
			err = a.confirmLoss(ctx, view)
		}
		if err != nil {
			return err
		}
	}
	return a.submitRotation(ctx, client, command, state, r.Environment)
}

// plannedRotation finds the two anchors of a rotation that has not begun, and the state that has them.
func (a *app) plannedRotation(ctx context.Context, client *rpc.Client, o rotateOptions) (r armor.Rotation, s *armor.State, err error) {
	if o.environment == "" || o.to == "" {
		return r, nil, &fault.Usage{Err: errors.New("this needs --environment and --to, the new trust anchor")}
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	if s, _, err = client.Ask(ctx, armor.Question{}, armor.Anchors, armor.Environments, armor.Revoked, armor.Rotations); err != nil {
		return r, nil, noRotations(err)
	}
	if r, err = o.anchorsIn(s); err != nil {
		return r, nil, err
	}
	r.Spared, err = o.spared()
	return r, s, err
}

// lookAtPlanned asks what hangs on the old CA of a rotation that has not begun.
func (a *app) lookAtPlanned(ctx context.Context, client *rpc.Client, r armor.Rotation) (rotationView, error) {
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	r.Phase = armor.RotationTaint // from where it would have to be known who is left
	v, err := a.lookAtRotation(ctx, client, r)
	v.Phase = string(armor.RotationStandby)
	return v, err
}

// noRotations explains why a node of an earlier release does not answer.
func noRotations(err error) error {
	if errors.Is(err, armor.ErrInvalid) {
		return fault.Hinted(err, "a node of an earlier release rotates no CA: upgrade it first")
	}
	return err
}

// anchorsIn finds the anchors that the flags name: without --from the only one beside --to.
func (o rotateOptions) anchorsIn(s *armor.State) (r armor.Rotation, err error) {
	r.Environment = o.environment
	if !s.Environments.Has(o.environment) {
		return r, fault.Hinted(fmt.Errorf("%w: there is no environment %q", armor.ErrNotFound, o.environment), "armorctl ca list")
	}
	successor, err := anchorOf(s, o.environment, o.to)
	if err != nil {
		return r, err
	}
	r.New = successor.Certificate.Fingerprint
	if o.from != "" {
		old, err := anchorOf(s, o.environment, o.from)
		r.Old = old.Certificate.Fingerprint
		return r, err
	}
	others := kept(sortedAnchors(s), func(t armor.TrustAnchor) bool {
		return t.Environment == o.environment && t.Key() != successor.Key() && !t.Distrusted && !anchorRevoked(s, t)
	})
	if len(others) == 0 {
		return r, fault.Hinted(&fault.Usage{Err: fmt.Errorf("environment %s has no trust anchor in use beside %s", o.environment, successor.Name)},
			"armorctl ca init --environment %s --out DIR, or ca import, brings the new one", o.environment)
	}
	if len(others) > 1 {
		return r, fault.Hinted(&fault.Usage{Err: fmt.Errorf("environment %s has %d other trust anchors in use: say --from", o.environment, len(others))},
			"armorctl ca list")
	}
	r.Old = others[0].Certificate.Fingerprint
	return r, nil
}

// anchorOf finds a trust anchor of one environment: two environments may use one name.
func anchorOf(s *armor.State, environment, word string) (armor.TrustAnchor, error) {
	own := kept(sortedAnchors(s), func(t armor.TrustAnchor) bool { return t.Environment == environment })
	t, err := findAnchorAmong(own, word)
	if errors.Is(err, armor.ErrNotFound) {
		return t, fault.Hinted(fmt.Errorf("%w: environment %s has no trust anchor %q", armor.ErrNotFound, environment, word),
			"armorctl ca init --environment %s --out DIR, or ca import, makes it one; armorctl ca list shows what there is", environment)
	}
	return t, err
}

// submitRotation commits a move that was worked out from a state, waits until it is in force, and shows where
// the rotation stands then.
func (a *app) submitRotation(ctx context.Context, client *rpc.Client, command armor.Command, state *armor.State, environment string) error {
	outcome, err := a.submitEnforced(ctx, client, command, rpc.WaitAll, state)
	if err != nil && !errors.Is(err, armor.ErrUnconfirmed) {
		return err
	}
	looking, cancel := a.within(ctx, patience)
	defer cancel()
	view, failed := a.presentRotation(looking, client, environment)
	if failed != nil {
		return failed
	}
	change := viewOfChange(outcome)
	view.Result = &change
	if shown := a.showRotation(view, enforcementTable(outcome.Enforcement, a.now())); shown != nil {
		return shown
	}
	if err != nil {
		return err
	}
	return unconfirmed(outcome.Enforcement)
}

func (a *app) rotationState(ctx context.Context, client *rpc.Client, environment string) (*armor.State, error) {
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Environments, armor.Anchors, armor.Rotations)
	if err != nil {
		return nil, noRotations(err)
	}
	if !state.Environments.Has(environment) {
		return nil, fault.Hinted(fmt.Errorf("%w: there is no environment %q", armor.ErrNotFound, environment), "armorctl ca list")
	}
	return state, nil
}

// activeRotation returns the environment's rotation, which must be under way, and the state that has it.
func (a *app) activeRotation(ctx context.Context, client *rpc.Client, environment string) (r armor.Rotation, s *armor.State, err error) {
	if environment == "" {
		return r, nil, &fault.Usage{Err: errors.New("this needs --environment")}
	}
	if s, err = a.rotationState(ctx, client, environment); err != nil {
		return r, nil, err
	}
	r, _ = s.Rotations.Get(environment)
	if !r.Active() {
		return r, nil, fault.Hinted(fmt.Errorf("%w: environment %s is not being rotated", armor.ErrNotFound, environment),
			"armorctl ca rotate start --environment %s --to CA", environment)
	}
	return r, s, nil
}

// underWay is a rotation that is under way, and the state that it was seen in.
type underWay struct {
	*app
	client *rpc.Client
	armor.Rotation
	state *armor.State
}

// withRotation finds the rotation of an environment, which must be under way, and does something about it.
func (a *app) withRotation(ctx context.Context, environment string, do func(underWay) error) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	r, state, err := a.activeRotation(ctx, client, environment)
	if err != nil {
		return err
	}
	return do(underWay{a, client, r, state})
}

// move commits a move of the rotation as it was seen.
func (u underWay) move(ctx context.Context, m armor.MoveRotation) error {
	m.Environment, m.Revision = u.Environment, u.Revision
	return u.submitRotation(ctx, u.client, m, u.state, u.Environment)
}

// phaseNames are the phases that can be waited for.
func phaseNames() (names []string) {
	for _, p := range armor.RotationPhases()[1:] {
		names = append(names, string(p))
	}
	return names
}
