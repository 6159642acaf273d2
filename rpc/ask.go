package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

const (
	// readRounds is how often each address is tried by a call that changes nothing.
	readRounds = 3
	// Between rounds a client waits, twice as long each time.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// trying is how long and how often a call is tried.
type trying struct {
	within  time.Duration // for one attempt
	forever bool          // for as long as ctx lasts, not only readRounds
	// hopeless is asked between rounds while no leader is found: an error ends the call.
	hopeless func(ctx context.Context) error
	first    bool // nobody was asked before
}

// operatorCall is one call at one node.
type operatorCall func(context.Context, armorpb.OperatorAPIClient) error

func (c *Client) reading() trying { return trying{within: c.cfg.Timeout} }

// anyNode makes a call at one node after another, beginning with the one that
// answered last, until one answers.
func (c *Client) anyNode(ctx context.Context, t trying, call operatorCall) error {
	var last error
	pause := firstPause
	for round := 0; t.forever || round < readRounds; round++ {
		if round > 0 && !sleep(ctx, pause) {
			break
		}
		pause = min(2*pause, maxPause)
		t.first = round == 0
		var said error
		for range c.allLines() {
			if ctx.Err() != nil {
				return gaveUp(ctx, last)
			}
			l := c.preferred()
			err := c.try(ctx, l, t, call)
			if err == nil || !elsewhere(err) {
				return err
			}
			said = telling(said, err)
			last = said
			c.passOver(l)
		}
		if t.hopeless != nil && (errors.Is(last, armor.ErrNotLeader) || errors.Is(last, armor.ErrNoQuorum)) {
			if err := t.hopeless(ctx); err != nil {
				return err
			}
		}
	}
	return gaveUp(ctx, last)
}

// telling is the error of one round that says most: that a node does not answer says less than
// what another has answered.
func telling(before, err error) error {
	lost, ok := errors.AsType[*transportError](err)
	if before != nil && ok && lost.unsent {
		return before
	}
	return err
}

// noQuorum says that fewer voters answer than it takes to change anything: there is no
// election to wait for. It returns nil when enough do, or nobody can be asked.
func (c *Client) noQuorum(ctx context.Context) error {
	state, err := c.State(ctx, armor.Members)
	if err != nil {
		return nil
	}
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil
	}
	if answer, of := armor.VotersAnswering(state, nodes); answer <= of/2 {
		return fmt.Errorf("%w: %d of %d voters answer; nothing was changed", armor.ErrNoQuorum, answer, of)
	}
	return nil
}

// try makes a call at one node. In the first round, while there are others to ask, a node that
// does not get as far as a handshake is passed over soon: one that is stopped takes connections
// and says nothing, and must not hold up a revocation. An operator who is far away gets
// in in the next round.
func (c *Client) try(ctx context.Context, l *line, t trying, call operatorCall) error {
	if t.first && len(c.allLines()) > 1 {
		if err := l.reach(ctx, nearConnect); err != nil {
			return err
		}
	}
	return attempt(ctx, l, t.within, call)
}

func attempt(ctx context.Context, l *line, within time.Duration, call operatorCall) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return l.use(ctx, func(conn grpc.ClientConnInterface) error {
		return call(ctx, armorpb.NewOperatorAPIClient(conn))
	})
}

// gaveUp says why nobody answered. That a node does not lead means to the caller that
// no leader could be reached; an attempt's own deadline is not the caller's.
func gaveUp(ctx context.Context, last error) error {
	kind := armor.ErrUnavailable
	switch {
	case errors.Is(last, armor.ErrUncertain):
		kind = armor.ErrUncertain
	case errors.Is(last, armor.ErrNotLeader), errors.Is(last, armor.ErrNoQuorum):
		kind = armor.ErrNoQuorum
	}
	switch {
	case last == nil:
		return fmt.Errorf("%w: %w", kind, ctx.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w; last: %v", kind, ctx.Err(), last)
	case errors.Is(last, kind):
		return last
	default:
		return fmt.Errorf("%w: %v", kind, last)
	}
}

func (c *Client) preferred() *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[c.first]
}

// passOver moves on to the next address, unless another call has done so already.
func (c *Client) passOver(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines[c.first] == l {
		c.first = (c.first + 1) % len(c.lines)
	}
}

