package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

func (a *app) rotateAdvanceCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "advance --environment ENV",
		Short: "bring a rotation into its next phase, once nothing is in the way",
		Long: `The phases are, in their order:

  staged           both CAs are trusted, and certificates come from the old one
  issuing          certificates come from the new one
  taint            whoever has one of the old CA is to renew it now
  shadow-distrust  the old CA still lets in, and whom it does is held against it
  distrusted       the old CA lets nobody in, and its sessions are cut

The cluster refuses to go on while a node does not have the present phase in force; from taint on,
while a registered certificate of the old CA is good that none has replaced; and from shadow-distrust
on, while anybody has come by the old CA since, or the time of --watch is not over. --spare names
identities that are not waited for. --force waits for nobody, and leads to distrusted from any phase.

--until goes on phase by phase, waits for what is in the way, and leaves the rotation where it
is when --timeout is over (default 1h) or the cluster refuses for another reason.`,
		Example: `  armorctl ca rotate advance --environment production
  armorctl ca rotate advance --environment production --until distrusted --timeout 48h --yes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.advanceRotation(cmd.Context(), o) },
	}
	o.environmentFlag(cmd)
	o.spareFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.until, "until", "", "go on until this `phase`")
	f.BoolVar(&o.force, "force", false, "distrust the old CA now, whoever depends on it")
	return cmd
}

func (a *app) advanceRotation(ctx context.Context, o rotateOptions) error {
	if o.until != "" && !slices.Contains(phaseNames(), o.until) {
		return &fault.Usage{Err: fmt.Errorf("--until %q is not one of %s", o.until, strings.Join(phaseNames(), ", "))}
	}
	if o.until != "" && o.force {
		return &fault.Usage{Err: errors.New("--force goes to distrusted at once: leave --until out")}
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := a.activeRotation(ctx, client, o.environment)
	if err != nil {
		return err
	}
	if o.until == "" {
		return a.advanceOnce(ctx, client, r, o)
	}
	return a.advanceUntil(ctx, client, r, o)
}

// advanceOnce brings a rotation into its next phase, or to distrusted by force.
func (a *app) advanceOnce(ctx context.Context, client *rpc.Client, r armor.Rotation, o rotateOptions) error {
	spared, err := o.spared()
	if err != nil {
		return err
	}
	to := r.Phase.Next()
	if o.force {
		to = armor.RotationDistrusted
	}
	if to == armor.RotationStandby || o.force && r.Phase == armor.RotationDistrusted {
		return fault.Hinted(fmt.Errorf("%w: environment %s is in phase %s", armor.ErrConflict, r.Environment, r.Phase),
			"armorctl ca rotate finish --environment %s ends the rotation for good, and rollback lets the old CA in again", r.Environment)
	}
	if to == armor.RotationDistrusted {
		if err := a.confirmCut(ctx, client, r); err != nil {
			return err
		}
	}
	return a.submitRotation(ctx, client, armor.MoveRotation{Environment: r.Environment, Revision: r.Revision, To: to, Spared: spared, Force: o.force}, r.Environment)
}

// confirmCut looks at who loses access, and asks.
func (a *app) confirmCut(ctx context.Context, client *rpc.Client, r armor.Rotation) error {
	looking, cancel := a.within(ctx, patience)
	defer cancel()
	view, err := a.lookAtRotation(looking, client, r)
	if err != nil {
		return err
	}
	return a.confirmLoss(ctx, view)
}

// confirmLoss lists who loses access, and asks.
func (a *app) confirmLoss(ctx context.Context, v rotationView) error {
	for _, s := range v.Silent {
		a.say("node %s did not answer: %s", s.Node, s.Why)
	}
	sessions := 0
	for _, s := range v.Sessions {
		a.say("connected by the old CA: %s, %d sessions", s.Identity, s.Sessions)
		sessions += s.Sessions
	}
	for _, h := range append(v.Holders, v.Unseen...) {
		a.say("has a certificate of the old CA: %s, owner %s, serial %s", h.Identity, h.Owner, shortSerial(h.Serial))
	}
	more := ""
	if v.More {
		more = " or more"
	}
	a.say("lose access: %d sessions, and %d%s certificates", sessions, len(v.Holders)+len(v.Unseen), more)
	return a.confirm(ctx, "distrust")
}

// untilPatience is how long advance --until waits by itself.
const untilPatience = time.Hour

// advanceUntil goes on phase by phase. What is in the way is waited for; what else the cluster
// refuses leaves the rotation to its operator.
func (a *app) advanceUntil(ctx context.Context, client *rpc.Client, r armor.Rotation, o rotateOptions) error {
	waiting, cancel := a.within(ctx, untilPatience)
	defer cancel()
	told := ""
	for !reached(r, o.until) {
		next := r.Phase.Next()
		if next == armor.RotationDistrusted {
			if err := a.confirmCut(ctx, client, r); err != nil {
				return err
			}
		}
		refusal := a.step(waiting, client, r, o)
		switch {
		case refusal == nil:
			a.say("environment %s: phase %s", r.Environment, next)
		case !errors.Is(refusal, armor.ErrConflict) || waiting.Err() != nil:
			return fault.Hinted(refusal, "environment %s stays in phase %s; go on with: armorctl ca rotate advance --environment %s",
				r.Environment, r.Phase, r.Environment)
		case refusal.Error() != told:
			told = refusal.Error()
			a.say("waiting: %s", told)
		}
		if refusal != nil && !pauseFor(waiting, rotationPoll) {
			return fault.Hinted(&verdict{exitProblems, fmt.Sprintf("environment %s stays in phase %s: %s", r.Environment, r.Phase, told)},
				"go on with: armorctl ca rotate advance --environment %s", r.Environment)
		}
		var err error
		if r, err = a.activeRotation(ctx, client, o.environment); err != nil {
			return err
		}
	}
	looking, done := a.within(ctx, patience)
	defer done()
	view, err := a.presentRotation(looking, client, r.Environment)
	if err != nil {
		return err
	}
	return a.showRotation(view)
}

// reached reports whether a rotation is in a phase, or beyond it.
func reached(r armor.Rotation, phase string) bool {
	return r.Phase.Number() >= armor.RotationPhase(phase).Number()
}

// step makes one move and waits until every node enforces it.
func (a *app) step(ctx context.Context, client *rpc.Client, r armor.Rotation, o rotateOptions) error {
	spared, err := o.spared()
	if err != nil {
		return err
	}
	stepping, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = client.Submit(stepping, armor.MoveRotation{Environment: r.Environment, Revision: r.Revision, To: r.Phase.Next(), Spared: spared},
		rpc.SubmitOptions{RequestID: rpc.NewRequestID(), Wait: rpc.WaitAll, Patience: patience})
	return err
}

// pauseFor waits, and reports false if ctx ends before.
func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *app) rotateRollbackCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "rollback --environment ENV",
		Short: "take a rotation back: nobody who gets in now is shut out by it",
		Long: `Ends a rotation without its new CA, from any phase before distrusted: both CAs stay trusted, and both may
