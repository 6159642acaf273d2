package pooler

import (
	"context"
	"errors"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/password"
)

// prove has a client prove what its grant asks for beside its certificate. The edge
// judges the session by it from then on.
func (p *Pooler) prove(ctx context.Context, c *client, access armor.Access, r *request) error {
	switch access.SecondFactor {
	case "":
	case armor.SCRAM:
		err := p.checkPassword(ctx, c, access.Database, r)
		if hook := p.cfg.Hooks.Password; hook != nil {
			hook(password.Result(err))
		}
		if err != nil {
			return err
		}
	default:
		return c.guest.Refuse(&armor.Denial{
			Reason: armor.ReasonNotReady, Message: fmt.Sprintf("this node cannot check the second factor %q", access.SecondFactor),
		})
	}
	return c.guest.Proved(access.SecondFactor)
}

// checkPassword has a client prove its role's password. A cut ends that.
func (p *Pooler) checkPassword(ctx context.Context, c *client, d armor.Database, r *request) error {
	err := p.passwords.Check(ctx, password.Attempt{
		Peer: c.guest.Peer(), Role: c.part.role, Client: password.Wire{Conn: c.conn}, Source: &source{c, d},
		Binding: c.guest.EndPoint(), Preface: r.negotiation(),
	})
	if denial, ok := errors.AsType[*armor.Denial](err); ok && denial.ID == "" { // the cause of a cut has one
		return c.guest.Refuse(denial)
	}
	return err
}

// source is where a client's database has its verifier from: a file of the node, or
// PostgreSQL.
type source struct {
	client   *client
	database armor.Database
}

// Verifier returns what is known (password.Source).
func (s *source) Verifier(ctx context.Context) (password.Found, error) {
	found, err := s.find(ctx)
	if err == nil {
		return found, nil
	}
	if ctx.Err() != nil {
		return found, context.Cause(ctx)
	}
	s.client.home.cfg.Logger.Warn("passwords cannot be checked", armor.KeyDatabase, s.database.Name, armor.KeyErr, err)
	if denial, ok := errors.AsType[*armor.Denial](err); ok { // PostgreSQL is not to be had
		return found, denial
	}
	return found, &armor.Denial{Reason: armor.ReasonNotReady, Message: "this node cannot check passwords for the database"}
}

func (s *source) find(ctx context.Context) (password.Found, error) {
	if !s.asks() {
		return s.client.home.verifierOf(s.database.Verifiers, s.client.part.role)
	}
	return s.client.pool.lookUp(ctx, s.question())
}

// Doubt has PostgreSQL asked again (password.Source). Files are read each time.
func (s *source) Doubt() {
	if s.asks() {
		s.client.pool.lookups.Doubt(s.question())
	}
}

// asks reports whether it is PostgreSQL that is asked.
func (s *source) asks() bool { return s.database.Query != (armor.AuthQuery{}) }

func (s *source) question() password.Question {
	return password.Question{Query: s.database.Query, Role: s.client.part.role, DBName: s.client.part.dbname}
}

// verifierOf finds the verifier of a role in a node's file.
func (p *Pooler) verifierOf(name armor.SecretName, role string) (password.Found, error) {
	all, err := p.cfg.Secrets.Verifiers(name)
	if err != nil {
		return password.Found{}, fmt.Errorf("verifiers %s: %w", name, err)
	}
	found, err := password.Pick(all, role)
	if err != nil {
		return password.Found{}, fmt.Errorf("verifiers %s: %w", name, err)
	}
	return found, nil
}

// checkVerifiers says what is wrong with a node's file of verifiers.
func (p *Pooler) checkVerifiers(name armor.SecretName) error {
	all, err := p.cfg.Secrets.Verifiers(name)
	if err != nil {
		return err
	}
	return password.CheckAll(all)
}
