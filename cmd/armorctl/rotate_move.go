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
	spared, err := o.spared()
	if err != nil {
		return err
	}
	return a.withRotation(ctx, o.environment, func(u underWay) error {
		if o.until == "" {
			return u.advance(ctx, spared, o.force)
		}
		return u.advanceUntil(ctx, spared, armor.RotationPhase(o.until))
	})
}

// advance brings a rotation into its next phase, or to distrusted by force.
func (u underWay) advance(ctx context.Context, spared []armor.Pattern, force bool) error {
	to := u.Phase.Next()
	if force {
		to = armor.RotationDistrusted
	}
	if to == armor.RotationStandby || force && u.Phase == armor.RotationDistrusted {
		return fault.Hinted(fmt.Errorf("%w: environment %s is in phase %s", armor.ErrConflict, u.Environment, u.Phase),
			"armorctl ca rotate finish --environment %s ends the rotation for good, and rollback lets the old CA in again", u.Environment)
	}
	if to == armor.RotationDistrusted {
		if err := u.confirmCut(ctx); err != nil {
			return err
		}
	}
	return u.move(ctx, armor.MoveRotation{To: to, Spared: spared, Force: force})
}

// confirmCut looks at who loses access, and asks.
func (u underWay) confirmCut(ctx context.Context) error {
	looking, cancel := u.within(ctx, patience)
	defer cancel()
	view, err := u.lookAtRotation(looking, u.client, u.Rotation)
	if err != nil {
		return err
	}
	return u.confirmLoss(ctx, view)
}

// confirmLoss lists who loses access, and asks.
func (a *app) confirmLoss(ctx context.Context, v rotationView) error {
	a.reportSilent(v.Silent)
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
// refuses leaves the rotation to its operator. Whether to distrust is asked once, before it is waited for.
func (u underWay) advanceUntil(ctx context.Context, spared []armor.Pattern, phase armor.RotationPhase) error {
	waiting, cancel := u.within(ctx, untilPatience)
	defer cancel()
	told, confirmed := "", uint64(0)
	for u.Phase.Number() < phase.Number() {
		next := u.Phase.Next()
		if next == armor.RotationDistrusted && confirmed != u.Revision {
			if err := u.confirmCut(ctx); err != nil {
				return err
			}
			confirmed = u.Revision
		}
		refusal := u.step(waiting, armor.MoveRotation{Environment: u.Environment, Revision: u.Revision, To: next, Spared: spared})
		switch {
		case refusal == nil:
			u.say("environment %s: phase %s", u.Environment, next)
		case !errors.Is(refusal, armor.ErrConflict) || waiting.Err() != nil:
			return fault.Hinted(refusal, "environment %s stays in phase %s; %s", u.Environment, u.Phase, u.goOn())
		case refusal.Error() != told:
			told = refusal.Error()
			u.say("waiting: %s", told)
		}
		if refusal != nil && !pauseFor(waiting, rotationPoll) {
			return fault.Hinted(&verdict{exitProblems, fmt.Sprintf("environment %s stays in phase %s: %s", u.Environment, u.Phase, told)},
				"%s", u.goOn())
		}
		var err error
		if u.Rotation, u.state, err = u.activeRotation(ctx, u.client, u.Environment); err != nil {
			return err
		}
	}
	looking, done := u.within(ctx, patience)
	defer done()
	view, err := u.presentRotation(looking, u.client, u.Environment)
	if err != nil {
		return err
	}
	return u.showRotation(view)
}

// goOn is for the operator to whom a rotation is left.
func (u underWay) goOn() string {
	return "go on with: armorctl ca rotate advance --environment " + u.Environment
}

// step makes one move and waits until every node enforces it.
func (u underWay) step(ctx context.Context, m armor.MoveRotation) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := u.client.Submit(ctx, m, rpc.SubmitOptions{RequestID: rpc.NewRequestID(), Wait: rpc.WaitAll, Patience: patience})
	return err
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
			return a.withRotation(cmd.Context(), o.environment, func(u underWay) error {
				back := armor.RotationStandby
				if u.Phase == armor.RotationDistrusted {
					back = armor.RotationShadow
				}
				return u.move(cmd.Context(), armor.MoveRotation{To: back})
			})
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
			return a.withRotation(cmd.Context(), o.environment, func(u underWay) error { return u.finish(cmd.Context()) })
		},
	}
	o.environmentFlag(cmd)
	return cmd
}

// finish ends a rotation for good, once that is confirmed.
func (u underWay) finish(ctx context.Context) error {
	if u.Phase != armor.RotationDistrusted {
		return fault.Hinted(fmt.Errorf("%w: environment %s is in phase %s, and only from distrusted is a rotation finished",
			armor.ErrConflict, u.Environment, u.Phase), "armorctl ca rotate advance --environment %s", u.Environment)
	}
	u.say("the old CA's key is revoked for good")
	if err := u.confirm(ctx, "finish"); err != nil {
		return err
	}
	return u.move(ctx, armor.MoveRotation{To: armor.RotationStandby})
}