// saw remembers the revision of a change of our own, so that what is read afterwards
// contains it.
func (c *Client) saw(revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = max(c.seen, revision)
}

// State fetches the named tables, all of them when none is named, as one node holds
// them now; changes that this client has submitted are in it. The rest of the state's
// tables is empty. Revision, Time and Cluster are always there, and the indexes that
// follow from tables asked for (KeyEnvironments from the inventory, Grants from the
// identities).
func (c *Client) State(ctx context.Context, tables ...Table) (*armor.State, error) {
	s, _, err := c.tables(ctx, &armorpb.StateRequest{}, tables)
	return s, err
}

// Ask is State, but that of the inventory, the revocations and the identities there is only
// what answers a question: it costs the same beside a thousand rows and a million. Next is
// where a page ends that was asked for; empty: at the end of its list. A node of an earlier
// release sends all rows, which answer as well.
func (c *Client) Ask(ctx context.Context, q armor.Question, tables ...Table) (s *armor.State, next string, err error) {
	if err := q.Check(); err != nil {
		return nil, "", err
	}
	return c.tables(ctx, &armorpb.StateRequest{About: toMessage[armorpb.Question](q)}, tables)
}

func (c *Client) tables(ctx context.Context, q *armorpb.StateRequest, tables []Table) (s *armor.State, next string, err error) {
	c.mu.Lock()
	q.AtLeast = c.seen
	c.mu.Unlock()
	if len(tables) > 0 && !slices.ContainsFunc(tables, func(t Table) bool { return t.Name() == armor.Members.Name() }) {
		tables = append(slices.Clip(tables), armor.Members) // to know whom to ask next time
	}
	for _, t := range tables {
		q.Tables = append(q.Tables, t.Name())
	}
	err = c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		stream, err := api.Tables(ctx, q)
		if err == nil {
			s, next, err = receiveState(stream.Recv)
		}
		return cut(err)
	})
	if err != nil {
		return nil, "", err
	}
	var addresses []string
	pins := map[armor.NodeID]armor.Digest{}
	for m := range s.Members.Values() {
		addresses = append(addresses, m.PeerAddress)
		pins[m.ID] = m.Certificate.Key
	}
	c.learn(addresses, pins)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clusterID == "" {
		c.clusterID = s.Cluster.ID // what requests are signed for
	}
	c.logTime, c.told = s.Time, s.Cluster
	return s, next, nil
}

// cut turns the end of a stream that had more to say into an error of the transport.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return &transportError{message: "the answer was cut short", kind: armor.ErrUnavailable}
	}
	return err
}

// Nodes asks every member for its status. One that does not answer within two seconds
// is listed with Unreachable set.
func (c *Client) Nodes(ctx context.Context) ([]armor.NodeStatus, error) {
	var nodes []armor.NodeStatus
	err := c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Nodes(ctx, &armorpb.Empty{})
		if err == nil {
			nodes, err = fromMessages[armor.NodeStatus](reply.Nodes)
		}
		return err
	})
	var members []string
	for _, n := range nodes {
		if n.PeerAddress != "" {
			members = append(members, n.PeerAddress)
		}
	}
	c.learn(members, nil)
	return nodes, err
}

// Sessions lists the live sessions of every node.
func (c *Client) Sessions(ctx context.Context) (SessionSurvey, error) {
	return c.survey(ctx, func(ctx context.Context, api armorpb.OperatorAPIClient) (sessionStream, error) {
		return api.Sessions(ctx, &armorpb.Empty{})
	})
}

func (c *Client) survey(
	ctx context.Context, call func(context.Context, armorpb.OperatorAPIClient) (sessionStream, error),
) (SessionSurvey, error) {
	var all SessionSurvey
	err := c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		stream, err := call(ctx, api)
		if err == nil {
			all, err = receiveSessions(stream)
		}
		return err
	})
	return all, err
}

// Denial finds the record of a refusal by the id that the client was given, whichever
// node remembers it. It is ErrNotFound when none does.
func (c *Client) Denial(ctx context.Context, id string) (armor.DenialRecord, error) {
	var record armor.DenialRecord
	err := c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Denial(ctx, &armorpb.DenialRequest{Id: id})
		if err == nil {
			record, err = fromMessage[armor.DenialRecord](reply)
		}
		return err
	})
	return record, err
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