issue. From distrusted it leads to shadow-distrust, so that the old CA lets in again; a second
rollback ends the rotation then. Certificates of the new CA stay good; to be rid of them, rotate the other way.`,
		Example: "  armorctl ca rotate rollback --environment production", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to := func(r armor.Rotation) armor.RotationPhase {
				if r.Phase == armor.RotationDistrusted {
					return armor.RotationShadow
				}
				return armor.RotationStandby
			}
			return a.endRotation(cmd.Context(), o, "", to)
		},
	}
	o.environmentFlag(cmd)
	return cmd
}

func (a *app) rotateFinishCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "finish --environment ENV",
		Short: "end a rotation for good: the old CA's key is revoked",
		Long: `Ends a rotation that is in phase distrusted. The old CA's key is revoked, so that no other CA can
vouch for it either. There is no rollback from that.`,
		Example: "  armorctl ca rotate finish --environment production", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.endRotation(cmd.Context(), o, "finish", func(r armor.Rotation) armor.RotationPhase { return armor.RotationStandby })
		},
	}
	o.environmentFlag(cmd)
	return cmd
}

// endRotation brings a rotation out of its phase; word is what must be typed to confirm, empty for nothing.
func (a *app) endRotation(ctx context.Context, o rotateOptions, word string, to func(armor.Rotation) armor.RotationPhase) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := a.activeRotation(ctx, client, o.environment)
	if err != nil {
		return err
	}
	finishes := word != ""
	if finishes && r.Phase != armor.RotationDistrusted {
		return fault.Hinted(fmt.Errorf("%w: environment %s is in phase %s, and only from distrusted is a rotation finished", armor.ErrConflict, r.Environment, r.Phase),
			"armorctl ca rotate advance --environment %s", r.Environment)
	}
	if finishes {
		a.say("the old CA's key is revoked for good")
		if err := a.confirm(ctx, word); err != nil {
			return err
		}
	}
	return a.submitRotation(ctx, client, armor.MoveRotation{Environment: r.Environment, Revision: r.Revision, To: to(r)}, r.Environment)
}
