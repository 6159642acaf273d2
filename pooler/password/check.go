package password

import (
	"context"
	"errors"
	"time"

	"github.com/armordb/armordb/armor"
)

// Config is what a Checker needs.
type Config struct {
	// DecoyKey is a secret that all nodes share: it makes the decoys of roles without a
	// password look alike everywhere.
	DecoyKey []byte
	// GuessesPerSecond is how many passwords one identity at one source may get wrong, in
	// bursts of ten times as many.
	GuessesPerSecond float64
	// Patience bounds an exchange, from asking for the password to its proof.
	Patience time.Duration
}

// Checker checks passwords. Its methods may be called from any goroutine.
type Checker struct {
	decoys   decoys
	patience time.Duration
	guesses  *guesses
}

// New returns a Checker.
func New(cfg Config) *Checker {
	return &Checker{decoys: cfg.DecoyKey, patience: cfg.Patience, guesses: newGuesses(cfg.GuessesPerSecond)}
}

// Attempt is one client that is to prove its role's password.
type Attempt struct {
	Peer    armor.Peer // whose wrong passwords are counted
	Role    string
	Client  Client
	Source  Source
	Binding []byte // the channel binding tls-server-end-point (RFC 5929) of its connection; nil: not to be had
	Preface []byte // messages that come before the one that asks for the password
}

// Source knows what the password of the role of one Attempt is checked by.
type Source interface {
	// Verifier returns what there is to know, or an error that the client may read.
	Verifier(ctx context.Context) (Found, error)
	// Doubt says that a password did not fit, and that what was found may be out of date.
	Doubt()
}

// Found is what a Source knows. A role without a password has Verifier all the same: its
// decoy is made to look like that one.
type Found struct {
	Verifier Verifier
	Known    bool // the role has a password, and Verifier is its
}

// Check has the client prove the password. Its error is one of the Source's; or a
// *armor.Denial that has no id yet; or the cause with which ctx has ended; or says that
// the client has left.
func (c *Checker) Check(ctx context.Context, a Attempt) error {
	who := guesserOf(a.Peer)
	if !c.guesses.allow(who) {
		return &armor.Denial{
			Reason: armor.ReasonLimit, Message: "too many failed password attempts", Detail: "Wait a minute, then use the right password.",
		}
	}
	found, err := a.Source.Verifier(ctx)
	if err != nil {
		return err
	}
	x := &exchange{client: a.Client, role: a.Role, found: c.decoys.stand(found, a.Role), binding: a.Binding, preface: a.Preface}
	err = x.within(ctx, c.patience)
	if denial, ok := errors.AsType[*armor.Denial](err); ok && denial.ID == "" && denial.Reason == armor.ReasonPassword { // not another's cut
		c.guesses.failed(who)
		a.Source.Doubt()
	}
	return err
}

// Result is one word for metrics about what Check has returned, or what was made of it.
func Result(err error) string {
	if err == nil {
		return "ok"
	}
	if denial, ok := errors.AsType[*armor.Denial](err); ok {
		return string(denial.Reason)
	}
	return "abandoned"
}
