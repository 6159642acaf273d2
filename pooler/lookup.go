package pooler

import (
	"context"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/password"
	"github.com/armordb/armordb/pooler/pgwire"
)

// lookUp returns what PostgreSQL says of the password of a role, or the cause with which
// ctx has ended. Whoever asks first leaves an errand, which goes on without them.
func (p *pool) lookUp(ctx context.Context, q password.Question) (password.Found, error) {
	return p.lookups.Find(ctx, q, func(l *password.Lookup) {
		p.node.errands.add(func(ctx context.Context) {
			reply, err := p.askFor(ctx, q)
			l.Answer(reply, err, p.node.cfg.Hooks.Lookup)
		})
	})
}

// lookupOwner is who has a server connection that a verifier was asked for on. No identity
// is called so.
const lookupOwner = "armor: lookups"

// takeFromClients resets a server connection that a client may have had: what it has left
// there, such as a search_path, would choose what is found. Whatever the pool's
// isolation is, this does not trust its clients.
func (p *pool) takeFromClients(ctx context.Context, server *ServerConn, owner string) error {
	if server.State().Owner() == owner {
		return nil
	}
	if err := server.wire.Reset(ctx); err != nil {
		server.Discard()
		return fmt.Errorf("reset a server connection before PostgreSQL is asked something: %w", err)
	}
	server.State().Apply(nil, owner)
	return nil
}

// askFor runs the query on a server connection of the query's own role, in a place of
// the pool like any other.
func (p *pool) askFor(ctx context.Context, q password.Question) (password.Reply, error) {
	asker := &borrower{
		part: part{role: q.Query.Role, dbname: q.DBName}, id: p.node.nextID.Add(1), owner: lookupOwner, application: "armor",
		isolation: armor.NoIsolation, // it is reset here: see takeFromClients
	}
	server, err := p.await(ctx, asker)
	if err != nil {
		return password.Reply{}, err
	}
	if err := p.takeFromClients(ctx, server, lookupOwner); err != nil {
		return password.Reply{}, err
	}
	x := core.Exchange{Keep: 1}
	err = server.wire.Ask(ctx, pgwire.AppendQueryWith(nil, q.Query.Statement, q.Role), &x, p.node.cfg.LookupTimeout)
	if err != nil {
		server.Discard()
		return password.Reply{}, fmt.Errorf("ask PostgreSQL for a verifier: %w", err)
	}
	server.Release(nil)
	if x.Err != nil {
		return password.Reply{}, fmt.Errorf("ask PostgreSQL for a verifier: %w", x.Err)
	}
	reply := password.Reply{Rows: x.Seen}
	if len(x.Rows) > 0 {
		reply.First = x.Rows[0]
	}
	return reply, nil
}
